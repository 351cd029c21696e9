"""What the tests of kept plans share: a model saved and run, and what is in the cache then."""

from __future__ import annotations

import threading
from pathlib import Path

import onnx

from vkconv import InferenceSession
from vkconv.ir import Array


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, path)
    return path


def outputs(source: object, x: Array, device: str = "auto") -> Array:
    with InferenceSession(source, device=device) as session:
        (y,) = session.run(None, {"x": x})
    settle()
    return y


def settle() -> None:
    """Waits for the threads that write."""
    for thread in threading.enumerate():
        if thread.name == "vkconv-keep-plan":
            thread.join()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.vkplan"))
