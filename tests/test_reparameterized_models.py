"""Nets in the form they are trained in, as torch's exporters write them, run as their deploy form.

RepVGG-A0, ACNet-ResNet18 and DBB-ResNet18 with normalisations that matter: the graph has the deploy
form's nodes, the plan has its dispatches, one for one, and the device gives what PyTorch gives.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.models import acnet, dbb, repvgg
from tests.models.comparison import images, nmse
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Plan
from vkconv.ir import Graph, TensorType
from vkconv.onnx_reader import read_model
from vkconv.passes import finish, fuse_linear, infer_and_fold, rewrite
from vkconv.plan import ConstantStore, make_plan

ALLOWED_NMSE = 1e-6
FULL: dict[str, Callable[..., nn.Module]] = {
    "repvgg_a0": repvgg.repvgg_a0,
    "acnet_resnet18": acnet.acnet_resnet18,
    "dbb_resnet18": dbb.dbb_resnet18,
}
SMALL: dict[str, Callable[..., nn.Module]] = {
    "repvgg": repvgg.repvgg_small,
    "acnet": acnet.acnet_small,
    "dbb": dbb.dbb_small,
}
#: how small nets are exported; "open" leaves height and width open. torch takes long over the
#: borders that DBB writes: its legacy exporter has them in the full net
EXPORTS = (
    ("repvgg", "legacy"),
    ("repvgg", "legacy-open"),
    ("repvgg", "dynamo"),
    ("repvgg", "dynamo-open"),
    ("acnet", "legacy-open"),
    ("acnet", "dynamo"),
    ("dbb", "dynamo"),
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def export(net: nn.Module, size: int, path: Path, how: str) -> Path:
    """As it is: the legacy exporter folds nothing, so that normalisations and constants stay nodes.

    "open" leaves height and width open.
    """
    x = torch.zeros(1, 3, size, size)
    sizes = {2: "height", 3: "width"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if how.startswith("legacy"):
            torch.onnx.export(
                net,
                (x,),
                str(path),
                dynamo=False,
                opset_version=17,
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                input_names=["images"],
                dynamic_axes={"images": sizes} if how.endswith("open") else None,
            )
        else:
            step = {a: 8 * torch.export.Dim(n, min=1, max=64) for a, n in sizes.items()}
            torch.onnx.export(
                net,
                (x,),
                str(path),
                dynamo=True,
                opset_version=18,
                input_names=["images"],
                dynamic_shapes=(step,) if how.endswith("open") else None,
                verbose=False,
            )
    return path


def fused(path: Path) -> Graph:
    graph = read_model(str(path))
    infer_and_fold(graph)
    fuse_linear(graph)
    return graph


def operators(graph: Graph) -> Counter[str]:
    return Counter(n.op_type for n in graph.nodes)


def plan_of(path: Path, size: int) -> Plan:
    """As a session plans it, for a processor's driver."""
    graph = read_model(str(path))
    infer_and_fold(graph)
    rewrite(graph)
    graph.inputs[0].type = TensorType("float32", (1, 3, size, size))
    infer_and_fold(graph)
    rewrite(graph)
    finish(graph, caps := DeviceCaps(kind="cpu"))
    return make_plan(graph, caps, ConstantStore())


def described(dispatch: Dispatch) -> tuple[object, ...]:
    """All that a dispatch does, but for whose it is and what its weights are."""
    buffers = {
        name: (
            b.storage.is_constant,
            b.storage.size,
            b.offset + (0 if b.storage.is_constant else b.storage.offset),
            (b.size, b.reads, b.writes),
        )
        for name, b in dispatch.buffers.items()
    }
    return (
        (dispatch.kernel, dispatch.variant, dispatch.grid, dispatch.barrier),
        dict(dispatch.push),
        dict(dispatch.spec),
        buffers,
    )


def assert_same_plan(trained: Plan, deployed: Plan) -> None:
    assert len(trained.steps) == len(trained.dispatches)
    ours, theirs = ([described(d) for d in p.dispatches] for p in (trained, deployed))
    assert ours == theirs
    assert trained.arena_size == deployed.arena_size


def compare(net: nn.Module, path: Path, *sizes: int) -> float:
    """The worst NMSE of the device against the module."""
    worst = 0.0
    with InferenceSession(str(path), strict=True) as session:
        for size in sizes:
            x = images(1, 3, size, size, seed=size)
            wanted = net(torch.from_numpy(x)).numpy()
            assert np.std(wanted) > 0
            (actual,) = session.run(None, {session.get_inputs()[0].name: x})
            worst = max(worst, nmse(actual, wanted))
    return worst


@pytest.mark.parametrize("name", FULL)
def test_full_net(name: str, tmp_path: Path, record_property) -> None:
    size = 64
    net, deployed = FULL[name](), FULL[name](deploy=True)
    trained = export(net, size, tmp_path / "trained.onnx", "legacy")
    plain = export(deployed, size, tmp_path / "deployed.onnx", "legacy")
    assert operators(read_model(str(trained)))["BatchNormalization"] >= 38
    before, after = fused(trained), fused(plain)
    assert operators(before) == operators(after) and not before.unfused
    assert len(before.fusions) == operators(after)["Conv"] and not after.fusions
    assert_same_plan(plan_of(trained, size), plan_of(plain, size))
    error = compare(net, trained, size)
    record_property("nmse", error)
    assert error <= ALLOWED_NMSE


@pytest.mark.parametrize(("name", "how"), EXPORTS)
def test_small_net(name: str, how: str, tmp_path: Path, record_property) -> None:
    size = 32
    net, deployed = SMALL[name](), SMALL[name](deploy=True)
    trained = export(net, size, tmp_path / "trained.onnx", how)
    plain = export(deployed, size, tmp_path / "deployed.onnx", how)
    assert operators(fused(trained)) == operators(fused(plain))
    sizes = (size, 40) if how.endswith("open") else (size,)
    for each in sizes:
        assert_same_plan(plan_of(trained, each), plan_of(plain, each))
    error = compare(net, trained, *sizes)
    record_property("nmse", error)
    assert error <= ALLOWED_NMSE
