"""U-Net, U-Net++ and FCN of docs/systems.md; and U-Net on a picture in tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.models.comparison import nmse
from tests.models.concatenated import unet_plus_plus
from tests.models.fcn import fcn8s
from tests.models.unet import unet
from tests.systems.running import pictures, run_system
from vkconv import InferenceSession
from vkconv.vision import margin_needed, mirrored, run_tiled


def test_unet(tmp_path: Path) -> None:
    """The picture's normalization comes before a padded convolution, which cannot absorb it."""
    ran = run_system(
        unet(widths=(8, 12, 16, 24, 32)), pictures(1, 64, 96), tmp_path, remaining_norms=1
    )
    assert ran.nodes["ConvTranspose"] == 4 and ran.nodes["Concat"] == 4


def test_unet_in_tiles(tmp_path: Path) -> None:
    """Tiles from the device, side by side, are PyTorch's result for the whole mirrored picture."""
    net, image = unet(widths=(8, 12, 16)), pictures(1, 131, 117, seed=3).numpy()
    ran = run_system(net, pictures(1, 96, 96), tmp_path, remaining_norms=1)
    with InferenceSession(str(ran.path), strict=True) as session:
        [taken] = session.get_inputs()

        def run(tiles: np.ndarray) -> np.ndarray:
            return session.run(None, {taken.name: tiles})[0]

        margin = margin_needed(run, (1, 3, 96, 96), step=4)
        found = run_tiled(run, image, 96, margin=margin, step=4)
        narrow = run_tiled(run, image, 96, margin=margin - 8, step=4)
    # 2 + 4 + 8 + 4 + 2 pixels by the pairs of convolutions, some by pooling and the ways up
    assert 20 <= margin <= 28
    with torch.no_grad():
        # as far beyond the picture as whole steps of the net's stride go
        framed = mirrored(image, -margin, 132 + margin, -margin, 120 + margin)
        whole = net(torch.from_numpy(framed)).numpy()[:, :, margin:, margin:][:, :, :131, :117]
    assert found.shape == (1, 5, 131, 117)
    assert nmse(found, np.ascontiguousarray(whole)) <= 1e-10
    # and the seams are there with less
    assert nmse(narrow, np.ascontiguousarray(whole)) > 1e-10


def test_unet_plus_plus(tmp_path: Path) -> None:
    run_system(
        unet_plus_plus(), pictures(1, 64, 96), tmp_path, output_names=("first", "second", "third")
    )


def test_fcn(tmp_path: Path) -> None:
    """Odd sizes: the way up is cropped to the skips, and the last to the picture."""
    ran = run_system(fcn8s(), pictures(1, 65, 91), tmp_path)
    assert ran.nodes["ConvTranspose"] == 3 and ran.nodes["Add"] == 2
    assert next(iter(ran.outputs.values())).shape == (1, 6, 65, 91)
