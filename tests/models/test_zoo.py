"""The zoo's nets give what onnxruntime gives, whatever exporter wrote them.

Which exports are made: every net by the legacy exporter in opset 11 and in 13 or 17, which take
turns, and by the dynamo exporter in opset 20; every third net also by the dynamo exporter in 18
(20 is converted from it, so few nets need both; an export takes seconds). A net whose operators are
younger than an opset is exported in 17 instead. Every export is run at two sizes, with one input
and with two; where the net allows they are left open, and one session meets both.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.agreement import agree
from tests.models.export import Exporter, export_inputs
from tests.models.suppression import TRANSLATIONS
from tests.models.zoo import NETS, Net, examples

Export = tuple[Net, Exporter, int]


def exports() -> list[Export]:
    """Every export that is tested."""
    chosen: dict[tuple[str, Exporter, int], Export] = {}
    for index, net in enumerate(NETS):
        ways: list[tuple[Exporter, int]] = [
            ("legacy", 11),
            ("legacy", (13, 17)[index % 2]),
            ("dynamo", 20),
        ]
        if index % 3 == 0:
            ways.append(("dynamo", 18))
        for exporter, opset in ways:
            fitting = opset if opset >= net.least_opset else 17
            chosen[net.name, exporter, fitting] = (net, exporter, fitting)
    return list(chosen.values())


@pytest.mark.parametrize(
    ("net", "exporter", "opset"),
    [pytest.param(*e, id=f"{e[0].name}-{e[1]}-{e[2]}") for e in exports()],
)
def test_net(
    net: Net, exporter: Exporter, opset: int, tmp_path: Path, record_property, request
) -> None:
    torch.set_num_threads(1)
    sessions = [net.shapes] if net.open_axes is not None else [(shape,) for shape in net.shapes]
    worst = 0.0
    for index, shapes in enumerate(sessions):
        path = export_inputs(
            net.make(),
            # what is left open must not be 1 in the example
            examples(net, *shapes[-1]),
            tmp_path / f"{net.name}_{index}.onnx",
            exporter=exporter,
            opset=opset,
            open_axes=net.open_axes,
            outputs=net.outputs,
            translations=TRANSLATIONS,
        )
        worst = max(worst, agree(path, [net.inputs(*shape, 0) for shape in shapes], net.ranked))
    record_property("nmse", worst)
    print(f"{request.node.name}: NMSE {worst:.2e}")


def test_both_exporters_and_every_opset_occur() -> None:
    ways = {(exporter, opset) for _, exporter, opset in exports()}
    assert ways == {("legacy", 11), ("legacy", 13), ("legacy", 17), ("dynamo", 18), ("dynamo", 20)}
    assert len({net.name for net, exporter, _ in exports() if exporter == "legacy"}) == len(NETS)
    assert len({net.name for net, exporter, _ in exports() if exporter == "dynamo"}) == len(NETS)
    assert {batch for net in NETS for batch, _ in net.shapes} == {1, 2}
