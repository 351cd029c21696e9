"""Operators from outside this package: how they are registered, and what they are written with.

    from vkconv.custom_operators import Operator, TensorType, register_operator

    @register_operator("CornerPool", domain="com.example", kernels=[corner_pool_spv])
    class CornerPool(Operator):
        direction: str = "top"                      # attributes, with their defaults
        def infer(self, x): return x.known_type     # types of the outputs
        def reference(self, x): ...                 # numpy: folding, the host, tests' oracle
        def lower(self, ctx, inputs, outputs): ...  # dispatches; without it, a host node

docs/custom_operators.md is the guide. What the author of an operator gets wrong is answered with a
VkconvError that names the operator, and the node where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vkconv import shaders
from vkconv.custom_operators.declaration import check_class, spell_annotations
from vkconv.custom_operators.guards import guard_methods
from vkconv.dispatch import Dispatch, View, c4_dims
from vkconv.errors import BuildError, InvalidInputError, VkconvError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.grids import Grid, spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator, UnknownShapeError
from vkconv.ops.registry import OWN_DOMAINS, REGISTRY, operator

__all__ = [
    "Array",
    "Dispatch",
    "Grid",
    "Layout",
    "Lowering",
    "Operator",
    "Tensor",
    "TensorType",
    "UnknownShapeError",
    "Value",
    "View",
    "c4_dims",
    "register_operator",
    "spread",
    "unregister_operator",
]

T = TypeVar("T", bound=type)

#: generated modules by operator: what its registration brought
_kernels: dict[tuple[str, str], tuple[str, ...]] = {}


def register_operator(
    op_type: str,
    *,
    domain: str,
    since: tuple[int, ...] = (1,),
    kernels: Sequence[Any] = (),
    replace: bool = False,
) -> Callable[[T], T]:
    """Class decorator: the class, an ``Operator``, runs the nodes of that type and domain.

    since: versions of the domain at which the operator changed; ``self.version`` is the newest one
        that the model's import of the domain reaches.
    kernels: modules that ``vkconv compile-shader`` wrote. ``lower`` names their kernels with the
        domain in front: "com.example.corner_pool" for corner_pool.comp.
    replace: take the place of what is registered under the same name, as in a notebook.

    Raises InvalidInputError on a wrong name or class or one that is taken, BuildError on a kernel.
    """
    title = f"{domain}.{op_type}"
    if not isinstance(op_type, str) or not op_type.isidentifier():
        raise InvalidInputError(f"operator '{title}': '{op_type}' is no name of an operator")
    if not isinstance(domain, str) or domain in (*OWN_DOMAINS, "ai.onnx"):
        raise InvalidInputError(
            f"operator '{op_type}': domain '{domain}' is the standard's or this package's own; "
            "take one of yours, as in 'com.example'"
        )
    if not since or not all(isinstance(v, int) and v > 0 for v in since):
        raise InvalidInputError(f"operator '{title}': since={since} is no tuple of versions")

    def register(cls: T) -> T:
        key = (domain, op_type)
        if key in REGISTRY and not replace:
            raise InvalidInputError(
                f"operator '{title}' is registered already, by {REGISTRY[key].__module__}; "
                "rename one of the two, or say replace=True"
            )
        check_class(title, cls)
        found = _named(title, domain, kernels, replace)
        spell_annotations(title, cls)
        guard_methods(title, cls)
        former = REGISTRY.pop(key, None)
        try:
            operator(op_type, since=since, domain=domain)(cls)
            for name, module in found.items():
                shaders.add_kernel(name, module)
        except Exception as error:
            REGISTRY.pop(key, None)
            if former is not None:
                REGISTRY[key] = former
            if isinstance(error, VkconvError):
                raise
            # dataclass: an attribute without a default behind one with, a list as a default
            raise InvalidInputError(f"operator '{title}': {error}") from error
        _kernels[key] = tuple(found)
        return cls

    return register


def unregister_operator(op_type: str, *, domain: str) -> None:
    """Undo ``register_operator``. Sessions keep the plans they have. Raises InvalidInputError."""
    key = (domain, op_type)
    if key not in _kernels:
        raise InvalidInputError(f"operator '{domain}.{op_type}' is not a registered one")
    REGISTRY.pop(key, None)
    for kernel in _kernels.pop(key):
        if not any(kernel in others for others in _kernels.values()):
            shaders.remove_kernel(kernel)


def _named(title: str, domain: str, modules: Sequence[Any], replace: bool) -> dict[str, Any]:
    """The generated modules by full kernel name; one name is not taken twice."""
    known = shaders.added_kernels()
    found: dict[str, Any] = {}
    for module in modules:
        stem = getattr(module, "KERNEL", None)
        if not isinstance(stem, str):
            origin = getattr(module, "__name__", type(module).__name__)
            raise BuildError(
                f"operator '{title}': '{origin}' is no compiled shader; kernels are the modules "
                "that 'vkconv compile-shader' writes"
            )
        name = f"{domain}.{stem}"
        taken = found.get(name, None if replace else known.get(name))
        if taken is not None and taken is not module:
            raise InvalidInputError(
                f"operator '{title}': kernel '{name}' is registered already, from "
                f"'{taken.__name__}'; rename one of the .comp files"
            )
        found[name] = module
    return found
