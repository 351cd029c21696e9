"""Convolutions of every geometry and rank, and 1-D nets over text, of docs/systems.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models import geometries, text_conv
from tests.models.zoo import words
from tests.systems.running import pictures, run_system


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_geometries(tmp_path: Path) -> None:
    """Grouped, depthwise-separable, dilated, 1x1, transposed; strides, pads and output_padding by
    axis, "same" and "valid"."""
    ran = run_system(geometries.geometries(), pictures(2, 37, 41), tmp_path)
    assert (ran.nodes["Conv"], ran.nodes["ConvTranspose"]) == (8, 2)


def test_volumes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    ran = run_system(
        geometries.volumes(), torch.rand(2, 2, 5, 16, 18, generator=generator), tmp_path
    )
    assert (ran.nodes["Conv"], ran.nodes["ConvTranspose"]) == (3, 1)


def test_kim_text(tmp_path: Path) -> None:
    """3, 4 and 5 words at a time (Kim 2014)."""
    inputs = {name: torch.from_numpy(array) for name, array in words(2, 16, 0).items()}
    run_system(text_conv.text_conv(), inputs, tmp_path, output_names=("logits", "label"))


def test_deep_text(tmp_path: Path) -> None:
    """Stacked 1-D convolutions: strided, dilated, grouped, depthwise, transposed."""
    generator = torch.Generator().manual_seed(5)
    letters = torch.randint(0, 70, (2, 32), generator=generator)
    run_system(geometries.words(), letters, tmp_path)
