"""Rows of a YOLOv7 cfg into modules, with every argument checked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from vkconv.converters.checkpoints import yolov7_layers as layers
from vkconv.converters.checkpoints.yolov7_cfg import Anchors, Cfg, Row
from vkconv.errors import InvalidModelError

__all__ = ["LayerFactory"]

_MOST_CHANNELS = 65_536
_DETECTS = {"Detect": False, "IDetect": True, "IAuxDetect": True}
_ACTIVATIONS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    # the class and how many numbers it may be given
    "SiLU": (nn.SiLU, 0),
    "ReLU": (nn.ReLU, 0),
    "ReLU6": (nn.ReLU6, 0),
    "LeakyReLU": (nn.LeakyReLU, 1),
    "Hardswish": (nn.Hardswish, 0),
    "Mish": (nn.Mish, 0),
    "Identity": (nn.Identity, 0),
    "Sigmoid": (nn.Sigmoid, 0),
}
_ACTIVATION = re.compile(r"(?:torch\.)?nn\.(\w{1,20})\(\s*([0-9.eE+-]{0,20})\s*\)")


class LayerFactory:
    """Modules for rows, one after the other, keeping the number of channels of each."""

    channels_of_picture = 3

    def __init__(self, cfg: Cfg, names: Collection[str] | None, classes: int) -> None:
        self.cfg = cfg
        self.names = names
        self.classes = classes
        self.channels: dict[int, int] = {-1: self.channels_of_picture}
        self.makers: dict[str, Callable[[Row], tuple[nn.Module, int]]] = {
            "Conv": self._conv,
            "RepConv": self._rep_conv,
            "SPPCSPC": self._pyramid,
            "DownC": self._down,
            "MP": self._max_pool,
            "SP": self._same_pool,
            "ReOrg": self._reorganize,
            "Concat": self._concat,
            "Shortcut": self._shortcut,
            "nn.Upsample": self._upsample,
            **dict.fromkeys(_DETECTS, self._detect),
        }

    def layer(self, row: Row) -> nn.Module:
        """The module of the next row."""
        if row.name not in self.makers:
            known = ", ".join(self.makers)
            raise InvalidModelError(f"{row} of the cfg is not known; known are {known}")
        is_last = row.index == len(self.cfg.rows) - 1
        if (row.name in _DETECTS) != is_last:
            raise InvalidModelError(
                f"{row}: the last layer of a cfg, and no other, has to be one of "
                + ", ".join(_DETECTS)
            )
        module, self.channels[row.index] = self.makers[row.name](row)
        if row.repeats == 1:
            return module
        if self.channels[row.index] != self.channels[row.sources[0]]:
            raise InvalidModelError(f"{row} is repeated, but changes the number of channels")
        return nn.Sequential(
            module, *(self.makers[row.name](row)[0] for _ in range(row.repeats - 1))
        )

    def _conv(self, row: Row) -> tuple[nn.Module, int]:
        """Arguments: channels, kernel, stride, padding, groups, activation."""
        outputs = self._outputs(row)
        kernel, stride = _integer(row, 1, 1), _integer(row, 2, 1)
        padding = None if _argument(row, 3, None) is None else _integer(row, 3, 0, least=0)
        groups = self._groups(row, 4, outputs)
        act = _activation(row, 5)
        fused = self._is_fused(row, "conv")
        shape = (self._inputs(row), outputs, kernel, stride, padding, groups)
        return layers.Conv(*shape, act, fused=fused), outputs

    def _rep_conv(self, row: Row) -> tuple[nn.Module, int]:
        outputs = self._outputs(row)
        if _integer(row, 1, 3) != 3 or _argument(row, 3, None) not in (None, 1):
            raise InvalidModelError(f"{row}: a RepConv has a kernel of 3 and a padding of 1")
        fused = self.names is not None and f"model.{row.index}.rbr_reparam.weight" in self.names
        groups, act = self._groups(row, 4, outputs), _activation(row, 5)
        block = layers.rep_conv(
            self._inputs(row), outputs, _integer(row, 2, 1), groups, act, fused=fused
        )
        return block, outputs

    def _pyramid(self, row: Row) -> tuple[nn.Module, int]:
        """Arguments: channels, shortcut, groups (both unused), ratio, kernels."""
        outputs = self._outputs(row)
        ratio, kernels = _argument(row, 3, 0.5), _argument(row, 4, (5, 9, 13))
        if not isinstance(ratio, int | float) or not 0 < ratio <= 4:
            raise InvalidModelError(f"{row}: the ratio of hidden channels is {ratio!r}")
        if not isinstance(kernels, list | tuple) or not all(_is_kernel(k) for k in kernels):
            raise InvalidModelError(f"{row}: the pools' sizes are {kernels!r}, not odd numbers")
        fused = self._is_fused(row, "cv1.conv")
        return layers.SppCspc(self._inputs(row), outputs, ratio, kernels, fused=fused), outputs

    def _down(self, row: Row) -> tuple[nn.Module, int]:
        """Arguments: channels, factor."""
        outputs, factor = self._outputs(row), _integer(row, 1, 2)
        fused = self._is_fused(row, "cv1.conv")
        return layers.DownC(self._inputs(row), outputs, factor, fused=fused), outputs // 2 * 2

    def _max_pool(self, row: Row) -> tuple[nn.Module, int]:
        size = _integer(row, 0, 2)
        return nn.MaxPool2d(size, size), self._inputs(row)

    def _same_pool(self, row: Row) -> tuple[nn.Module, int]:
        size = _integer(row, 0, 3)
        return nn.MaxPool2d(size, _integer(row, 1, 1), size // 2), self._inputs(row)

    def _reorganize(self, row: Row) -> tuple[nn.Module, int]:
        return layers.ReOrg(), 4 * self._inputs(row)

    def _concat(self, row: Row) -> tuple[nn.Module, int]:
        if _argument(row, 0, 1) != 1:
            raise InvalidModelError(f"{row}: only channels, axis 1, can be joined")
        return layers.Concat(), sum(self.channels[source] for source in row.sources)

    def _shortcut(self, row: Row) -> tuple[nn.Module, int]:
        if len(row.sources) != 2:
            raise InvalidModelError(f"{row} adds two maps, but names {len(row.sources)}")
        return layers.Shortcut(), self.channels[row.sources[0]]

    def _upsample(self, row: Row) -> tuple[nn.Module, int]:
        """Arguments: size (None), factor, mode."""
        mode = _argument(row, 2, "nearest")
        if _argument(row, 0, None) is not None or mode not in ("nearest", "bilinear"):
            raise InvalidModelError(f"{row}: [None, factor, 'nearest' or 'bilinear'] is understood")
        factor = _integer(row, 1, 2, most=8)
        return nn.Upsample(scale_factor=float(factor), mode=mode), self._inputs(row)

    def _detect(self, row: Row) -> tuple[nn.Module, int]:
        """Arguments: nc, anchors. The second half of IAuxDetect's inputs serves training only."""
        anchors: Anchors = self.cfg.anchors
        heads = 2 if row.name == "IAuxDetect" else 1
        if len(row.sources) != heads * len(anchors):
            raise InvalidModelError(
                f"{row} has {len(row.sources)} inputs, but the cfg has anchors for "
                f"{len(anchors)} levels" + (", each with an auxiliary one" if heads == 2 else "")
            )
        if _argument(row, 0, "nc") not in ("nc", self.cfg.classes):
            raise InvalidModelError(f"{row}: its first argument has to be nc")
        if _argument(row, 1, "anchors") != "anchors":
            raise InvalidModelError(f"{row}: its second argument has to be anchors")
        channels = [self.channels[source] for source in row.sources[: len(anchors)]]
        implicit = _DETECTS[row.name] and self._has_implicit(row)
        return layers.AnchorDetect(channels, self.classes, anchors, implicit=implicit), 0

    def _has_implicit(self, row: Row) -> bool:
        """False for weights whose convolutions have taken in the implicit vectors.

        YOLOv7's own fusing does all layers at once, and leaves the vectors behind where it has
        folded them: they count only beside batch normalizations.
        """
        if self.names is None:
            return True
        normed = any(name.endswith(".bn.running_var") for name in self.names)
        return normed

    def _is_fused(self, row: Row, name: str) -> bool:
        if self.names is None:
            return False
        path = f"model.{row.index}." + ("0." if row.repeats > 1 else "") + name
        return f"{path}.bias" in self.names and f"{path[: -len('conv')]}bn.weight" not in self.names

    def _inputs(self, row: Row) -> int:
        """The channels of the one map a layer reads."""
        if len(row.sources) != 1:
            raise InvalidModelError(f"{row} reads one map, but its 'from' names {row.sources}")
        return self.channels[row.sources[0]]

    def _outputs(self, row: Row) -> int:
        """The first argument, times the width, rounded up to a multiple of 8."""
        outputs = _integer(row, 0, 0, most=_MOST_CHANNELS)
        return math.ceil(outputs * self.cfg.width_multiple / 8) * 8

    def _groups(self, row: Row, place: int, outputs: int) -> int:
        groups = _integer(row, place, 1, most=_MOST_CHANNELS)
        if self._inputs(row) % groups or outputs % groups:
            raise InvalidModelError(
                f"{row}: {self._inputs(row)} to {outputs} channels cannot be in {groups} groups"
            )
        return groups


