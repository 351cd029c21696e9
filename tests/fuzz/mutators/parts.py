"""What mutators choose from: parts of a model, and numbers and words that are rarely right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

INTEGERS = (
    0, 1, -1, 2, 3, 5, 7, -2, 16, 17, 255, 256, 1 << 15, 65536, 1 << 20, 1 << 24, (1 << 31) - 1,
    1 << 31, -(1 << 31), -(1 << 31) - 1, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-20, 3.4e38, -3.4e38, float("nan"), float("inf"),
         float("-inf"), 2.0**31, 2.0**63, 1e9)  # fmt: skip
WORDS = (
    *("", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "nearest", "cubic", "bilinear"),
    *("zeros", "border", "reflection", "constant", "reflect", "edge", "wrap", "add", "mul", "max"),
    *("min", "none", "asymmetric", "align_corners", "tf_crop_and_resize", "floor", "ij,jk->ik"),
    *("...i->i...", "ii->", "DCR", "CRD", "none\nnone", "\x00", "a" * 5000),
)
LOCATIONS = ("data.bin", "../secret.bin", "/etc/passwd", "link.bin", "sub/../data.bin", "sub", "",
             "a" * 5000, "data.bin\x00.txt", "loop", "./data.bin", "//data.bin", "~/x", "fifo",
             "up/secret.bin")  # fmt: skip
ELEMENT_TYPES = tuple(range(0, 27))

Mutator = Callable[[ModelProto, Random], None]


class Mutators(list[tuple[int, Mutator]]):
    """Mutators of one kind, in the order in which they are written, and how often each is taken."""

    def of_weight(self, weight: int) -> Callable[[Mutator], Mutator]:
        def add(mutator: Mutator) -> Mutator:
            self.append((weight, mutator))
            return mutator

        return add


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those its nodes hold."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from graphs(item.g)


def some_graph(model: ModelProto, random: Random) -> GraphProto:
    return random.choice(list(graphs(model.graph)))


def some_node(model: ModelProto, random: Random) -> NodeProto:
    return random.choice([n for g in graphs(model.graph) for n in g.node])


def some_attribute(model: ModelProto, random: Random, *kinds: int) -> AttributeProto:
    found = [a for g in graphs(model.graph) for n in g.node for a in n.attribute]
    return random.choice([a for a in found if not kinds or a.type in kinds])


def some_tensor(model: ModelProto, random: Random) -> TensorProto:
    found = [t for g in graphs(model.graph) for t in g.initializer]
    found += [a.t for g in graphs(model.graph) for n in g.node for a in n.attribute if a.type == 4]
    return random.choice(found)


def known_names(graph: GraphProto) -> list[str]:
    names = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    return names + [o for n in graph.node for o in n.output if o]


def integer(random: Random, near: int = 0) -> int:
    """A number close to the one there was, or an extreme one."""
    if random.random() < 0.6:
        return max(-(1 << 63), min((1 << 63) - 1, near + random.choice((-3, -2, -1, 1, 2, 3, 8))))
    return random.choice(INTEGERS)
