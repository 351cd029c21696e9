"""The command line: ``vkconv run|devices|inspect`` and ``vkconv-run``.

Uses the library as any program would, through ``import vkconv``. Every module here imports the
standard library only at its top, so that ``--help`` and usage errors answer at once.
"""
