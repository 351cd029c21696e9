"""What a loader hands on: a network in training form, and how it wants to be fed and read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["Checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A filled network in eval mode, with what an ONNX file says about it.

    module:      takes ``(b, 3, h, w)`` float32.
    outputs:     a name for each of its outputs.
    size:        (height, width) it is exported with unless said otherwise, in pixels.
    size_step:   what height and width have to be multiples of.
    head:        the kind of detection head, as vkconv-run knows it; "" for no detector.
    class_count: how many classes it tells apart.
    classes:     their names, where the weights or the cfg say them.
    fixed_batch: whether the batch has to be the example's.
    notes:       what the loader took from the weights or left out, one line each.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    size: tuple[int, int]
    size_step: int
    head: str
    class_count: int
    classes: tuple[str, ...] | None = None
    fixed_batch: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of_classifier(cls, module: nn.Module, class_count: int, *, deploy: bool) -> Checkpoint:
        """A network of ImageNet's size; ``deploy``: its weights had their branches fused."""
        form = f"weights of the {'deploy' if deploy else 'training'} form"
        return cls(module, ("logits",), (224, 224), 1, "", class_count, notes=(form,))
