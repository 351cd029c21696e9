"""The algebra: compositions, sums and concatenations against doing one thing after the other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from vkconv.ir import Array
from vkconv.passes.linear_map import (
    InexactError,
    LinearMap,
    add,
    compose,
    concatenate,
    diagonal,
    embedded,
    moved,
    settled,
)
from vkconv.passes.linear_window import Taps, Window, unit_window

Random = np.random.Generator


def applied(one: LinearMap, x: Array) -> Array:
    """By the definition: y[o, p] = b[o] + sum over i, t of W[o, i, t] x[g(o) + i, p s + t]."""
    axes = one.window.axes
    sizes = [(n - 1 + a.rest) // a.stride + 1 for n, a in zip(x.shape[1:], axes, strict=True)]
    y = np.zeros((one.outputs, *sizes))
    inner, outer = one.inputs // one.groups, one.outputs // one.groups
    taps = list(product(*(range(a.count) for a in axes)))
    for o, p in product(range(one.outputs), product(*(range(s) for s in sizes))):
        y[(o, *p)] = one.bias[o]
        for tap in taps:
            place = [
                q * a.stride + a.first + t * a.step for q, a, t in zip(p, axes, tap, strict=True)
            ]
            if all(0 <= q < n for q, n in zip(place, x.shape[1:], strict=True)):
                start = o // outer * inner
                y[(o, *p)] += (
                    one.kernel[(o, slice(None), *tap)] @ x[(slice(start, start + inner), *place)]
                )
    return y


def random_map(random: Random, inputs: int, outputs: int, groups: int, pad: int) -> LinearMap:
    axes = []
    for _ in range(2):
        count, step = int(random.integers(1, 4)), int(random.integers(1, 3))
        step = step if count > 1 else 1
        begin, end = (int(random.integers(-1, pad + 1)) for _ in range(2))
        last = (count - 1) * step - begin
        axes.append(Taps(-begin, count, step, int(random.integers(1, 3)), end - last))
    window = Window(tuple(axes))
    kernel = random.standard_normal((outputs, inputs // groups, *window.counts))
    bias = random.standard_normal(outputs)
    return LinearMap(inputs, outputs, groups, window, lambda: kernel, lambda: bias)


def without_bias(one: LinearMap) -> LinearMap:
    return LinearMap(one.inputs, one.outputs, one.groups, one.window, lambda: one.kernel)


@pytest.mark.parametrize("seed", range(40))
def test_composition(seed: int) -> None:
    """Without padding between them any two maps combine; groups and strides of all kinds."""
    random = np.random.default_rng(seed)
    groups = [int(g) for g in random.choice([1, 2, 3, 6], 2)]
    inner = random_map(random, 6, 6, groups[0], 2)
    outer = random_map(random, 6, 6, groups[1], 0)
    x = random.standard_normal((6, 13, 11))
    made = compose(outer, inner)
    assert made.groups == np.gcd(*groups) or 6 in groups
    np.testing.assert_allclose(applied(made, x), applied(outer, applied(inner, x)), atol=1e-10)
    np.testing.assert_allclose(applied(settled(made), x), applied(made, x))
    assert np.abs(made.kernel).max() <= made.bounds[0] * 20 or made.bounds == (1.0, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_padding_between(seed: int) -> None:
    """Where it's said to be exact it is; and it's said of maps that see one element, unshifted."""
    random = np.random.default_rng(seed)
    inner = random_map(random, 2, 3, 1, 1)
    if seed % 2:
        inner = without_bias(inner)
    if seed % 4 > 1:
        kernel = random.standard_normal((3, 2, 1, 1))
        inner = LinearMap(2, 3, 1, unit_window(2), lambda: kernel, inner.shift)
    outer = random_map(random, 3, 2, 1, 2)
    x = random.standard_normal((2, 12, 11))
    try:
        made = compose(outer, inner)
    except InexactError:
        assert outer.window.reads_outside and (inner.shift is not None or seed % 4 < 2)
        made = compose(outer, inner, exact=False)
        different = applied(outer, applied(inner, x)) - applied(made, x)
        assert (different.shape and seed % 4 < 2) or np.abs(different).max() > 1e-3
        return
    np.testing.assert_allclose(applied(made, x), applied(outer, applied(inner, x)), atol=1e-10)


def test_exactness_is_found_both_ways() -> None:
    """The test above meets both cases."""
    found = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        inner, outer = random_map(random, 2, 3, 1, 1), random_map(random, 3, 2, 1, 2)
        try:
            compose(outer, without_bias(inner))
            found.append(True)
        except InexactError:
            found.append(False)
    assert 3 < sum(found) < 37


@pytest.mark.parametrize("seed", range(20))
def test_sum_and_concatenation(seed: int) -> None:
    random = np.random.default_rng(seed)
    one = random_map(random, 6, 6, int(random.choice([1, 2, 6])), 2)
    # other taps at the same strides, that end where the first ones do
    axes = []
    for a in one.window.axes:
        count, step = int(random.integers(1, 4)), int(random.integers(1, 4))
        axes.append(
            Taps(int(random.integers(-2, 3)), count, step * (count > 1) or 1, a.stride, a.rest)
        )
    window, groups = Window(tuple(axes)), int(random.choice([1, 3, 6]))
    kernel = random.standard_normal((6, 6 // groups, *window.counts))
    other = LinearMap(6, 6, groups, window, lambda: kernel)
    x = random.standard_normal((6, 9, 8))
    first, second = applied(one, x), applied(other, x)
    np.testing.assert_allclose(
        applied(add([one, other], [1, -1], False), x), first - second, atol=1e-10
    )
    joined = applied(concatenate([one, other], False), x)
    np.testing.assert_allclose(joined, np.concatenate([first, second]), atol=1e-10)
    wide = embedded(one, one.window.standard())
    assert all(pad >= 0 for a in wide.window.axes for pad in a.pads)
    np.testing.assert_allclose(applied(wide, x), first, atol=1e-10)


def test_sizes_that_differ() -> None:
    one = moved(2, Window((Taps(rest=-1),)))
    other = moved(2, Window((Taps(rest=0),)))
    with pytest.raises(InexactError, match="sizes that differ"):
        add([one, other], [1, 1], False)
    assert add([one, other], [1, 1], True).window.axes[0].count == 1
    strided = moved(2, Window((Taps(stride=2),)))
    with pytest.raises(InexactError, match="different strides"):
        add([strided, other], [1, 1], True)


def test_a_margin_of_what_the_layer_makes_of_nothing() -> None:
    """Pad with the bias of the layer before it is that layer with more padding."""
    bias = np.array([2.0, -1.0])
    layer = diagonal(np.array([3.0, 4.0]), bias, 1)
    window = Window((Taps(-1, rest=2),))
    made = compose(moved(2, window, bias), layer)
    x = np.array([[1.0, 5.0], [2.0, 7.0]])
    np.testing.assert_array_equal(applied(made, x), [[2, 5, 17, 2], [-1, 7, 27, -1]])
    with pytest.raises(InexactError, match="makes something else of"):
        compose(moved(2, window, bias + 1), layer)
    with pytest.raises(InexactError, match="makes something else of"):
        compose(moved(2, window), layer)
