"""Which values share bytes: concats without copies, slices and reshapes as views."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.plan.planning import kernels, planned
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession, passes
from vkconv.dispatch import Plan, View
from vkconv.ir import Array

X = {"x": [2, 4, 3, 5]}
#: channel-wise convolutions that make maps of 4, 8, 3 and 5 channels in C4
W: dict[str, Array] = {f"w{c}": floats(c, 4, 1, 1, seed=c, scale=0.5) for c in (3, 4, 5, 8)}


@pytest.fixture(autouse=True)
def _copies_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted here, also those that an assembly would take in."""
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    monkeypatch.setattr(passes, "assemble_parts", lambda *_: None)


def conv(y: str, channels: int, x: str = "") -> onnx.NodeProto:
    """A convolution, by default of an input of its own: those of one input become one."""
    return node("Conv", f"{x or f'x_{y}'} w{channels}", y)


def check(nodes: list[onnx.NodeProto], copies: int, outputs: str = "y",
          inputs: dict | None = None, more: dict | None = None) -> Plan:  # fmt: skip
    """The model is planned with so many copies, and computes what it should."""
    constants = W | (more or {})
    made_here = {name for n in nodes for name in n.output} | set(constants)
    read = {name: X["x"] for n in nodes for name in n.input if name and name not in made_here}
    proto = model(nodes, inputs or read, dict.fromkeys(outputs.split()), constants)
    made = planned(proto)
    found = [k for k in kernels(made) if k in ("strided_copy", "channel_copy")]
    assert len(found) == copies, kernels(made)
    feeds = {i.name: floats(*[d.dim_value for d in i.type.tensor_type.shape.dim], seed=9)
             for i in proto.graph.input}  # fmt: skip
    with InferenceSession(proto) as session:
        session.run(None, {name: x * 3 + 1 for name, x in feeds.items()})
        assert_same(session.run(None, feeds), expected(proto, feeds))
    return made


def concat(parts: str, y: str = "y", axis: int = 1) -> onnx.NodeProto:
    return node("Concat", parts, y, axis=axis)


# --- C4 -----------------------------------------------------------------------------------------


def test_parts_are_written_in_place() -> None:
    check([conv("a", 4), conv("b", 8), concat("a b", "c"), node("Relu", "c", "y")], 0)


def test_the_last_part_may_end_anywhere() -> None:
    check([conv("a", 4), conv("b", 5), concat("a b")], 0)


def test_parts_behind_an_unaligned_one_are_copied() -> None:
    check([conv("a", 3), conv("b", 4), concat("a b")], 2)
    check([conv("a", 4), conv("b", 3), conv("c", 4), concat("a b c")], 2)


def test_nested() -> None:
    nodes = [conv("a", 4), conv("b", 8), concat("a b", "c"), conv("d", 4), concat("c d", "e"),
             conv("f", 8), concat("f e")]  # fmt: skip
    check(nodes, 0)


def test_nested_behind_an_unaligned_part() -> None:
    nodes = [conv("a", 4), conv("b", 4), concat("a b", "c"), conv("d", 5), concat("d c")]
    check(nodes, 2)


def test_a_value_twice_in_one_concat() -> None:
    check([conv("a", 4), concat("a a")], 1)
    check([conv("a", 4), conv("b", 8), concat("a b a")], 1)


def test_a_value_in_two_concats() -> None:
    nodes = [conv("a", 4), conv("b", 8), concat("a b", "y"), concat("b a", "z")]
    check(nodes, 2, "y z")


def test_chain_of_elan_blocks() -> None:
    nodes = [conv("a", 4), conv("b", 4, "a"), conv("c", 4, "b"), concat("a b c x", "d")]
    check([*nodes, node("Conv", "d v", "y")], 0, more={"v": floats(6, 16, 1, 1)})


def test_a_part_that_is_an_output() -> None:
    check([conv("a", 4), conv("b", 4), concat("a b", "y")], 0, "y a b")


def test_a_part_that_others_read() -> None:
    nodes = [conv("a", 4), conv("b", 4), concat("a b", "c"), node("Add", "a b", "d"),
             concat("d c", "y")]  # fmt: skip
    check(nodes, 0, "y")


def test_constants_are_copied_and_inputs_converted_in_place() -> None:
    nodes = [conv("a", 4), concat("x a k", "y")]
    check(nodes, 1, more={"k": floats(2, 4, 3, 5)})


def test_slices_are_views_and_copied_into_concats() -> None:
    halves = node("Split", "a", "p q", axis=1)
    check([conv("a", 8), halves, node("Relu", "p", "y"), node("Neg", "q", "z")], 0, "y z")
    check([conv("a", 8), halves, concat("q p", "y")], 2)
    assert "y" in {s.name for s in check([conv("a", 8), halves, conv("b", 4), concat("b q")], 1)
                   .storages}  # fmt: skip


