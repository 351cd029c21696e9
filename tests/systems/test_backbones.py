"""Classifiers and backbones of docs/systems.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import concatenated, mobile, resnet_stages, shufflenet, vgg
from tests.systems.running import pictures, run_system


def test_vgg16(tmp_path: Path) -> None:
    ran = run_system(vgg.thin_vgg(vgg.VGG16_STAGES), pictures(1, 224, 224), tmp_path)
    assert (ran.nodes["Conv"], ran.nodes["MaxPool"], ran.nodes["Gemm"]) == (13, 5, 3)
    assert ran.nodes["Softmax"] == 1


def test_vgg19_of_weights_larger_than_a_buffer(tmp_path: Path, monkeypatch) -> None:
    """The first fully connected layer takes 3 MB where a buffer may have 2: it is cut up."""
    monkeypatch.setenv("VKCONV_LIMITS", f"max_storage_buffer_range={2 << 20}")
    net = vgg.thin_vgg(vgg.VGG19_STAGES)
    first = net[0].classify[0].weight
    assert first.numel() * 4 > 3 << 20
    ran = run_system(net, pictures(1, 224, 224), tmp_path)
    assert (ran.nodes["Conv"], ran.nodes["Gemm"]) == (16, 3)
    # two dispatches for the first layer, one for each of the others
    assert ran.plan.count("matrix_product ") == 4


@pytest.mark.parametrize(("style", "plugged"), [("pytorch", False), ("caffe", True)])
def test_resnet_stages(style: str, plugged: bool, tmp_path: Path) -> None:
    """Sums are part of the convolution before them, but where a plugin stands there."""
    ran = run_system(resnet_stages.resnet_stages(style, plugged), pictures(1, 64, 96), tmp_path)
    shapes = [ran.outputs[name].shape for name in ran.outputs]
    assert shapes == [(1, 48, 8, 12), (1, 64, 4, 6), (1, 96, 2, 3)]
    # behind a plugin the block adds to the plugin's own sum, which has no convolution before it
    own = 3 if plugged else 0
    assert ran.nodes["Add"] == 6 + own
    assert ran.fused("Add") >= 6 - own
    assert ran.nodes.get("LayerNormalization", 0) == own


def test_squeeze_and_excite(tmp_path: Path) -> None:
    ran = run_system(resnet_stages.squeezed(), pictures(2, 48, 40), tmp_path)
    assert ran.nodes["Sigmoid"] == 2


@pytest.mark.parametrize("make", [concatenated.vovnet_v1, concatenated.vovnet])
def test_vovnet(make, tmp_path: Path) -> None:
    run_system(make(), pictures(1, 64, 96), tmp_path)


def test_csp(tmp_path: Path) -> None:
    run_system(concatenated.csp_net(), pictures(1, 64, 96), tmp_path)


@pytest.mark.parametrize("growth", [14, 16])
def test_densenet(growth: int, tmp_path: Path) -> None:
    """Its normalizations come before the rectifier: 10 of the layers and the last of each stage
    have no convolution before them that nothing else reads."""
    run_system(
        concatenated.densenet(growth=growth), pictures(1, 64, 96), tmp_path, remaining_norms=13
    )


def test_searched_shufflenet(tmp_path: Path) -> None:
    """Of the choices in every place, the file holds the chosen one: depthwise 3, 5, 7 or three in
    a row."""
    net = shufflenet.searched_net()
    held = sum(p.numel() for p in net.parameters())
    ran = run_system(net, pictures(1, 64, 96), tmp_path)
    assert ran.parameters < held / 2
    # the shuffles are no copies
    assert ran.plan.count("strided_copy") == 0


def test_efficientnet(tmp_path: Path) -> None:
    """Scaled down by the rule that scales it up: B0 has factors of 1 and 1."""
    run_system(mobile.efficientnet(0.5, 0.6), pictures(1, 64, 96), tmp_path)


def test_mobilenet_v2(tmp_path: Path) -> None:
    run_system(mobile.mobilenet_v2(0.35), pictures(1, 64, 96), tmp_path)


def test_mobilenet_v3(tmp_path: Path) -> None:
    run_system(mobile.mobilenet_v3(), pictures(1, 64, 96), tmp_path)
