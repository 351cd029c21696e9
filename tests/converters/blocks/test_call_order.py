"""Who feeds whom, read off the code and off a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vkconv.converters.blocks.call_order import call_arguments, call_order

X = torch.randn(1, 3, 6, 6)


class Net(nn.Module):
    """conv -> norm -> (act, skip); ``dynamic`` branches on a value."""

    def __init__(self, dynamic: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)])
        self.act, self.dynamic = nn.ReLU(), dynamic

    def forward(self, x, twice=False):
        if self.dynamic and x.max() > 1e9:
            return x
        y = self.parts[1](self.parts[0](x))
        return self.act(self.act(y)) + y if twice else self.act(y) + y


@pytest.mark.parametrize("dynamic", [False, True])
def test_both_ways_tell_the_same(dynamic: bool) -> None:
    order = call_order(Net(dynamic).eval(), X)
    conv, norm, act = ("parts", "0"), ("parts", "1"), ("", "act")
    assert order.following == {conv: norm}, "the norm's output has two readers"
    assert {order.calls[slot] for slot in (conv, norm, act)} == {1}
    assert list(order.chain(conv)) == [norm] and list(order.chain(norm)) == []
    assert list(order.unseen) == ([""] if dynamic else [])


def test_without_inputs_a_dynamic_forward_is_unseen() -> None:
    order = call_order(Net(True).eval())
    assert not order.following and "control flow" in order.unseen[""]


def test_a_ring_ends() -> None:
    class Ring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.ReLU(), nn.Tanh()

        def forward(self, x):
            return self.b(self.a(self.b(self.a(x))))

    order = call_order(Ring())
    assert order.calls["", "a"] == 2
    assert list(order.chain(("", "a"))) == [("", "b")]


def test_arguments() -> None:
    assert call_arguments(X) == ((X,), {})
    assert call_arguments([X, 2]) == ((X, 2), {})
    assert call_arguments({"x": X}) == ((), {"x": X})
    nested = ({"x": X},)
    assert call_arguments(nested) == (nested, {})