def test_slices_of_a_concat_are_views_of_it() -> None:
    nodes = [conv("a", 4), conv("b", 8), concat("a b", "c"),
             node("Slice", "c from to axes", "s"), node("Relu", "s", "y")]  # fmt: skip
    bounds = {"from": np.array([4]), "to": np.array([12]), "axes": np.array([1])}
    check(nodes, 0, more=bounds)


def test_batches_of_a_concat_along_the_batch() -> None:
    check([conv("a", 5), conv("b", 5), concat("a b", axis=0)], 0)


def test_concat_along_a_spatial_axis_is_copied() -> None:
    check([conv("a", 4), conv("b", 4), concat("a b", axis=3)], 2)


# --- linear -------------------------------------------------------------------------------------


V = {"v": [1, 6, 4]}


def test_linear_parts_are_written_in_place() -> None:
    nodes = [node("Relu", "v", "a"), node("Neg", "v", "b"), concat("a b")]
    check(nodes, 0, inputs=V)
    check(nodes, 2, inputs={"v": [2, 6, 4]})


def test_reshapes_are_written_in_place() -> None:
    nodes = [node("Relu", "v", "a"), node("Reshape", "a s", "r"), node("Neg", "v", "b"),
             node("Reshape", "b s", "t"), concat("r t", axis=0)]  # fmt: skip
    made = check(nodes, 0, inputs=V, more={"s": np.array([3, 8])})
    assert "y" in {s.name for s in made.storages} and len(made.storages) == 2


def test_a_reshape_in_a_concat_whose_source_is_read_elsewhere() -> None:
    nodes = [node("Relu", "v", "a"), node("Reshape", "a s", "r"), node("Sigmoid", "a", "b"),
             node("Neg", "v", "c"), concat("c b", "z"), node("Reshape", "c s", "t"),
             concat("t r", "y", axis=0)]  # fmt: skip
    check(nodes, 1, "y z", inputs=V, more={"s": np.array([3, 8])})


def test_another_reader_of_a_reshaped_source_is_computed() -> None:
    """b is in a concat, and its input lies in another: b still needs its step."""
    nodes = [node("Relu", "v", "a"), node("Reshape", "a s", "r"), concat("r r", "y", axis=0),
             node("Sigmoid", "a", "b"), node("Neg", "v", "c"), concat("b c", "z")]  # fmt: skip
    made = check(nodes, 1, "y z", inputs=V, more={"s": np.array([3, 8])})
    assert [d.node for d in made.dispatches if "Sigmoid" in d.node]


def test_two_reshapes_of_one_source() -> None:
    nodes = [node("Relu", "v", "a"), node("Reshape", "a s", "r"), node("Flatten", "a", "f"),
             concat("r r", "y", axis=0), concat("f f", "z", axis=0)]  # fmt: skip
    check(nodes, 3, "y z", inputs=V, more={"s": np.array([3, 8])})


def test_a_concat_of_concats_of_reshapes() -> None:
    nodes = [node("Relu", "v", "a"), node("Reshape", "a s", "r"), node("Neg", "v", "b"),
             node("Reshape", "b s", "t"), concat("r t", "c", axis=0), node("Reshape", "c u", "d"),
             node("Abs", "v", "e"), node("Reshape", "e w", "f"), concat("d f", axis=0)]  # fmt: skip
    shapes = {"s": np.array([3, 8]), "u": np.array([-1, 2]), "w": np.array([12, 2])}
    check(nodes, 0, inputs=V, more=shapes)


def test_reshapes_of_an_input_are_views_of_it() -> None:
    made = check([node("Reshape", "v s", "r"), node("Flatten", "r", "y")], 0, inputs=V,
                 more={"s": np.array([2, 3, 4])})  # fmt: skip
    assert not made.steps
    source, result = made.inputs[0].place, made.outputs[0].place
    assert isinstance(source, View) and isinstance(result, View)
    assert source.storage is result.storage


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_of_a_matrix_stack(axis: int) -> None:
    nodes = [node("Relu", "v", "a"), node("Neg", "v", "b"), concat("a b a", axis=axis)]
    copies = 1 if axis < 2 else 3
    check(nodes, copies, inputs=V)


def test_integers() -> None:
    nodes = [node("Cast", "v", "i", to=6), node("Cast", "v", "j", to=6), concat("i j", "k"),
             node("Cast", "k", "y", to=1)]  # fmt: skip
    check(nodes, 0, inputs=V)


def test_host_results_are_copied_into_concats() -> None:
    nodes = [node("Cast", "v", "d", to=11), node("Exp", "d", "e"), node("Cast", "e", "f", to=1),
             node("Relu", "v", "a"), concat("a f")]  # fmt: skip
    proto = model(nodes, V, {"y": None})
    x = floats(1, 6, 4)
    with pytest.warns(RuntimeWarning, match="Exp"), InferenceSession(proto) as session:
        assert_same(session.run(None, {"v": x}), expected(proto, {"v": x}))


