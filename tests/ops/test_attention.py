"""Attention and RotaryEmbedding: vkconv/ops/attention.py, attention_kernels.py,
rotary_embedding.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.harness import Case, check_device, check_reference, random
from vkconv.errors import InvalidModelError


def _attention(
    q: tuple[int, ...],
    k: tuple[int, ...],
    v: tuple[int, ...] | None = None,
    mask: np.ndarray | None = None,
    past: int = 0,
    lengths: tuple[int, ...] | None = None,
    outputs: int = 1,
    opset: int = 24,
    **attributes: Any,
) -> Case:
    inputs: list[np.ndarray | None] = [random(*q), random(*k, seed=1), random(*(v or k), seed=2)]
    inputs.append(mask)
    if past:
        heads = attributes.get("kv_num_heads", k[1])
        size, value = ((x[2] // heads if len(k) == 3 else x[3]) for x in (k, v or k))
        inputs += [
            random(k[0], heads, past, size, seed=3),
            random(k[0], heads, past, value, seed=4),
        ]
    if lengths is not None:
        inputs += [None] * (6 - len(inputs)) + [np.array(lengths, np.int64)]
    while inputs[-1] is None:
        inputs.pop()
    return Case("Attention", tuple(inputs), attributes, opset, outputs=outputs, reduction=64)


Q, K = (2, 3, 5, 8), (2, 3, 7, 8)
FLAT_Q, FLAT_K = (2, 5, 24), (2, 7, 24)
HEADS = {"q_num_heads": 3, "kv_num_heads": 3}


def _flags(*shape: int) -> np.ndarray:
    return random(*shape, dtype="bool")


#: judged by onnxruntime as well
COMMON = [
    _attention(Q, K),
    _attention((1, 1, 1, 4), (1, 1, 1, 4)),
    _attention((1, 2, 33, 17), (1, 2, 65, 17), (1, 2, 65, 9)),
    _attention(Q, K, scale=0.3),
    _attention(Q, K, softcap=0.7),
    _attention(Q, Q, is_causal=1),
    _attention(Q, K, mask=random(5, 7, seed=5)),
    _attention(Q, K, mask=random(2, 1, 5, 7, seed=5)),
    _attention(Q, K, mask=random(2, 3, 5, 7, seed=5), softcap=1.5),
    _attention(FLAT_Q, FLAT_K, **HEADS),
    _attention(FLAT_Q, (2, 7, 24), (2, 7, 15), **HEADS),
    _attention((2, 5, 24), (2, 7, 8), (2, 7, 6), q_num_heads=6, kv_num_heads=2),
    _attention((2, 9, 5, 8), K),
    _attention((2, 4, 5, 8), (2, 1, 7, 8)),
    _attention(Q, K, past=6, outputs=3),
    _attention(FLAT_Q, FLAT_K, past=6, outputs=3, **HEADS),
    _attention(Q, Q, outputs=4, qk_matmul_output_mode=0),
    _attention(Q, Q, outputs=4, qk_matmul_output_mode=3),
]
OURS = [
    _attention(Q, K, mask=_flags(5, 7) | (np.arange(7) == 2)),
    _attention(Q, K, mask=_flags(2, 1, 5, 7), is_causal=1),
    _attention(Q, K, past=6, is_causal=1, outputs=3),
    _attention(Q, K, lengths=(3, 7)),
    _attention(Q, K, lengths=(3, 7), is_causal=1),
    _attention(Q, K, mask=random(5, 4, seed=5)),
    _attention(Q, K, mask=random(1, 1, 1, 1, seed=5), opset=23),
    _attention(Q, K, left_window_size=2, opset=25),
    _attention(Q, K, left_window_size=1, right_window_size=1, opset=25),
    *(
        _attention(
            Q, K, mask=random(5, 7), softcap=1.5, past=2, outputs=4, qk_matmul_output_mode=mode
        ).but(inputs=_attention(Q, K, mask=random(5, 9), past=2).inputs)
        for mode in (0, 1, 2, 3)
    ),
]
#: a query that no key takes part in gives zeros
EMPTY_ROWS = [
    _attention(Q, K, mask=np.zeros((5, 7), bool), outputs=4, qk_matmul_output_mode=3),
    _attention(Q, K, mask=np.where(random(5, 7) > 2, 0, -np.inf).astype(np.float32)),
    _attention(Q, K, lengths=(2, 5), is_causal=1),
]
NO_KEYS = [_attention((1, 2, 3, 4), (1, 2, 0, 4)), _attention((1, 2, 0, 4), (1, 2, 3, 4))]


@pytest.mark.parametrize("case", COMMON, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", COMMON + OURS + EMPTY_ROWS + NO_KEYS, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", EMPTY_ROWS, ids=str)
def test_queries_without_keys_give_zeros(case: Case) -> None:
    y = case.expected()[0]
    assert np.isfinite(y).all() and (y[0, :, 0] == 0).all()


def test_constant_keys() -> None:
    check_device(_attention(Q, K).but(constant=(1, 2)))


@pytest.mark.parametrize(
    "case",
    [
        _attention(Q, (2, 2, 7, 8)),
        _attention(Q, (2, 3, 7, 9)),
        _attention(FLAT_Q, FLAT_K),
        _attention(Q, K, mask=random(4, 7)),
        _attention(Q, K, past=2).but(
            inputs=(random(*Q), random(*K), random(*K), None, random(2, 3, 2, 8))
        ),
    ],
)
def test_shapes_that_do_not_fit(case: Case) -> None:
    with pytest.raises(InvalidModelError):
        case.types()


def _rotary(
    shape: tuple[int, ...], pairs: int, positions: int | None = None, **attributes: Any
) -> Case:
    b, s = shape[0], shape[1] if len(shape) == 3 else shape[2]
    if positions is None:
        caches = (random(b, s, pairs, seed=1), random(b, s, pairs, seed=2))
        return Case("RotaryEmbedding", (random(*shape), *caches), attributes, 23)
    ids = random(b, s, low=0, high=positions, dtype="int64")
    caches = (random(positions, pairs, seed=1), random(positions, pairs, seed=2))
    return Case("RotaryEmbedding", (random(*shape), *caches, ids), attributes, 23)


ROTARY = [
    _rotary((2, 3, 5, 8), 4),
    _rotary((2, 3, 5, 8), 4, interleaved=1),
    _rotary((2, 5, 24), 4, num_heads=3),
    _rotary((2, 3, 5, 8), 4, 11),
    _rotary((2, 3, 5, 10), 2, 11, rotary_embedding_dim=4),
    _rotary((2, 3, 5, 10), 2, rotary_embedding_dim=4, interleaved=1),
    _rotary((2, 5, 24), 1, 7, num_heads=3, rotary_embedding_dim=2),
]


@pytest.mark.parametrize("case", ROTARY, ids=str)
def test_rotary_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", ROTARY, ids=str)
def test_rotary_device(case: Case) -> None:
    check_device(case)


def test_rotary_cache_without_rows() -> None:
    case = _rotary((2, 3, 5, 8), 4, 11)
    x, _, _, ids = case.inputs
    with pytest.raises(InvalidModelError):
        case.but(inputs=(x, np.zeros((0, 4), "f4"), np.zeros((0, 4), "f4"), ids)).types()
