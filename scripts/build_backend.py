"""The package's build backend: setuptools', with the shaders compiled first.

Only the hooks that every backend must have: a front end does without the optional ones (it takes
the metadata from the wheel), and each hook here would have to compile, for setuptools looks at the
packages' contents in all of them. Intermediate files of a wheel go elsewhere: setuptools would
pack again whatever an earlier build left in ``build/``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta

from compile_shaders import ShaderError, compile_shaders

__all__ = ["build_editable", "build_sdist", "build_wheel"]

Settings = Mapping[str, Any] | None


def _compile() -> None:
    try:
        compile_shaders()
    except ShaderError as error:
        # not an exception that the front end would print as a traceback
        sys.exit(f"vkconv: {error}")


@contextmanager
def _intermediate_files_elsewhere() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        extra = Path(folder, "setup.cfg")
        extra.write_text(f"[build]\nbuild_base={folder}\n[egg_info]\negg_base={folder}\n")
        os.environ["DIST_EXTRA_CONFIG"] = str(extra)
        try:
            yield
        finally:
            del os.environ["DIST_EXTRA_CONFIG"]


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    _compile()
    with _intermediate_files_elsewhere():
        return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    _compile()
    with _intermediate_files_elsewhere():
        return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    _compile()
    try:
        return str(build_meta.build_sdist(sdist_directory, config_settings))
    finally:
        # setuptools insists on this place for an sdist; left there, it looks like an installation
        shutil.rmtree("vkconv.egg-info", ignore_errors=True)
