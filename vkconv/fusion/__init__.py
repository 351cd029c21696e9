"""``vkconv.fuse``: a model with linear branches -> the same model with one convolution each.

The model is read, rewritten by ``passes.fuse_linear`` and brought back to ONNX by ``onnx_writer``;
what this room adds is what a user needs to trust that: a report, and a proof by numbers.

    __init__  fuse, FusedModel
    report    sizes before and after, each fusion, what was left alone
    proof     both models on random inputs
    engines   what they are run on, without fusions
    sizes     inputs that a model takes
    types     types of a graph that may hold operators unknown here
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vkconv.capabilities import DeviceChoice
from vkconv.errors import FusionError, InvalidInputError, InvalidModelError
from vkconv.fusion.proof import Comparison, Proof, prove
from vkconv.fusion.report import FusionReport, Size, all_fusions
from vkconv.fusion.sizes import checked_shapes, possible_shapes
from vkconv.fusion.types import Shapes, annotate, check_nodes, flops_of, typed
from vkconv.ir import Graph, Node, Unfused, Value
from vkconv.onnx_reader import Source, open_model, without_functions
from vkconv.onnx_writer import (
    ModelEditor,
    StoredModel,
    at_opset,
    contents_of,
    missing_operators,
)
from vkconv.passes import fuse_linear

__all__ = ["Comparison", "FusedModel", "FusionReport", "Proof", "Size", "fuse"]

#: metadata that says a model went through here
METADATA_KEY = "vkconv.fused"
_MANY_PARAMETERS = 1_000_000


class FusedModel:
    """What ``fuse`` made: ``report``, ``proof`` (None where there was nothing to prove, or it was
    not asked for), and the model."""

    def __init__(
        self, stored: StoredModel, report: FusionReport, proof: Proof | None, source: Path | None
    ) -> None:
        self._stored, self._source = stored, source
        self.report, self.proof = report, proof

    @property
    def is_proven(self) -> bool:
        """Whether the two models agree; a model in which nothing was fused agrees with itself."""
        return self.proof.holds if self.proof is not None else not self.report.fusions

    def to_bytes(self) -> bytes:
        """The model as the bytes of a file, whether it is proven or not.

        Raises InvalidModelError where it does not fit one file.
        """
        return self._stored.to_bytes()

    def to_proto(self) -> Any:
        """The model as an onnx.ModelProto; its external data, if any, is where it was."""
        return self._stored.to_proto()

    def save(self, path: Any, *, force: bool = False, overwrite: bool = False) -> None:
        """Write the model, whole or not at all.

        Beside it lies ``path + ".data"`` when the model is larger than 2 GiB, or was in two files
        before. force: also when the proof fails. overwrite: also in place of the model that was
        read. Raises FusionError, InvalidInputError.
        """
        target = str(path)
        if self.proof is not None and not self.proof.holds and not force:
            raise FusionError(f"the fused model is not written: {self.proof.verdict}")
        if not overwrite:
            self.check_apart(target)
        self._stored.save(target)

    def check_apart(self, path: str) -> None:
        """Raises InvalidInputError when writing to ``path`` would change the model that was
        read."""
        read = {file.resolve() for file in self._stored.external_files}
        if self._source is not None:
            read.add(self._source.resolve())
        targets = [Path(path)]
        if not self._stored.is_one_file:
            targets.append(Path(f"{path}.data"))
        for target in targets:
            if target.resolve() in read:
                raise InvalidInputError(
                    f"'{target}' belongs to the model that is read; write the fused one elsewhere, "
                    "or say that it may take its place"
                )


def fuse(
    model: Any,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    prove: bool = True,
    device: DeviceChoice = "auto",
) -> FusedModel:
    """Fuse linear branches of a model: batch normalisations, parallel convolutions, constants.

    model: as InferenceSession takes it; it is left as it is. shapes: of inputs, by name, for what
    the model leaves open; they are used to count operations and to prove. prove: compare both
    models on random inputs. device: what the proof runs on besides onnxruntime: "auto" (numpy while
    that takes a second or two, else the GPU), "reference", or a device as InferenceSession takes
    it.

    Raises InvalidModelError, InvalidInputError.
    """
    source = open_model(model)
    rewritten = _rewrite(source, shapes)
    if source.model.functions:
        rewritten = _through_functions(source, rewritten, shapes)
    if not rewritten.report.fusions:
        return FusedModel(rewritten.stored, rewritten.report, None, _path_of(model))
    proof = _proof(model, source, rewritten, device) if prove else None
    return FusedModel(rewritten.stored, rewritten.report, proof, _path_of(model))


@dataclass(frozen=True)
class _Rewritten:
    """A model after fusion, the inputs of its graph, and the sizes it may be proven at."""

    stored: StoredModel
    report: FusionReport
    inputs: list[Value]
    possible: list[Shapes]


def _rewrite(
    source: Source,
    shapes: Mapping[str, Sequence[int]] | None,
    refused: Mapping[int, Sequence[Unfused]] | None = None,
) -> _Rewritten:
    """``refused``: by position of the graph in the model, what is not to be fused, and why."""
    before_contents = contents_of(source.model)
    editor = ModelEditor(source)
    for graph in editor.graphs:
        check_nodes(graph)
    read = editor.graph.copy()
    given = checked_shapes(read, shapes)
    possible, flops = _sizes(read, given)
    for position, graph in enumerate(editor.graphs):
        graph.unfused += (refused or {}).get(position, ())
        annotate(graph)
        fuse_linear(graph)
    if missing := missing_operators(editor.graphs, source.model):
        return _at_newer_opset(source, missing, editor.graphs, shapes, refused is None)
    fusions = all_fusions(editor.graphs)
    flops_after = flops_of(typed(editor.graph, possible[0]))
    unfused = [entry for graph in editor.graphs for entry in graph.unfused]
    proto = editor.write({METADATA_KEY: _note(len(fusions))})
    told = {name for fusion in fusions for name in fusion.nodes}
    report = FusionReport(
        Size(*before_contents, flops),
        Size(*contents_of(proto), flops_after),
        possible[0],
        tuple(fusions),
        tuple(unfused),
        tuple(name for name in editor.removed if name not in told),
        _notes(editor.lost_inputs),
    )
    inputs = [Value(value.name, value.type) for value in read.inputs]
    # these hold each weight twice: let go before another copy is made
    del editor, read, graph
    _free(report)
    return _Rewritten(StoredModel(proto, source.folder), report, inputs, possible)


def _notes(lost_inputs: Sequence[str]) -> tuple[str, ...]:
    if not lost_inputs:
        return ()
    shown = ", ".join(lost_inputs[:3]) + (", ..." if len(lost_inputs) > 3 else "")
    return (f"weights that callers could override are fixed now: {shown}",)


def _sizes(graph: Graph, given: Shapes) -> tuple[list[Shapes], int]:
    """Shapes that the graph takes as far as types tell, and its operations at the first of them."""
    tried = list(possible_shapes(graph, given))
    found = [shapes for shapes in tried if _fits(graph, shapes)]
    # types do not tell all: what is not known here may stand in between
    possible = found or tried
    return possible, flops_of(typed(graph, possible[0]))


def _fits(graph: Graph, shapes: Shapes) -> bool:
    try:
        typed(graph, shapes, strict=True)
    except InvalidModelError:
        return False
    return True


def _through_functions(
    source: Source, kept: _Rewritten, shapes: Mapping[str, Sequence[int]] | None
) -> _Rewritten:
    """The model with its local functions expanded, where more can be fused then."""
    expanded = _rewrite(without_functions(source), shapes)
    if len(expanded.report.fusions) <= len(kept.report.fusions):
        return kept
    functions = len(source.model.functions)
    note = f"its {functions} local function{'s' * (functions > 1)} expanded: fusion reaches inside"
    before = Size(*contents_of(source.model), expanded.report.before.flops)
    report = replace(expanded.report, before=before, notes=(*expanded.report.notes, note))
    return replace(expanded, report=report)


def _at_newer_opset(
    source: Source,
    missing: Mapping[int, Sequence[Node]],
    graphs: Sequence[Graph],
    shapes: Mapping[str, Sequence[int]] | None,
    may_refuse: bool,
) -> _Rewritten:
    """The model at the opset that has the operators fusion makes (DeformConv came with 19); where
    it cannot be raised to that, without them."""
    opset = max(node.opset for nodes in missing.values() for node in nodes)
    try:
        newer, old = at_opset(source, opset)
    except InvalidModelError as error:
        if not may_refuse:
            raise
        refused = {
            position: [_refusal(node, graphs[position], str(error)) for node in nodes]
            for position, nodes in missing.items()
        }
        return _rewrite(source, shapes, refused)
    rewritten = _rewrite(newer, shapes)
    note = f"opset raised from {old} to {opset}, which has the operators that fusion made"
    before = Size(*contents_of(source.model), rewritten.report.before.flops)
    report = replace(rewritten.report, before=before, notes=(*rewritten.report.notes, note))
    return replace(rewritten, report=report)


def _refusal(node: Node, graph: Graph, reason: str) -> Unfused:
    kind = next((f.kind for f in graph.fusions if f.into == node.name), node.op_type)
    return Unfused(kind, (node.name,), reason)


def _proof(model: Any, source: Source, rewritten: _Rewritten, device: DeviceChoice) -> Proof:
    path = _path_of(model)
    before: Any
    if path is not None:
        before = str(path)
    elif isinstance(model, bytes | bytearray | memoryview):
        before = bytes(model)
    else:
        before = StoredModel(source.model, source.folder).to_bytes()
    flops = rewritten.report.before.flops
    free = partial(_free, rewritten.report)
    with _runnable(rewritten.stored) as after:
        return prove(
            before,
            after,
            rewritten.inputs,
            rewritten.possible,
            flops=flops,
            device=device,
            free=free,
        )


def _free(report: FusionReport) -> None:
    """Gives the weights of graphs back that are not needed any more: they hang in cycles. A small
    model's can wait."""
    if report.before.parameters > _MANY_PARAMETERS:
        gc.collect()


@contextmanager
def _runnable(stored: StoredModel) -> Iterator[Any]:
    """The model as engines take it: bytes, or a path where it needs more than one file."""
    if stored.is_one_file:
        yield stored.to_bytes()
        return
    with tempfile.TemporaryDirectory(prefix="vkconv-") as folder:
        path = str(Path(folder) / "fused.onnx")
        stored.save(path)
        yield path


def _path_of(model: Any) -> Path | None:
    """The model's file, where it was given as a path."""
    if isinstance(model, str | Path) or hasattr(model, "__fspath__"):
        return Path(model)
    return None


def _note(fusions: int) -> str:
    import vkconv

    return f"vkconv {vkconv.__version__}: {fusions} fusion{'s' * (fusions != 1)}"
