"""What the class of a custom operator has to be, before it is registered."""

from __future__ import annotations

from typing import Any

import numpy as np

from vkconv.errors import InvalidInputError
from vkconv.ir import Array, Graph
from vkconv.ops.operator import Operator, has_method

#: how an attribute may be annotated: the spelling ``create`` knows -> Python types
_ANNOTATIONS: dict[str, tuple[Any, ...]] = {
    "int": (int,),
    "float": (float,),
    "str": (str,),
    "tuple[int, ...]": (tuple[int, ...],),
    "tuple[float, ...]": (tuple[float, ...],),
    "tuple[str, ...]": (tuple[str, ...],),
    "Array": (np.ndarray, Array),
    "Graph": (Graph,),
}
_SPELLINGS = {"np.ndarray": "Array", "numpy.ndarray": "Array", "NoneType": "None"}


def check_class(title: str, cls: Any) -> None:
    if not isinstance(cls, type) or not issubclass(cls, Operator):
        raise InvalidInputError(
            f"operator '{title}': '{getattr(cls, '__name__', cls)}' is no subclass of "
            "vkconv.custom_operators.Operator"
        )
    missing = [name for name in ("infer", "reference") if not has_method(cls, name)]
    if missing:
        raise InvalidInputError(
            f"operator '{title}' has no {' and no '.join(missing)}; every operator needs infer "
            "(types of the outputs) and reference (the outputs by numpy)"
        )
    for name in getattr(cls, "__annotations__", {}):
        taken = hasattr(Operator, name) or name in Operator.__annotations__
        if taken and not _is_class_variable(cls, name):
            raise InvalidInputError(
                f"operator '{title}': the attribute '{name}' has a name that Operator uses; "
                "annotate it with ClassVar if that is meant, or name it otherwise"
            )


def _is_class_variable(cls: type, name: str) -> bool:
    return "ClassVar" in str(cls.__annotations__[name])


def spell_annotations(title: str, cls: type) -> None:
    """Annotations as ``create`` reads them: texts, in one spelling."""
    for name, given in list(getattr(cls, "__annotations__", {}).items()):
        if _is_class_variable(cls, name):
            continue
        spelt = _spelling(given)
        if spelt is None:
            raise InvalidInputError(
                f"operator '{title}': attribute '{name}' is annotated {given!r}; ONNX attributes "
                f"are one of {', '.join(_ANNOTATIONS)}, each also with '| None'"
            )
        cls.__annotations__[name] = spelt


def _spelling(annotation: Any) -> str | None:
    """The spelling of an annotation, given as a type or as text; None for another type."""
    if isinstance(annotation, str):
        parts = [_SPELLINGS.get(p.strip(), p.strip()) for p in annotation.split("|")]
    else:
        kinds = getattr(annotation, "__args__", ()) if _is_union(annotation) else (annotation,)
        parts = [
            "None"
            if kind is type(None)
            else next((text for text, types in _ANNOTATIONS.items() if kind in types), "")
            for kind in kinds
        ]
    known = [p for p in parts if p in _ANNOTATIONS]
    if not known or any(p not in _ANNOTATIONS and p != "None" for p in parts):
        return None
    return " | ".join(parts)


def _is_union(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return type(annotation).__name__ == "UnionType" or "Union" in str(origin)
