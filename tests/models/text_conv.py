"""A convolutional net over text (Kim 2014): words to vectors, 3, 4 and 5 words at a time, the
strongest response of each filter, classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build

WORDS = 500


def text_conv(classes: int = 6, seed: int = 71) -> nn.Module:
    return build(lambda: TextConv(classes), seed)


class TextConv(nn.Module):
    """``(batch, length)`` of int64 word numbers to class logits and the likeliest class."""

    def __init__(self, classes: int, width: int = 40, filters: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, filters, size) for size in (3, 4, 5))
        self.wide = nn.Conv1d(width, filters, 3, padding=2, dilation=2, groups=2)
        self.classify = nn.Linear(filters * 4, classes)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.embed(words).transpose(1, 2)
        responses = [F.relu(conv(x)) for conv in (*self.convs, self.wide)]
        strongest = [torch.max(r, 2)[0] for r in responses]
        logits = self.classify(torch.cat(strongest, 1))
        return logits, torch.argmax(logits, 1)
