"""Context heads, reparameterized blocks and deformable convolutions of docs/systems.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import acnet, context, dbb, deformable, repvgg
from tests.systems.running import pictures, run_system


def test_spatial_pyramids(tmp_path: Path) -> None:
    """SPP, SPPF and SPP3 one behind the other."""
    ran = run_system(context.spp(), pictures(1, 64, 96), tmp_path)
    assert (ran.nodes["MaxPool"], ran.nodes["AveragePool"]) == (6, 3)


@pytest.mark.parametrize("make", [context.aspp, context.rfb])
def test_dilated_branches(make, tmp_path: Path) -> None:
    run_system(make(), pictures(1, 64, 96), tmp_path)


@pytest.mark.parametrize("make", [repvgg.repvgg_small, acnet.acnet_small, dbb.dbb_small])
def test_reparameterized(make, tmp_path: Path) -> None:
    """As many convolutions as the form for inference, built by hand, has."""
    ran = run_system(make(), pictures(2, 64, 48), tmp_path, deploy=make(deploy=True))
    assert not {"AveragePool", "Pad", "BatchNormalization"} & ran.nodes.keys()


@pytest.mark.parametrize("form", deformable.FORMS)
def test_deformable(form: str, tmp_path: Path) -> None:
    """Versions 1 and 2 in each form; one dispatch a layer."""
    split = 1 if form == "mmcv" else 0
    ran = run_system(
        deformable.deformable(form), pictures(2, 26, 31), tmp_path, split_offsets=split
    )
    layers = 2 if form == "vkconv" else 3
    assert ran.nodes["DeformConv"] == layers
    kernels = [p.detail for p in ran.placement if p.op_type == "DeformConv"]
    assert len(kernels) == layers and all("deform_conv2d" in k for k in kernels)
