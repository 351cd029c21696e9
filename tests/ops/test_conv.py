"""Conv and ConvTranspose: reference against onnxruntime, kernels against reference, packed
weights. Which kernel is chosen: test_conv_selection."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import vkconv
from tests.harness import Case, assert_close, check_device, check_reference, random
from vkconv.errors import InvalidModelError
from vkconv.ops.conv_weights import pack_lanes
from vkconv.weight_packing import packing


def conv(
    x: tuple[int, ...],
    m: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    bias: bool = True,
    **attributes: object,
) -> Case:
    """A Conv of constant weights over a random input of shape ``x``."""
    weight = random(m, x[1] // group, *kernel, low=-1, high=1, seed=1)
    inputs = (random(*x), weight, random(m, seed=2)) if bias else (random(*x), weight)
    if group > 1:
        attributes["group"] = group
    reduction = int(np.prod(weight.shape[1:]))
    return Case(
        "Conv", inputs, attributes, constant=tuple(range(1, len(inputs))), reduction=reduction
    )


def transposed(
    x: tuple[int, ...],
    m: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    bias: bool = True,
    **attributes: object,
) -> Case:
    weight = random(x[1], m // group, *kernel, low=-1, high=1, seed=1)
    inputs = (random(*x), weight, random(m, seed=2)) if bias else (random(*x), weight)
    if group > 1:
        attributes["group"] = group
    reduction = x[1] // group * int(np.prod(kernel))
    return Case(
        "ConvTranspose",
        inputs,
        attributes,
        constant=tuple(range(1, len(inputs))),
        reduction=reduction,
    )


POINTWISE = [
    conv((1, 8, 5, 7), 16, (1, 1)),
    conv((2, 3, 5, 7), 5, (1, 1), bias=False),
    conv((1, 17, 1, 1), 1, (1, 1)),
    conv((3, 64, 13, 11), 33, (1, 1)),
    conv((1, 128, 20, 20), 128, (1, 1)),
    conv((1, 8, 6, 7), 12, (1, 1), strides=[2, 3]),
    conv((2, 70, 13, 9), 33, (1, 1), strides=[2, 2]),
    conv((2, 16, 9, 14), 24, (1, 1), strides=[3, 2], group=2, bias=False),
    conv((1, 8, 6, 7), 12, (1, 1), pads=[1, 0, 2, 1]),
    conv((1, 16, 9, 5), 24, (1, 1), group=2),
]
DIRECT = [
    conv((1, 8, 9, 11), 16, (3, 3), pads=[1, 1, 1, 1]),
    conv((2, 3, 17, 15), 7, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    conv((1, 5, 7, 7), 9, (5, 3), pads=[2, 0, 1, 3]),
    conv((1, 3, 31, 29), 20, (7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
    conv((1, 4, 13, 13), 8, (3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]),
    conv((1, 4, 40, 40), 8, (3, 3), dilations=[12, 12], pads=[12, 12, 12, 12]),
    conv((1, 6, 3, 3), 4, (3, 3)),
    conv((1, 6, 2, 2), 4, (1, 3), pads=[0, 1, 0, 1]),
    conv((1, 32, 19, 23), 64, (3, 3), pads=[1, 1, 1, 1]),
    conv((1, 8, 10, 10), 8, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    conv((1, 8, 9, 10), 8, (4, 4), auto_pad="SAME_LOWER", strides=[2, 3]),
    conv((1, 8, 9, 10), 8, (4, 4), auto_pad="VALID"),
    conv((1, 24, 9, 7), 48, (3, 3), group=3, pads=[1, 1, 1, 1]),
    conv((2, 8, 3, 200), 4, (1, 31), pads=[0, 15, 0, 15]),
]
WINOGRAD = [
    conv((1, 16, 24, 28), 16, (3, 3), pads=[1, 1, 1, 1]),
    conv((2, 19, 31, 29), 23, (3, 3), pads=[1, 1, 1, 1]),
    conv((3, 32, 17, 15), 40, (3, 3), pads=[0, 2, 1, 0]),
    conv((1, 64, 40, 40), 64, (3, 3), bias=False, pads=[1, 1, 1, 1]),
    conv((1, 18, 33, 34), 16, (3, 3)),
    # small maps: F(2x2, 3x3)
    conv((1, 128, 10, 10), 128, (3, 3), pads=[1, 1, 1, 1]),
    conv((1, 130, 7, 8), 127, (3, 3), pads=[1, 1, 0, 2]),
]
ONE_DIMENSIONAL = [
    conv((2, 5, 23), 6, (3,), pads=[1, 1]),
    conv((1, 16, 40), 24, (5,), strides=[2], dilations=[2], pads=[3, 4]),
    conv((1, 6, 11), 6, (3,), group=6, pads=[1, 1]),
    conv((1, 7, 11), 3, (1,)),
]
DEPTHWISE = [
    conv((1, 8, 9, 11), 8, (3, 3), group=8, pads=[1, 1, 1, 1]),
    conv((2, 7, 15, 13), 7, (3, 3), group=7, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv((1, 12, 17, 17), 12, (5, 5), group=12, pads=[2, 2, 2, 2]),
    conv((1, 12, 17, 17), 12, (7, 7), group=12, strides=[2, 1], pads=[3, 3, 3, 3]),
    conv((1, 5, 21, 21), 5, (3, 3), group=5, dilations=[3, 2], pads=[3, 2, 3, 2], bias=False),
    conv((1, 4, 3, 40), 4, (1, 9), group=4, pads=[0, 4, 0, 4]),
    conv((1, 4, 30, 31), 4, (13, 13), group=4, pads=[6, 6, 6, 6]),
]
GROUPED = [
    conv((1, 6, 9, 11), 6, (3, 3), group=3, pads=[1, 1, 1, 1]),
    conv((2, 6, 7, 5), 18, (3, 3), group=6, pads=[1, 1, 1, 1], strides=[1, 2]),
    conv((1, 15, 7, 5), 10, (2, 2), group=5, dilations=[2, 2]),
    conv((1, 8, 5, 5), 6, (1, 1), group=2),
]
TRANSPOSED = [
    transposed((1, 8, 5, 7), 8, (2, 2), strides=[2, 2]),
    transposed((2, 5, 5, 7), 7, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    transposed((1, 3, 4, 4), 2, (4, 4), strides=[2, 2], pads=[1, 1, 1, 1], bias=False),
    transposed((1, 3, 6, 5), 4, (3, 3)),
    transposed((1, 4, 6, 5), 4, (3, 5), strides=[3, 1], dilations=[2, 2], pads=[1, 0, 2, 3]),
    transposed((1, 4, 3, 3), 4, (3, 3), strides=[2, 2], output_shape=[7, 8]),
    transposed((1, 4, 3, 3), 4, (3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    transposed((1, 4, 3, 3), 4, (3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
    transposed((1, 8, 5, 5), 16, (3, 3), group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    transposed((1, 6, 5, 5), 6, (4, 4), group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
    transposed((1, 6, 5, 5), 9, (3, 3), group=3, strides=[2, 1], pads=[1, 1, 1, 1]),
    transposed((2, 6, 9), 4, (4,), strides=[3], pads=[1, 1]),
    transposed((1, 64, 16, 16), 32, (2, 2), strides=[2, 2]),
    # fewer taps than phases: what no tap reaches is the bias
    transposed((1, 9, 4, 5), 10, (1, 2), strides=[3, 4], output_padding=[2, 3]),
    # strides and dilations with a common divisor: whole phases without taps
    transposed((2, 5, 4, 3), 6, (3, 3), strides=[4, 2], dilations=[2, 2], pads=[1, 0, 2, 1]),
    transposed((1, 33, 5, 4), 34, (3, 4), strides=[6, 3], dilations=[4, 2]),
    # padding beyond a whole stride
    transposed((1, 6, 7, 8), 5, (5, 5), strides=[2, 2], pads=[4, 5, 3, 6]),
    transposed((1, 4, 3, 2), 4, (2, 3), strides=[2, 5], output_shape=[7, 7]),
    transposed((1, 8, 1, 1), 4, (1, 1), strides=[7, 5]),
    transposed((1, 5, 2, 3), 6, (3, 2), strides=[33, 32]),
    transposed((2, 18, 5, 7), 9, (1, 1)),
    transposed((1, 5, 4, 3), 6, (1, 1), strides=[1, 2]),
    transposed((1, 48, 3, 4), 80, (3, 3), group=2, strides=[2, 2], bias=False),
]
THREE_DIMENSIONAL = [
    conv((1, 3, 5, 6, 7), 4, (3, 3, 3), pads=[1, 1, 1, 1, 1, 1]),
    conv((2, 17, 4, 7, 13), 9, (2, 3, 3), strides=[2, 1, 2], pads=[1, 0, 1, 0, 2, 1]),
    conv((1, 8, 9, 7, 5), 12, (3, 1, 3), dilations=[2, 1, 2], pads=[2, 0, 2, 2, 0, 2]),
    conv((2, 5, 3, 4, 7), 6, (1, 1, 1)),
    conv((1, 8, 1, 6, 6), 8, (1, 3, 3), pads=[0, 1, 1, 0, 1, 1]),
    conv((1, 24, 3, 5, 5), 16, (3, 3, 3), group=2, pads=[1, 1, 1, 1, 1, 1]),
    conv((1, 6, 5, 6, 7), 6, (3, 3, 3), group=6, pads=[1, 1, 1, 1, 1, 1]),
    conv((1, 6, 4, 5, 3), 9, (2, 2, 3), group=3, strides=[2, 1, 1]),
    transposed((1, 3, 4, 3, 5), 2, (2, 3, 2), strides=[2, 2, 2]),
    transposed((2, 9, 3, 4, 5), 17, (3, 3, 3), strides=[2, 1, 3], pads=[1, 1, 1, 1, 0, 2]),
    transposed((1, 8, 3, 3, 3), 8, (3, 3, 3), group=2, strides=[2, 2, 2], output_padding=[1, 0, 1]),
    transposed((1, 4, 3, 4, 3), 6, (2, 3, 3), group=2, strides=[2, 1, 2], dilations=[1, 2, 1]),
]
#: onnxruntime refuses negative padding
CROPPED = [
    conv((1, 9, 8, 11), 34, (1, 1), strides=[1, 5], pads=[-2, -1, 0, -3]),
    conv((2, 6, 9, 8), 5, (3, 2), strides=[2, 1], pads=[-1, 1, -2, -1]),
]
GROWN = [
    transposed((2, 5, 3, 4), 9, (3, 3), strides=[2, 3], pads=[-3, -1, -2, -4]),
    transposed((1, 4, 3, 2), 4, (2, 3), strides=[2, 5], output_shape=[9, 13]),
]
CASES = POINTWISE + DIRECT + WINOGRAD + ONE_DIMENSIONAL + DEPTHWISE + GROUPED + TRANSPOSED
CASES += THREE_DIMENSIONAL
#: weights and bias computed by the model, or one of the two
COMPUTED = [
    case.but(constant=constant)
    for cases in (POINTWISE, DIRECT, ONE_DIMENSIONAL, DEPTHWISE, GROUPED, TRANSPOSED)
    for case, constant in zip(cases[:6], ((), (), (), (2,), (1,), ()), strict=False)
    if len(case.inputs) == 3 or 2 not in constant
]
COMPUTED += [THREE_DIMENSIONAL[i].but(constant=()) for i in (0, 1, 5, 6, 7, 9, 10, 11)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CROPPED, ids=str)
def test_reference_of_negative_padding_crops_the_input(case: Case) -> None:
    top, left, bottom, right = (-n for n in case.attributes["pads"])
    x, *constants = case.inputs
    height, width = x.shape[2:]
    cut = x[:, :, max(top, 0) : height - max(bottom, 0), max(left, 0) : width - max(right, 0)]
    pads = [max(-n, 0) for n in (top, left, bottom, right)]
    plain = case.but(inputs=(cut, *constants), attributes={**case.attributes, "pads": pads})
    check_reference(plain)
    assert_close(case.expected()[0], plain.expected()[0], case.reduction)


@pytest.mark.parametrize("case", GROWN, ids=str)
def test_reference_of_negative_padding_extends_the_result_by_the_bias(case: Case) -> None:
    attributes = {k: v for k, v in case.attributes.items() if k not in ("pads", "output_shape")}
    plain = case.but(attributes=attributes)
    check_reference(plain)
    full, found = plain.expected()[0], case.expected()[0]
    # output_shape adds at the end only
    top, left = (-n for n in case.attributes.get("pads", (0, 0))[:2])
    wanted = np.broadcast_to(case.inputs[2].reshape(-1, 1, 1), found.shape).copy()
    wanted[:, :, top : top + full.shape[2], left : left + full.shape[3]] = full
    assert_close(found, wanted, case.reduction)


@pytest.mark.usefixtures("both_results")
@pytest.mark.parametrize("case", CASES + CROPPED + GROWN, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.usefixtures("both_results")
@pytest.mark.parametrize("case", COMPUTED, ids=str)
def test_weights_that_the_model_computes(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("group", [1, 4])
def test_computed_weights_keep_what_follows(group: int) -> None:
    """Normalisation, a residual and an activation behind a convolution whose weights are an input:
    as in the mask heads of CondInst and RTMDet-Ins."""
    x, weight = random(2, 8, 7, 5), random(8, 8 // group, 3, 3, seed=1)
    scale, shift, mean, variance = (
        numpy_helper.from_array(random(8, low=0.5, high=2, seed=i), f"s{i}") for i in range(4)
    )
    nodes = [
        helper.make_node("Mul", ["w", "w"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["a"], "dynamic", pads=[1] * 4, group=group),
        helper.make_node("BatchNormalization", ["a", "s0", "s1", "s2", "s3"], ["b"], epsilon=1e-3),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "weight"], ["d"], "second", pads=[1] * 4, group=group),
        helper.make_node("Add", ["d", "c"], ["e"]),
        helper.make_node("Sigmoid", ["e"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in (("x", x), ("w", weight))
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "heads", inputs, outputs, [scale, shift, mean, variance])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": x, "w": weight}
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    with vkconv.InferenceSession(model, strict=True) as session:
        (found,) = session.run(None, feeds)
    assert_close(found, expected, 72)


@pytest.mark.parametrize("opset", [9, 11, 22])
def test_every_version(opset: int) -> None:
    check_device(conv((1, 4, 5, 5), 4, (3, 3), pads=[1, 1, 1, 1]).but(opset=opset))
    check_device(transposed((1, 4, 5, 5), 4, (2, 2), strides=[2, 2]).but(opset=opset))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (conv((1, 4, 5, 5), 4, (3, 3), strides=[0, 1]), "strides"),
        (conv((1, 4, 5, 5), 4, (3, 3), pads=[1, 1]), "pads"),
        (conv((1, 4, 5, 5), 4, (7, 7)), "does not fit"),
        (conv((1, 4, 5, 5), 4, (3, 3), kernel_shape=[5, 5]), "kernel_shape"),
        (conv((1, 4, 5, 5), 4, (3, 3), auto_pad="SAME"), "auto_pad"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_bad_attributes_are_named(case: Case, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        case.types()


# --- the pure parts -------------------------------------------------------------------


def test_packed_tiles_hold_bias_then_weights() -> None:
    weight, bias = random(6, 5, 3, 3), random(6, seed=3)
    packed = packing("tiles", weight, bias, groups=1, tile=4).array()
    # 2 tiles of 4 outputs; 2 blocks of 4 inputs; 9 taps
    assert packed.shape == (1, 2, 4 + 2 * 9 * 4 * 4)
    body = packed[0, :, 4:].reshape(2, 2, 9, 4, 4)
    assert np.array_equal(packed[0, :, :4].reshape(-1)[:6], bias)
    assert not packed[0, :, :4].reshape(-1)[6:].any()
    for output in range(6):
        for channel in range(5):
            found = body[output // 4, channel // 4, :, output % 4, channel % 4]
            assert np.array_equal(found, weight[output, channel].reshape(-1))
    assert not body[1, :, :, 2:].any()
    assert not body[:, 1, :, :, 1:].any()


def test_packed_lanes_hold_four_outputs_a_vec4() -> None:
    weight, bias = random(6, 2, 3, 1), random(6, seed=3)
    packed = pack_lanes(weight, bias)
    assert packed.shape == (2, 7, 4)
    for output in range(6):
        assert packed[output // 4, 0, output % 4] == bias[output]
        assert np.array_equal(packed[output // 4, 1:, output % 4], weight[output].reshape(-1))
