"""Which of a model's outputs a head can be read from, told by their shapes and names.

Everywhere ``outputs`` is name -> concrete shape, in the model's order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vkconv.errors import UnsupportedModelError
from vkconv.vision.head_kinds import HEAD_KINDS

__all__ = [
    "UNDERSTOOD",
    "box_output",
    "final_lists",
    "final_rows",
    "list_outputs",
    "query_outputs",
    "short",
]

UNDERSTOOD = (
    "understood are one image's (1, N, 5+C) of YOLOv5, YOLOv7 and YOLOX, (1, 4+C, N) of YOLOv8 and "
    "later, final boxes (1, N, 6), or boxes, scores and labels apart, or what --head or the "
    "metadata vkconv.head says: " + ", ".join(HEAD_KINDS)
)

_LABEL_WORDS = ("label", "class", "cls", "categor")
_SCORE_WORDS = ("score", "conf", "prob")


def box_output(outputs: Mapping[str, Sequence[int]]) -> str:
    """The one output that can hold boxes; YOLOv5 and v7 exports may list raw maps beside it."""
    fitting = [name for name, shape in outputs.items() if len(shape) == 3]
    single = [name for name in fitting if outputs[name][0] == 1]
    if len(single) == 1:
        return single[0]
    if len(fitting) == 1:
        raise UnsupportedModelError(
            f"the model returns a batch of {outputs[fitting[0]][0]}; export it for one image or "
            "with a dynamic batch"
        )
    raise UnsupportedModelError(
        f"the model's outputs ({list_outputs(outputs)}) are not a detection head; {UNDERSTOOD}"
    )


def final_lists(outputs: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """(boxes, scores, labels), or (boxes with their scores, labels); () when they are not there.

    Shapes tell what holds boxes; which of two lists has the labels, their names do. Others, the
    number of boxes or masks, may lie beside them.
    """
    boxes = [name for name, s in outputs.items() if len(s) == 3 and s[0] == 1 and s[2] in (4, 5)]
    boxes = boxes or [name for name, s in outputs.items() if len(s) == 2 and s[1] in (4, 5)]
    if len(boxes) != 1:
        return ()
    *several, width = outputs[boxes[0]]
    beside = [name for name, shape in outputs.items() if list(shape) == several]
    labels = [name for name in beside if _named(name, _LABEL_WORDS)]
    if width == 5 and len(labels) == 1:
        return (boxes[0], labels[0])
    scores = [name for name in beside if _named(name, _SCORE_WORDS) and name not in labels]
    # Of two, one that is named is enough.
    if len(beside) == 2 and len(labels) + len(scores) == 1:
        (other,) = set(beside) - {*labels, *scores}
        labels, scores = labels or [other], scores or [other]
    if width == 4 and len(labels) == len(scores) == 1:
        return (boxes[0], scores[0], labels[0])
    return ()


def final_rows(outputs: Mapping[str, Sequence[int]], values: int) -> tuple[str, ...]:
    """The one output of rows of ``values`` numbers, (1, N, values) or (N, values); () for none."""
    fit = [n for n, s in outputs.items() if len(s) in (2, 3) and s[-1] == values]
    fit = [name for name in fit if len(outputs[name]) == 2 or outputs[name][0] == 1]
    return tuple(fit) if len(fit) == 1 else ()


def query_outputs(outputs: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """(boxes, logits) of a set prediction, (1, N, 4) and (1, N, C); () when they are not there."""
    boxes = [name for name, s in outputs.items() if len(s) == 3 and s[0] == 1 and s[2] == 4]
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name.lower()]
    if len(boxes) != 1:
        return ()
    count = outputs[boxes[0]][1]
    beside = [
        name
        for name, s in outputs.items()
        if name != boxes[0] and len(s) == 3 and tuple(s[:2]) == (1, count)
    ]
    if len(beside) > 1:  # the queries' features, for one
        words = ("logit", *_LABEL_WORDS, *_SCORE_WORDS)
        beside = [name for name in beside if _named(name, words)]
    return (boxes[0], beside[0]) if len(beside) == 1 else ()


def list_outputs(outputs: Mapping[str, Sequence[int]], names: Collection[str] | None = None) -> str:
    """Outputs with their shapes, for a message."""
    chosen = outputs if names is None else names
    return short(", ".join(f"'{short(name)}' {tuple(outputs[name])}" for name in chosen), 300)


def short(text: str, limit: int = 40) -> str:
    """At most ``limit`` characters of what a model says."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _named(name: str, words: Collection[str]) -> bool:
    return any(word in name.lower() for word in words)
