"""Every net of this folder, planned without a device: little memory is wasted.

The arena may take 15% more than the most bytes that are live at once; on all of them but for what
rounding adds it takes no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models import light
from tests.models.export import export, export_inputs
from tests.models.resnet import resnet18
from tests.models.unet import unet
from tests.models.yolov7_tiny import OUTPUTS, yolov7_tiny
from tests.models.zoo import NETS, examples
from tests.plan.planning import CPU
from vkconv.capabilities import DeviceCaps
from vkconv.converters.suppression import TRANSLATIONS
from vkconv.dispatch import Plan
from vkconv.onnx_reader import read_model
from vkconv.passes import infer_and_fold, rewrite
from vkconv.plan import ConstantStore
from vkconv.planning import plan_graph

ALLOWED = 1.15
DEVICES = {"cpu": CPU, "integrated": DeviceCaps(kind="integrated")}
#: name -> (module, shape, outputs)
DETECTORS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, ...]]] = {
    "yolov7_tiny": (yolov7_tiny, 320, tuple(OUTPUTS)),
    "resnet18": (resnet18, 224, ("output",)),
    "unet": (unet, 256, ("output",)),
}


def models(folder: Path) -> Iterator[tuple[str, object]]:
    torch.set_num_threads(1)
    for net in NETS:
        path = folder / f"{net.name}.onnx"
        export_inputs(
            net.make(),
            examples(net, *net.shapes[0]),
            path,
            exporter="legacy",
            opset=17,
            outputs=net.outputs,
            translations=TRANSLATIONS,
        )
        yield net.name, path
    for name, (make, size, outputs) in DETECTORS.items():
        path = folder / f"{name}.onnx"
        yield name, export(make(), (1, 3, size, size), path, opset=17, outputs=outputs)
    for name in light.NAMES:
        if name not in ("vgg19", "zfnet512", "bvlc_alexnet"):  # seconds of packing weights
            yield name, light.load(name)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Plan]:
    folder = tmp_path_factory.mktemp("nets")
    found: dict[tuple[str, str], Plan] = {}
    for name, source in models(folder):
        for kind, caps in DEVICES.items():
            graph = read_model(source)
            infer_and_fold(graph)
            rewrite(graph)
            planned = plan_graph(graph, caps, ConstantStore(), lambda _: None)
            found[name, kind] = planned.plan
    return found


def test_arenas_are_close_to_their_lower_bound(plans: dict[tuple[str, str], Plan]) -> None:
    assert len(plans) == 2 * (len(NETS) + len(DETECTORS) + len(light.NAMES) - 3)
    wasted = {key: plan.arena_size / plan.arena_lower_bound for key, plan in plans.items()}
    assert max(wasted.values()) <= ALLOWED, {k: r for k, r in wasted.items() if r > ALLOWED}
    assert min(wasted.values()) >= 1.0
    print(f"arena / lower bound: at most {max(wasted.values()):.3f}")


def test_shuffles_cost_neither_conversions_nor_copies(plans: dict[tuple[str, str], Plan]) -> None:
    for name in ("shufflenet_v2", "shufflenet"):
        kernels = [d.kernel for d in plans[name, "cpu"].dispatches]
        assert sum(k in ("to_c4", "to_linear") for k in kernels) <= 2
        assert not {"strided_copy", "channel_copy"} & set(kernels)
        assert "permute_channels" in kernels
