"""The comparison that decides must be one that can fail."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vkconv.converters.blocks.affine_map import NotFusable
from vkconv.converters.blocks.proof import double_copy, nmse, prove_equal

X = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_nmse() -> None:
    assert nmse(X, X) == 0
    assert nmse(X * 1.1, X) == pytest.approx(0.01)
    assert nmse(X[:1], X) == float("inf")
    assert nmse(torch.zeros(2), torch.zeros(2)) == 0 and nmse(torch.ones(2), torch.zeros(2)) > 1


def test_double_copy_is_apart() -> None:
    layer = nn.Linear(3, 4)
    twin = double_copy(layer)
    assert twin.weight.dtype == torch.float64 and layer.weight.dtype == torch.float32


class Gives(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(x)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (lambda x: x, lambda x: x * (1 + 1e-8), "does not compute the same"),
        (lambda x: x, lambda x: x * float("nan"), "does not compute the same"),
        (lambda x: x, lambda x: x[:1], "does not compute the same"),
        (lambda x: (x, x), lambda x: (x, x), "does not return one tensor"),
        (lambda x: x @ x, lambda x: x, "cannot be run on a random input"),
        (lambda x: x, lambda x: x @ x, "does not run in its fused form"),
    ],
)
def test_what_is_not_equal_is_told(before, after, reason: str) -> None:
    with pytest.raises(NotFusable, match=reason) as caught:
        prove_equal(Gives(before), Gives(after), [X])
    assert "\n" not in str(caught.value)


def test_inputs_are_not_changed() -> None:
    kept = X.clone()
    prove_equal(Gives(lambda x: x.add_(1)), Gives(lambda x: x.add_(1)), [X])
    assert torch.equal(X, kept)