def _argument(row: Row, place: int, default: Any) -> Any:
    return row.arguments[place] if place < len(row.arguments) else default


def _integer(row: Row, place: int, default: int, *, least: int = 1, most: int = 64) -> int:
    value = _argument(row, place, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidModelError(
            f"{row}: argument {place + 1} is {value!r}, not a number from {least} to {most}"
        )
    return value


def _is_kernel(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= 63 and value % 2 == 1


def _activation(row: Row, place: int) -> nn.Module:
    """SiLU unless said otherwise; a text such as ``nn.LeakyReLU(0.1)`` is looked up, never run."""
    value = _argument(row, place, True)
    if value is True:
        return nn.SiLU()
    if value is False or value is None:
        return nn.Identity()
    found = _ACTIVATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[1] not in _ACTIVATIONS:
        known = ", ".join(f"nn.{name}" for name in _ACTIVATIONS)
        raise InvalidModelError(f"{row}: the activation {value!r} is not known; known are {known}")
    make, most = _ACTIVATIONS[found[1]]
    try:
        numbers = [float(found[2])] if found[2] else []
    except ValueError:
        numbers = [math.nan]
    if len(numbers) > most or not all(abs(number) <= 10 for number in numbers):
        raise InvalidModelError(f"{row}: the activation {value!r} takes no such number")
    return make(*numbers)
