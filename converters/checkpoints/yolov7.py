"""A trained YOLOv7: its cfg and a file of weights."""

from __future__ import annotations

import os

import torch

from vkconv.converters.checkpoints.checkpoint import Checkpoint
from vkconv.converters.checkpoints.state_dicts import StateDict, fill, read_state_dict
from vkconv.converters.checkpoints.yolov7_cfg import Cfg, read_cfg
from vkconv.converters.checkpoints.yolov7_net import YoloV7, build_yolov7
from vkconv.errors import InvalidModelError

__all__ = ["load_yolov7"]

_SIZE = 640


def load_yolov7(cfg: str | os.PathLike[str], weights: str | os.PathLike[str]) -> Checkpoint:
    """The network of the yaml ``cfg``, filled; its rows are cx, cy, w, h, objectness, classes.

    The number of classes is that of the weights, since training takes it from the data and not
    from the cfg; anchors are the weights' too, which training may have fitted. Raises a VkconvError
    naming the layer of the cfg or the key of the weights that does not fit.
    """
    file = os.fspath(weights)
    description = read_cfg(cfg)
    state = read_state_dict(weights)
    notes: list[str] = []
    place = f"model.{len(description.rows) - 1}"
    classes = _classes(state, description, place, notes)
    network = build_yolov7(description, state, classes=classes)
    unused = _unused(network, state, place, notes)
    anchors = _anchors(network, state, place, file)
    if anchors is not None and anchors != network.detect.anchors:
        notes.append("the anchors are those of the weights, which differ from the cfg's")
        network.detect.anchors = anchors
    fill(network, state, file, unused=unused)
    dropped = network.drop_unused()
    if dropped:
        listed = ", ".join(str(row.index) for row in dropped)
        notes.append(f"left out, since inference does not need them: layers {listed}")
    step = max(network.detect.strides)
    size = -(-_SIZE // step) * step
    return Checkpoint(
        network, ("detections",), (size, size), step, "yolov7", network.classes, notes=tuple(notes)
    )


def _classes(state: StateDict, cfg: Cfg, place: str, notes: list[str]) -> int:
    """The number of classes of the weights; the cfg's where they do not tell."""
    weight = state.get(f"{place}.m.0.weight")
    anchors = len(cfg.anchors[0])
    if weight is None or weight.ndim != 4 or weight.shape[0] % anchors:
        return cfg.classes
    classes = weight.shape[0] // anchors - 5
    if classes == cfg.classes or classes < 1:
        return cfg.classes
    notes.append(f"the weights have {classes} classes, where the cfg says {cfg.classes}")
    return classes


def _unused(network: YoloV7, state: StateDict, place: str, notes: list[str]) -> list[str]:
    """Keys that the network of inference has no place for, and does not miss."""
    unused = [f"{place}.anchors", f"{place}.anchor_grid", f"{place}.stride"]
    if network.rows[-1].name == "IAuxDetect":
        auxiliary = [key for key in state if key.startswith(f"{place}.m2.")]
        notes.append("left out, since it serves training only: the auxiliary half of IAuxDetect")
        unused += auxiliary
    folded = [key for key in state if key.startswith((f"{place}.ia.", f"{place}.im."))]
    if folded and network.rows[-1].name != "Detect" and not network.detect.implicit:
        notes.append(
            "the weights are fused already: their implicit vectors are in the convolutions, and "
            "what is left of them is not applied again"
        )
        unused += folded
    return unused


def _anchors(
    network: YoloV7, state: StateDict, place: str, file: str
) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    """Anchors in pixels of the weights; older files have them in cells only."""
    shape = (len(network.detect.anchors), len(network.detect.anchors[0]), 2)
    for name, in_cells in ((f"{place}.anchor_grid", False), (f"{place}.anchors", True)):
        if name not in state:
            continue
        value = state[name].to(torch.float64)
        if value.numel() != shape[0] * shape[1] * 2:
            raise InvalidModelError(
                f"the weights '{file}': '{name}' has shape {tuple(value.shape)}, but the cfg has "
                f"{shape[0]} levels of {shape[1]} anchors"
            )
        value = value.reshape(shape)
        if in_cells:
            value = value * torch.tensor(network.detect.strides).reshape(-1, 1, 1)
        if not bool((torch.isfinite(value) & (value > 0)).all()):
            raise InvalidModelError(f"the weights '{file}': '{name}' has anchors without a size")
        return tuple(tuple((w, h) for w, h in level) for level in value.tolist())
    return None