# --- element-wise results in the place of an operand that dies -----------------------------------


def places(plan: Plan) -> dict[str, str]:
    """The storage that each node writes, by node."""
    return {d.node: r.storage.name for d in plan.dispatches for r in d.buffers.values() if r.writes}


def test_a_chain_of_functions_needs_one_storage() -> None:
    nodes = [conv("a", 8), node("Sin", "a", "b"), node("Abs", "b", "c"), node("Sqrt", "c", "y")]
    written = places(check(nodes, 0))
    assert written["Sin:b"] == written["Abs:c"] == written["Sqrt:y"] == written["Conv:a"]


def test_what_is_read_later_is_not_overwritten() -> None:
    nodes = [conv("a", 8), node("Sin", "a", "b"), node("Mul", "b a", "c"), node("Mul", "c a", "y")]
    written = places(check(nodes, 0))
    assert written["Sin:b"] != written["Conv:a"]
    # a dies in the last product, b in the one before
    assert written["Mul:c"] == written["Sin:b"]


def test_inputs_and_outputs_of_the_model_are_not_overwritten() -> None:
    nodes = [node("Sin", "x", "a"), node("Abs", "a", "b"), node("Neg", "b", "y")]
    made = check(nodes, 0, "y a")
    written = places(made)
    assert written["Sin:a"] != "x" and written["Abs:b"] != written["Sin:a"]
    assert written["Neg:y"] == written["Abs:b"]


def test_a_broadcast_operand_is_not_overwritten() -> None:
    nodes = [conv("a", 8), node("GlobalAveragePool", "a", "m"), node("Mul", "m a", "y")]
    written = places(check(nodes, 0))
    assert written["Mul:y"] == written["Conv:a"] != written["GlobalAveragePool:m"]


def test_an_alias_that_is_read_later_keeps_the_memory() -> None:
    split = node("Split", "a", "p q", axis=1)
    nodes = [conv("a", 8), split, node("Sin", "p", "s"), node("Add", "s q", "y")]
    written = places(check(nodes, 0))
    assert written["Sin:s"] != written["Conv:a"]
    # both halves read by one node: neither is where the result goes
    written = places(check([conv("a", 8), split, node("Mul", "p q", "y")], 0))
    assert written["Mul:y"] != written["Conv:a"]


def test_a_result_that_belongs_to_a_concat_goes_there() -> None:
    nodes = [conv("a", 4), node("Sin", "a", "s"), conv("b", 4), concat("s b")]
    written = places(check(nodes, 0))
    assert written["Sin:s"] == written["Conv:b"] != written["Conv:a"]


def test_a_part_of_a_concat_is_not_overwritten() -> None:
    nodes = [conv("a", 4), conv("b", 4), concat("a b", "c"), node("Sin", "a", "s"),
             node("Concat", "c s", "y", axis=1)]  # fmt: skip
    written = places(check(nodes, 0))
    assert len(set(written.values()) - {"y/linear"}) == 3  # two inputs in C4, and y


def test_a_part_that_a_later_concat_reads_keeps_the_memory() -> None:
    """What lies in a concat and is read only after it: nobody has asked for its place before the
    node that would write over the whole."""
    nodes = [conv("a", 4), conv("b", 4), concat("a b", "c"), node("Sin", "c", "s"),
             node("Conv", "s w", "d", kernel_shape=[1, 1]), concat("d b")]  # fmt: skip
    written = places(check(nodes, 1, more={"w": floats(4, 8, 1, 1)}))
    assert written["Sin:s"] != written["Conv:b"]
    # nor where a constant is the first input of what makes the part
    nodes[1:2] = [conv("e", 4), node("Pow", "base e", "b")]
    written = places(
        check(nodes, 1, more={"w": floats(4, 8, 1, 1), "base": np.full(1, 1.5, np.float32)})
    )
    assert written["Sin:s"] != written["Pow:b"]


@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize("first", ["newest", "oldest"])
def test_dense_blocks(layers: int, first: str) -> None:
    """Each layer reads the concat of all before it: a part lies in one and is read by others."""
    nodes, parts, more = [conv("p0", 4)], ["p0"], {}
    for i in range(layers):
        more[f"m{i}"] = floats(4, 4 * len(parts), 1, 1, seed=i, scale=0.5)
        order = parts[::-1] if first == "newest" else parts
        nodes += [concat(" ".join(order), f"c{i}"), node("Sin", f"c{i}", f"s{i}"),
                  node("Conv", f"s{i} m{i}", f"p{i + 1}")]  # fmt: skip
        parts.append(f"p{i + 1}")
    # each part is written where it belongs in one concat, and copied into the others
    copies = sum(range(2, layers + 2)) - len(parts)
    check([*nodes, concat(" ".join(parts))], copies, more=more)
