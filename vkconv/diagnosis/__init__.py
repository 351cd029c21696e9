"""``vkconv doctor``: what this machine offers, and whether it works.

Nothing in here raises for what is missing or broken: that is what is to be found out.
"""
