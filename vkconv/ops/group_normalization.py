"""GroupNormalization and InstanceNormalization: feature maps normalised per group of channels, or
per channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.channel_statistics import Affine, Statistics, normalize_groups, too_many
from vkconv.ops.fused_activation import apply_activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4


class GroupedNormalization(Operator):
    """y = scale (x - mean) / sqrt(variance + epsilon) + bias, statistics per batch element and
    group."""

    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    epsilon: float

    def groups(self, channels: int) -> int:
        raise NotImplementedError

    def affine_per_group(self) -> bool:
        return False

    def after(self) -> tuple[Activation, float, float]:
        """Code, alpha and beta of the activation that follows."""
        return Activation.NONE, 0.0, 0.0

    def infer(self, x: Value, scale: Value, bias: Value) -> TensorType:
        if len(x.dims) < 2:
            raise InvalidModelError(f"the input {x.known_type} has no channels")
        channels = x.dims[1]
        groups = self.groups(channels)
        if groups < 1 or channels % groups:
            raise InvalidModelError(f"{channels} channels do not divide into {groups} groups")
        expected = (groups if self.affine_per_group() else channels,)
        for value in (scale, bias):
            if value.dims != expected:
                raise InvalidModelError(
                    f"'{value.name}' has shape {value.dims}, expected {expected}"
                )
        return x.known_type

    def reference(self, x: Array, scale: Array, bias: Array) -> Array:
        n, channels = x.shape[:2]
        groups = self.groups(channels)
        size = prod(x.shape[2:]) * (channels // groups)
        wide = x.astype(np.float64).reshape(n, groups, size)
        centered = wide - wide.mean(2, keepdims=True)
        variance = (centered * centered).mean(2, keepdims=True)
        normalised = (centered / np.sqrt(variance + self.epsilon)).reshape(x.shape)
        if self.affine_per_group():
            scale, bias = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
        per_channel = (-1, *[1] * (x.ndim - 2))
        y = normalised * scale.reshape(per_channel) + bias.reshape(per_channel)
        kind, alpha, beta = self.after()
        return apply_activation(kind, np.asarray(y).astype(x.dtype), alpha, beta)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        shape = outputs[0].dims
        return too_many(shape, self.groups(shape[1]), merged=False)

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, scale, bias = inputs
        assert x is not None and scale is not None and bias is not None
        y = outputs[0].on_device
        how = Statistics(
            self.groups(y.shape[1]),
            self.epsilon,
            affine=Affine.PER_GROUP if self.affine_per_group() else Affine.PER_CHANNEL,
            scale=ctx.operand(scale, "linear"),
            bias=ctx.operand(bias, "linear"),
            activation=self.after(),
        )
        return normalize_groups(ctx, ctx.operand(x, y.layout), y, how)


@operator("GroupNormalization", since=(18, 21))
class GroupNormalization(GroupedNormalization):
    """Statistics over groups of channels (Wu & He, 2018); scale and bias per group in version 18,
    per channel since."""

    num_groups: int
    epsilon: float = 1e-5
    stash_type: int = 1

    def groups(self, channels: int) -> int:
        return self.num_groups

    def affine_per_group(self) -> bool:
        return self.version < 21

    def fused_attributes(self) -> dict[str, int]:
        """What the fused form has to be told, which has no versions."""
        return {"affine_by_group": int(self.affine_per_group())}


@operator("GroupNormalization", since=(1,), domain="vkconv")
class FusedGroupNormalization(GroupedNormalization):
    """GroupNormalization with an activation behind it; ``affine_by_group``: scale and bias have an
    element per group."""

    num_groups: int
    epsilon: float = 1e-5
    stash_type: int = 1
    affine_by_group: int = 0
    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0

    def groups(self, channels: int) -> int:
        return self.num_groups

    def affine_per_group(self) -> bool:
        return bool(self.affine_by_group)

    def after(self) -> tuple[Activation, float, float]:
        return Activation(self.activation), self.activation_alpha, self.activation_beta


@operator("InstanceNormalization", since=(1, 6, 22))
class InstanceNormalization(GroupedNormalization):
    """Statistics per channel (Ulyanov et al., 2016)."""

    epsilon: float = 1e-5
    consumed_inputs: tuple[int, ...] | None = None

    def groups(self, channels: int) -> int:
        return max(channels, 1)


@operator("InstanceNormalization", since=(1,), domain="vkconv")
class FusedInstanceNormalization(GroupedNormalization):
    """InstanceNormalization with an activation behind it."""

    epsilon: float = 1e-5
    activation: int = int(Activation.NONE)
    activation_alpha: float = 0.0
    activation_beta: float = 0.0

    def groups(self, channels: int) -> int:
        return max(channels, 1)

    def after(self) -> tuple[Activation, float, float]:
        return Activation(self.activation), self.activation_alpha, self.activation_beta
