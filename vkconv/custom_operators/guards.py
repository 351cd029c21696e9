"""What the methods of a custom operator raise and return, checked where it happens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from vkconv.dispatch import Dispatch
from vkconv.errors import BuildError, InvalidModelError, VkconvError
from vkconv.ir import DTYPES, Node, TensorType, Value
from vkconv.ops.lowering import Tensor
from vkconv.ops.operator import Operator, UnknownShapeError, has_method


def guard_methods(title: str, cls: type) -> None:
    """Wrap the methods that the class has, so that their faults say where they are."""
    for name, check in _CHECKS.items():
        method = inspect.getattr_static(cls, name)
        if has_method(cls, name) and not hasattr(method, "guards"):
            setattr(cls, name, _guarded(title, name, method, check))


def _guarded(
    title: str, name: str, method: Callable[..., Any], check: Callable[..., str | None]
) -> Callable[..., Any]:
    """The method; a foreign exception, or a result that does not fit, is a VkconvError."""
    kind = InvalidModelError if name == "infer" else BuildError

    def fault(arguments: Sequence[Any], wrong: str) -> VkconvError:
        node = _node_among(arguments)
        where = f"{node}: " if node is not None else ""
        return kind(f"{where}{name} of operator '{title}' failed: {wrong}")

    @functools.wraps(method)
    def guarded(self: Operator, *arguments: Any) -> Any:
        try:
            result = method(self, *arguments)
            wrong = check(result, *arguments)
        except (VkconvError, UnknownShapeError):
            raise
        except Exception as error:
            raise fault(arguments, f"{type(error).__name__}: {error}") from error
        if wrong is not None:
            raise fault(arguments, wrong)
        return result

    guarded.guards = method  # type: ignore[attr-defined]
    return guarded


def _node_among(arguments: Sequence[Any]) -> Node | None:
    """The node, which its outputs know."""
    outputs = arguments[-1] if arguments else None
    first = outputs[0] if isinstance(outputs, (list, tuple)) and outputs else None
    value = first.value if isinstance(first, Tensor) else first
    return value.producer if isinstance(value, Value) else None


def _wrong_types(result: Any, *_: Any) -> str | None:
    for found in result if isinstance(result, tuple) else (result,):
        if not isinstance(found, TensorType):
            return f"it returned {found!r:.60}, not a TensorType or a tuple of them"
        sizes = found.shape if isinstance(found.shape, tuple) else (None,)
        if found.dtype not in DTYPES or not all(isinstance(d, int) and d >= 0 for d in sizes):
            return f"it returned {found}: no element type with a tuple of sizes"
    return None


def _wrong_layout(
    result: Any, inputs: Sequence[Value | None], outputs: Sequence[Value]
) -> str | None:
    if result not in ("linear", "c4"):
        return f"it returned {result!r:.60}, not 'linear' or 'c4'"
    for value in outputs if result == "c4" else ():
        if not value.dtype.startswith("float") or not 3 <= len(value.dims) <= 5:
            return f"it returned 'c4', which holds floats of rank 3 to 5, for {value.type}"
    return None


def _wrong_dispatches(result: Any, *_: Any) -> str | None:
    if isinstance(result, (list, tuple)) and all(isinstance(d, Dispatch) for d in result):
        return None
    return f"it returned {type(result).__name__}, not a list of what ctx.dispatch(...) returns"


def _wrong_reason(result: Any, *_: Any) -> str | None:
    if result is None or isinstance(result, str):
        return None
    return f"it returned {result!r:.60}, not a reason or None"


def _anything(*_: Any) -> str | None:
    return None


_CHECKS: dict[str, Callable[..., str | None]] = {
    "infer": _wrong_types,
    "unsupported": _wrong_reason,
    "layout": _wrong_layout,
    "lower": _wrong_dispatches,
    "bound": _anything,
    "view": _anything,
    "place": _anything,
    "flops": _anything,
}
