"""The zoo's nets give what onnxruntime gives, whatever exporter wrote them.

Which exports are made: every net by the legacy exporter in opsets 11, 13 and 17 and by the dynamo
exporter in 20; every fourth net, with the one that samples grids among them (18 and 20 name the
modes differently), also by the dynamo exporter in 18: it takes seconds, and 20 is converted from
it. A net whose operators are younger than an opset has no export in that. Every export is run at
two sizes, with one input and with two; where the net allows they are left open, and one session
meets both.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.agreement import agree
from tests.models.export import Exporter, export_inputs
from tests.models.zoo import NETS, Net, examples
from vkconv.converters.suppression import TRANSLATIONS

Export = tuple[Net, Exporter, int]


def exports() -> list[Export]:
    """Every export that is tested."""
    found: list[Export] = []
    for index, net in enumerate(NETS):
        found += [(net, "legacy", o) for o in (11, 13, 17) if o >= net.least_opset]
        found += [(net, "dynamo", o) for o in ((18, 20) if index % 4 == 1 else (20,))]
    return found


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
    assert {(n.name, o) for n, _, o in exports()} >= {("detr3d", 18), ("detr3d", 20)}
    assert {batch for net in NETS for batch, _ in net.shapes} == {1, 2}
