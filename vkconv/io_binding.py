"""Arrays bound to a session's inputs and outputs once and used run after run.

    binding = session.io_binding()
    binding.bind_cpu_input("images", pixels)
    binding.bind_output("boxes", boxes)       # written into; without an array: a new one each run
    session.run_with_iobinding(binding)       # again whenever pixels holds something new

Shaped like onnxruntime's. Nothing of a tensor's size is allocated in a run where every output has
an array; outputs that are not bound are not even fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vkconv.arguments import NodeArg
from vkconv.errors import InvalidInputError
from vkconv.ir import Array


class IOBinding:
    """Made by ``InferenceSession.io_binding``. One thread at a time may use it."""

    def __init__(self, inputs: Sequence[NodeArg], outputs: Sequence[NodeArg]) -> None:
        self._input_args = {arg.name: arg for arg in inputs}
        self._output_args = {arg.name: arg for arg in outputs}
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array | None] = {}
        self._results: list[Array] = []

    def bind_cpu_input(self, name: str, array: Any) -> None:
        """Feed ``array``, as it is at the time of each run, to an input."""
        if name not in self._input_args:
            raise InvalidInputError(
                f"the model has no input '{name}'; its inputs: {', '.join(self._input_args)}"
            )
        self.inputs[name] = np.asarray(array)

    def bind_output(self, name: str, array: Array | None = None) -> None:
        """Fetch an output: into ``array``, which has its dtype and shape, or into a new one."""
        arg = self._output_args.get(name)
        if arg is None:
            raise InvalidInputError(
                f"the model has no output '{name}'; its outputs: {', '.join(self._output_args)}"
            )
        if array is not None:
            _check_array(array, arg)
        self.outputs[name] = array

    def clear_binding_inputs(self) -> None:
        self.inputs.clear()

    def clear_binding_outputs(self) -> None:
        self.outputs.clear()
        self._results = []

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The outputs of the last run in the order they were bound: the bound arrays themselves,
        new ones for the others."""
        if not self._results:
            raise InvalidInputError("the binding has not been run; call run_with_iobinding first")
        return list(self._results)

    get_outputs = copy_outputs_to_cpu

    def keep(self, results: list[Array]) -> None:
        """Called by the session behind a run."""
        self._results = results


def _check_array(array: Array, arg: NodeArg) -> None:
    if not isinstance(array, np.ndarray):
        raise InvalidInputError(
            f"output '{arg.name}' takes a numpy array, not {type(array).__name__}"
        )
    dtype = _DTYPES.get(arg.type, arg.type.removeprefix("tensor(").rstrip(")"))
    if array.dtype.name != dtype or not array.dtype.isnative:
        raise InvalidInputError(f"output '{arg.name}' is {dtype}, the array {array.dtype.name}")
    if not array.flags.writeable:
        raise InvalidInputError(f"the array for output '{arg.name}' is read-only")
    fits = array.ndim == len(arg.shape) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(arg.shape, array.shape, strict=True)
    )
    if arg.shape and not fits:
        raise InvalidInputError(
            f"output '{arg.name}' has shape {arg.shape}, the array {list(array.shape)}"
        )


_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
