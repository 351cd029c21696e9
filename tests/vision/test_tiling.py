"""Tiles with mirrored margins: together, what the network gives for the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vkconv.errors import InvalidInputError
from vkconv.vision import margin_needed, mirrored, run_tiled

Array = NDArray[Any]
KERNEL = np.random.default_rng(1).standard_normal((5, 5)).astype(np.float32)


def picture(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).random(shape, np.float32)


def blurred(x: Array, padded: bool = True) -> Array:
    """Looks 2 pixels far, and sees zeros beyond a border; twice the channels."""
    if padded:
        x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    views = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (2, 3))
    y = (views * KERNEL).sum((-1, -2))
    return np.concatenate([y, y[:, ::-1] ** 2], 1)


def halved(x: Array) -> Array:
    """Means of 2x2 behind a blur: whether a tile begins at an even pixel matters."""
    n, c, h, w = (y := blurred(x)).shape
    return y.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


@pytest.mark.parametrize(("height", "width"), [(40, 51), (16, 16), (3, 100), (1, 1), (7, 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_seamless(height: int, width: int, batch: int) -> None:
    x = picture(2, 3, height, width)
    sizes = []

    def run(tiles: Array) -> Array:
        sizes.append(tiles.shape)
        return blurred(tiles)

    found = run_tiled(run, x, (16, 20), margin=(2, 4), step=1, batch=batch)
    framed = mirrored(x, -2, height + 2, -2, width + 2)
    # numpy adds up in an order that depends on the size
    np.testing.assert_allclose(found, blurred(framed, padded=False), rtol=1e-4, atol=1e-5)
    assert set(sizes) == {(batch, 3, 16, 20)}


def test_the_interior_is_the_whole_pictures() -> None:
    x = picture(1, 3, 45, 38)
    found, whole = run_tiled(blurred, x, 16, margin=4, step=4), blurred(x)
    np.testing.assert_array_equal(found[..., 2:-2, 2:-2], whole[..., 2:-2, 2:-2])
    assert (found[..., 0, :] != whole[..., 0, :]).any()


def test_too_small_a_margin_shows() -> None:
    """So that the tests above mean something."""
    x = picture(1, 3, 40, 40)
    found, whole = run_tiled(blurred, x, 16, margin=1, step=1), blurred(x)
    assert (found[..., 2:-2, 2:-2] != whole[..., 2:-2, 2:-2]).any()


def test_maps_of_another_size() -> None:
    x = picture(1, 3, 39, 46)
    small, large = run_tiled(
        lambda t: [halved(t), blurred(t).repeat(2, 2).repeat(2, 3)], x, 20, margin=4, step=4
    )
    framed = mirrored(x, -4, 44, -4, 52)
    np.testing.assert_array_equal(small, halved(framed)[..., 2:22, 2:25])
    assert small.shape == (1, 6, 20, 23)
    np.testing.assert_array_equal(
        large, run_tiled(blurred, x, 20, margin=4, step=4).repeat(2, 2).repeat(2, 3)
    )


def test_unpadded_convolutions() -> None:
    """The network leaves the margin out by itself; what the step cuts off is not taken."""
    x = picture(1, 2, 33, 29)
    found = run_tiled(
        lambda t: blurred(t, padded=False), x, (17, 14), margin=2, step=4, unpadded=True
    )
    np.testing.assert_array_equal(found, blurred(mirrored(x, -2, 35, -2, 31), padded=False))


def test_integers_stay() -> None:
    x = picture(1, 3, 20, 20)
    found = run_tiled(lambda t: blurred(t).argmax(1, keepdims=True), x, 12, margin=4, step=4)
    assert found.dtype == np.int64 and found.shape == (1, 1, 20, 20)


def test_mirrored_is_numpys_reflection() -> None:
    x = picture(2, 5, 6)
    wanted = np.pad(x, ((0, 0), (13, 9), (1, 17)), mode="reflect")
    np.testing.assert_array_equal(mirrored(x, -13, 14, -1, 23), wanted)
    np.testing.assert_array_equal(mirrored(x, 1, 3, 2, 4), x[:, 1:3, 2:4])
    np.testing.assert_array_equal(mirrored(x[:, :1], -2, 3, 0, 6), x[:, [0] * 5])


@pytest.mark.parametrize(("step", "wanted"), [(1, 3), (4, 4), (16, 16)])
def test_the_margin_is_measured(step: int, wanted: int) -> None:
    """The blur looks 2 pixels far; one more is for networks whose strides fall otherwise."""
    assert margin_needed(blurred, (1, 3, 24, 31), step=step) == wanted
    assert margin_needed(lambda x: [x, blurred(x)], (1, 3, 24, 31), step=step) == wanted


def test_the_margin_of_coarser_maps_is_in_pixels() -> None:
    assert margin_needed(halved, (1, 3, 24, 24), step=1) == 4
    assert margin_needed(lambda x: x, (1, 3, 24, 24), step=1) == 1


def test_networks_that_look_everywhere_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="depends on all of a tile of 24x30 pixels"):
        margin_needed(lambda x: x - x.mean((2, 3), keepdims=True), (1, 3, 24, 30))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 8}, "leaves nothing between margins of 8 and 8"),
        ({"margin": 0, "step": 64}, "multiple of step=64: take larger tiles"),
        ({"margin": -1}, "margin=\\(-1, -1\\)"),
        ({"step": 0}, "step=0"),
        ({"batch": 0}, "batch=0"),
        ({"pictures": picture(3, 9, 9)}, "not \\(3, 9, 9\\)"),
        ({"pictures": picture(1, 3, 0, 9)}, "not \\(1, 3, 0, 9\\)"),
        ({"run": lambda x: x[0]}, "became \\(3, 16, 16\\)"),
        ({"run": lambda x: x[:0]}, "maps of \\(1, channels, h, w\\) are needed"),
        ({"run": lambda x: x[..., :8]}, "say unpadded=True"),
        ({"unpadded": True}, None),
        ({"unpadded": True, "run": lambda x: x[..., 2:]}, "not what the network leaves out"),
        ({"run": lambda x: x[..., ::16, ::16]}, "multiples of 16"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str | None) -> None:
    given = {"run": lambda x: x, "pictures": picture(1, 3, 20, 20), "tile": 16, "margin": 2}
    given |= {"step": 4, **changes}
    if message is None:
        # 16 for a middle of 12: a factor of 4/3, which this step and margin do not divide
        message = "multiples of 3"
    with pytest.raises(InvalidInputError, match=message):
        run_tiled(given.pop("run"), given.pop("pictures"), given.pop("tile"), **given)
