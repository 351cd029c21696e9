"""Operators from outside the package: registered, run like our own, and their faults answered."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import vkconv
from tests.harness import Case, check_device, check_reference, random
from tests.small_models import floats, model, node
from vkconv import InferenceSession, entry_points, shaders
from vkconv.cli.main import main
from vkconv.custom_operators import (
    Dispatch,
    Operator,
    TensorType,
    register_operator,
    spread,
    unregister_operator,
)
from vkconv.errors import BuildError, InvalidInputError, InvalidModelError, UnsupportedModelError
from vkconv.ops.base import REGISTRY

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_operator"
DOMAIN = "com.example"
SHAPES = [(1, 1, 1, 1), (1, 3, 5, 7), (2, 4, 17, 3), (1, 7, 1, 13), (3, 6, 8, 1)]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example in a folder of its own, its shader compiled and its operator registered."""
    folder = tmp_path_factory.mktemp("example")
    for path in EXAMPLE.iterdir():
        if path.suffix in (".py", ".comp") and not path.name.endswith("_spv.py"):
            shutil.copy(path, folder)
    assert main(["compile-shader", str(folder / "corner_pool.comp")]) == 0
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module("corner_pool")
        yield folder
    finally:
        sys.path.remove(str(folder))
        unregister_operator("CornerPool", domain=DOMAIN)
        for name in ("corner_pool", "corner_pool_spv", "export_model"):
            sys.modules.pop(name, None)


@pytest.fixture
def compiled(example: Path) -> ModuleType:
    """The example's compiled shader."""
    return importlib.import_module("corner_pool_spv")


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    """What a test registers goes with it."""
    before = dict(REGISTRY)
    yield
    for domain, op_type in REGISTRY.keys() - before.keys():
        if op_type != "CornerPool":
            unregister_operator(op_type, domain=domain)


# --- the worked example ---------------------------------------------------------------


def test_the_example_runs_as_the_guide_says(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(example)
    importlib.import_module("export_model").main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("corners")]
    assert [line.split(":")[0] for line in lines] == ["corners.onnx", "corners_dynamo.onnx"]
    for line in lines:
        assert line.count("com.example.corner_pool") == 2
        assert float(line.split()[-1]) < 1e-5
    for name in ("corners.onnx", "corners_dynamo.onnx"):
        nodes = [n for n in onnx.load(example / name).graph.node if n.domain == DOMAIN]
        assert [n.op_type for n in nodes] == ["CornerPool"] * 2


def corner_pool(shape: tuple[int, ...], direction: str, **more: Any) -> Case:
    given = {"direction": direction} if direction != "top" else {}
    return Case("CornerPool", (random(*shape),), given, domain=DOMAIN, **more)


CASES = [corner_pool(s, d) for s in SHAPES for d in ("top", "bottom", "left", "right")]
CASES += [corner_pool((1, 5, 9, 6), d, layout="c4") for d in ("top", "right")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_example_s_reference_is_pytorch_s(example: Path, case: Case) -> None:
    running_maximum: Any = importlib.import_module("export_model").running_maximum

    def by_torch(asked: Case) -> list[Any]:
        x = torch.from_numpy(asked.inputs[0])
        return [running_maximum(x, asked.attributes.get("direction", "top"))[0].numpy()]

    check_reference(case, by_torch)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_example_s_kernel(example: Path, case: Case) -> None:
    check_device(case)


def test_nan_stays(example: Path) -> None:
    x = random(1, 2, 4, 5)
    x[0, 1, 2, 3] = np.nan
    check_device(Case("CornerPool", (x,), domain=DOMAIN))


def test_it_is_seen_like_every_operator(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(corner_pool((1, 3, 5, 7), "left").model(), path)
    with InferenceSession(path) as session:
        profile = session.profile({"input_0": random(1, 3, 5, 7)})
        assert "com.example.corner_pool" in session.describe_plan()
    assert any("com.example.corner_pool" in str(row) for row in profile.rows())
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "com.example.CornerPool" in out and "com.example.corner_pool" in out


def test_a_plan_file_holds_it(example: Path, tmp_path: Path, capsys: Any) -> None:
    path, plan = tmp_path / "m.onnx", tmp_path / "m.vkplan"
    case = corner_pool((1, 3, 5, 7), "right")
    onnx.save(case.model(), path)
    assert main(["compile", str(path), "-o", str(plan)]) == 0
    with InferenceSession(plan) as session:
        [y] = session.run(None, case.feeds())
    np.testing.assert_array_equal(y, case.expected()[0])


def test_fusing_leaves_it(example: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(raw_model("CornerPool", direction="left"), path)
    assert main(["fuse", str(path), "-o", str(tmp_path / "fused.onnx")]) == 0
    fused = onnx.load(tmp_path / "fused.onnx")
    assert [n.op_type for n in fused.graph.node] == ["Relu", "CornerPool", "Relu"]
    assert {o.domain: o.version for o in fused.opset_import}[DOMAIN] == 1


def test_a_registered_operator_comes_before_a_function_of_its_name(example: Path) -> None:
    """A model may carry a body for runtimes without the operator."""
    proto = raw_model("CornerPool", direction="left")
    body = [node("Neg", "x", "t"), node("Neg", "t", "y")]
    opsets = [helper.make_opsetid("", 17)]
    for name in ("CornerPool", "Unheard"):
        function = helper.make_function(DOMAIN, name, ["x"], ["y"], body, opsets, ["direction"])
        proto.functions.append(function)
    proto.graph.node[2].CopyFrom(node("Unheard", "b", "y", name="call", domain=DOMAIN))
    with InferenceSession(proto) as session:
        placed = {p.node: p.detail for p in session.placement if p.op_type == "CornerPool"}
        [y] = session.run(None, {"x": floats(1, 3, 5, 7)})
        assert not [p for p in session.placement if p.op_type == "Unheard"]
    assert placed == {"node_under_test": "com.example.corner_pool"}
    given = corner_pool((1, 3, 5, 7), "left")
    np.testing.assert_array_equal(y, given.expected([np.maximum(floats(1, 3, 5, 7), 0)])[0])


def test_an_attribute_that_does_not_fit_names_the_node(example: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"node_under_test.*direction 'up' is not one of"):
        InferenceSession(raw_model("CornerPool", direction="up"), device="reference")
    with pytest.raises(UnsupportedModelError, match="attribute 'direction' should be str"):
        InferenceSession(raw_model("CornerPool", direction=3), device="reference")


# --- operators made here --------------------------------------------------------------


def raw_model(op_type: str, shape: tuple[int, ...] = (1, 3, 5, 7), **attributes: Any) -> Any:
    """One node of the domain, between two Relus, so that no shape of the result is declared."""
    nodes = [
        node("Relu", "x", "a"),
        node(op_type, "a", "b", name="node_under_test", domain=DOMAIN, **attributes),
        node("Relu", "b", "y"),
    ]
    return model(nodes, {"x": shape}, {"y": None}, domains={DOMAIN: 1})


class Doubling(Operator):
    """y = factor x, by numpy only."""

    factor: int = 2

    def infer(self, x: Any) -> TensorType:
        return x.known_type

    def reference(self, x: Any) -> Any:
        return (x * self.factor).astype(x.dtype)


def made(name: str = "Doubling", base: type = Doubling, **members: Any) -> type:
    """A class of its own for every registration."""
    annotations = members.pop("annotations", {})
    return type(name, (base,), {**members, "__annotations__": annotations})


def test_without_lower_it_runs_on_the_host() -> None:
    register_operator("Doubling", domain=DOMAIN)(made(annotations={"factor": int}, factor=2))
    x = floats(1, 3, 5, 7)
    with pytest.warns(RuntimeWarning, match=r"node_under_test.*has no kernel"):
        session = InferenceSession(raw_model("Doubling", factor=3))
    with session:
        [placed] = [p for p in session.placement if p.node == "node_under_test"]
        assert placed.where == "host" and "no kernel" in placed.detail
        [y] = session.run(None, {"x": x})
    np.testing.assert_allclose(y, np.maximum(x, 0) * 3)
    with pytest.raises(UnsupportedModelError, match="strict=True"):
        InferenceSession(raw_model("Doubling", factor=3), strict=True)


def test_the_version_follows_the_model_s_import() -> None:
    seen: list[int] = []

    def reference(self: Any, x: Any) -> Any:
        seen.append(self.version)
        return x

    register_operator("Doubling", domain=DOMAIN, since=(1, 3))(made(reference=reference))
    for version in (2, 4):
        proto = raw_model("Doubling")
        proto.opset_import[1].version = version
        with InferenceSession(proto, device="reference") as session:
            session.run(None, {"x": floats(1, 3, 5, 7)})
    assert seen == [1, 3]


def test_our_own_kernels_can_be_dispatched(compiled: ModuleType) -> None:
    def lower(self: Any, ctx: Any, inputs: Any, outputs: Any) -> list[Dispatch]:
        x, y = ctx.operand(inputs[0], "linear"), outputs[0].on_device
        grid = spread(ctx.caps, y.span)
        push = {"batches": 1, "count": y.span, "whole": y.span, "tail": 0, "alpha": 0.0}
        spec = {**grid.spec, "kind": 1}
        axes = {"width": "scalar", "access": "ssbo"}
        return [
            ctx.dispatch("unary", {"x": x, "y": y}, {**push, "beta": 0.0}, spec, grid.count, **axes)
        ]

    def reference(self: Any, x: Any) -> Any:
        return np.maximum(x, 0)

    register_operator("Rectified", domain=DOMAIN)(made(lower=lower, reference=reference))
    check_device(Case("Rectified", (random(3, 5, 7),), domain=DOMAIN))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2),
        ("int", 2),
        (int | None, None),
        ("int | None", None),
        (float, 2.0),
        (str, "a"),
        (tuple[int, ...], (1,)),
        ("tuple[float, ...]", (1.0,)),
        (np.ndarray, None),
        ("np.ndarray", None),
    ],
    ids=str,
)
def test_annotations_of_attributes(annotation: Any, value: Any) -> None:
    cls = made(annotations={"extra": annotation, "factor": "int"}, extra=value, factor=2)
    register_operator("Doubling", domain=DOMAIN)(cls)
    with InferenceSession(raw_model("Doubling", factor=2), device="reference") as session:
        session.run(None, {"x": floats(1, 3, 5, 7)})


class NoInfer(Operator):
    def reference(self, x: Any) -> Any:
        return x


class NoReference(Operator):
    def infer(self, x: Any) -> Any:
        return x.known_type


@pytest.mark.parametrize(
    ("cls", "more", "message"),
    [
        (NoInfer, {}, "has no infer; every operator needs infer"),
        (NoReference, {}, "has no reference"),
        (dict, {}, "'dict' is no subclass of"),
        (Doubling(), {}, "is no subclass of"),
        (Doubling, {"op_type": "no name"}, "'no name' is no name of an operator"),
        (Doubling, {"domain": ""}, "domain '' is the standard's or this package's own"),
        (Doubling, {"domain": "ai.onnx"}, "domain 'ai.onnx' is the standard's"),
        (Doubling, {"domain": "vkconv"}, "domain 'vkconv' is the standard's or this"),
        (Doubling, {"since": ()}, "since=.. is no tuple of versions"),
        (Doubling, {"since": (0,)}, "is no tuple of versions"),
        (made(annotations={"a": list}, a=1), {}, "attribute 'a' is annotated <class 'list'>"),
        (made(annotations={"a": "int | list"}, a=1), {}, "ONNX attributes are one of int, float"),
        (made(annotations={"layout": int}, layout=1), {}, "'layout' has a name that Operator uses"),
        (made(annotations={"version": int}, version=1), {}, "'version' has a name that Operator"),
        (made(annotations={"a": int, "b": int}, a=1), {}, "non-default argument 'b' follows"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", str(value))[:40] if isinstance(value, str) else "",
)
def test_what_is_no_operator_is_refused(cls: Any, more: dict[str, Any], message: str) -> None:
    before = dict(REGISTRY)
    op_type, domain = more.pop("op_type", "Doubling"), more.pop("domain", DOMAIN)
    with pytest.raises(InvalidInputError, match=message):
        register_operator(op_type, domain=domain, **more)(cls)
    assert before == REGISTRY


def test_class_variables_are_no_attributes() -> None:
    members = {"device_dtypes": frozenset({"float32"})}
    cls = made(annotations={"device_dtypes": ClassVar[frozenset[str]]}, **members)
    register_operator("Doubling", domain=DOMAIN)(cls)
    assert REGISTRY[DOMAIN, "Doubling"].device_dtypes == frozenset({"float32"})


def test_a_name_is_taken_once_unless_replaced() -> None:
    register_operator("Doubling", domain=DOMAIN)(made())
    with pytest.raises(InvalidInputError, match=r"'com\.example\.Doubling' is registered already"):
        register_operator("Doubling", domain=DOMAIN)(made())
    other = made(reference=lambda self, x: x * 10)
    register_operator("Doubling", domain=DOMAIN, replace=True)(other)
    with InferenceSession(raw_model("Doubling"), device="reference") as session:
        [y] = session.run(None, {"x": np.ones((1, 3, 5, 7), np.float32)})
    assert (y == 10).all()
    unregister_operator("Doubling", domain=DOMAIN)
    with pytest.raises(InvalidInputError, match="is not a registered one"):
        unregister_operator("Doubling", domain=DOMAIN)


# --- kernels --------------------------------------------------------------------------


def changed(module: ModuleType, **changes: Any) -> SimpleNamespace:
    names = ("KERNEL", "FORMAT", "AXES", "VARIANTS")
    return SimpleNamespace(**{**{n: getattr(module, n) for n in names}, "__name__": "m", **changes})


def with_entry(module: ModuleType, **changes: Any) -> dict[str, Any]:
    """The variants, the first one changed."""
    variants = dict(module.VARIANTS)
    key = next(iter(variants))
    variants[key] = {**variants[key], **changes}
    return variants


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.__dict__, "is no compiled shader; kernels are the modules"),
        (lambda m: changed(m, FORMAT=1), "'m' is no compiled shader of this version of vkconv"),
        (lambda m: changed(m, VARIANTS={}), "it has no variants"),
        (lambda m: changed(m, VARIANTS=with_entry(m, code=b"!!")), "'m' is damaged"),
        (lambda m: changed(m, VARIANTS=with_entry(m, code=b"eJwDAAAAAAE=")), "it holds no SPIR-V"),
        (lambda m: changed(m, VARIANTS=with_entry(m, interface={})), "'m' is damaged .KeyError"),
        (
            lambda m: changed(
                m,
                VARIANTS=with_entry(
                    m,
                    interface={
                        **next(iter(m.VARIANTS.values()))["interface"],
                        "capabilities": ["Shader", "Float64"],
                    },
                ),
            ),
            r"kernel 'com\.example\.corner_pool' needs Float64, which vkconv opens no device with",
        ),
    ],
)
def test_modules_that_are_no_kernels(
    compiled: ModuleType, change: Callable[[ModuleType], Any], message: str
) -> None:
    before = shaders.added_kernels()
    with pytest.raises(BuildError, match=message):
        register_operator("Other", domain=DOMAIN, kernels=[change(compiled)], replace=True)(made())
    assert (DOMAIN, "Other") not in REGISTRY
    assert shaders.added_kernels() == before


def test_kernels_of_one_name_clash_within_a_domain_only(compiled: ModuleType) -> None:
    twin = changed(compiled)
    with pytest.raises(
        InvalidInputError, match=r"kernel 'com\.example\.corner_pool' is registered"
    ):
        register_operator("Other", domain=DOMAIN, kernels=[twin])(made())
    register_operator("Other", domain="org.example", kernels=[twin])(made())
    register_operator("Third", domain=DOMAIN, kernels=[compiled])(made())
    unregister_operator("Third", domain=DOMAIN)
    assert shaders.load("com.example.corner_pool", (("access", "ssbo"),)).kernel.startswith("com.")


def lowering_to(kernel: str, buffers: Any = None, push: Any = None) -> Callable[..., Any]:
    def lower(self: Any, ctx: Any, inputs: Any, outputs: Any) -> Any:
        views = {"x": ctx.operand(inputs[0], "linear"), "y": outputs[0].on_device}
        return [ctx.dispatch(kernel, buffers or views, push or {}, {}, (1, 1, 1))]

    return lower


def fails(self: Any, *_: Any) -> Any:
    raise RuntimeError("out of ideas")


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        (
            {"lower": lowering_to("com.example.absent")},
            BuildError,
            r"not registered .registered: com\.example\.corner_pool.; give its compiled module",
        ),
        (
            {"lower": lowering_to("corner_pool")},
            BuildError,
            r"was 'com\.example\.corner_pool' meant",
        ),
        (
            {"lower": lowering_to("com.example.corner_pool")},
            BuildError,
            r"push constant of shader 'com\.example\.corner_pool' for node 'node_under_test': b",
        ),
        (
            {"lower": lowering_to("com.example.corner_pool", {"z": None})},
            BuildError,
            "buffer of shader .*: x is missing, y is missing, z is not declared",
        ),
        (
            {"lower": fails},
            BuildError,
            "'node_under_test'.*lower of operator .* out of ideas",
        ),
        (
            {"lower": lambda *_: None},
            BuildError,
            r"'node_under_test': lower of operator 'com\.example\.Bad' failed: it returned None",
        ),
        (
            {"infer": fails},
            InvalidModelError,
            r"'node_under_test'.*infer of operator 'com\.example\.Bad' failed: RuntimeError: out",
        ),
        (
            {"infer": lambda self, x: x.dims},
            InvalidModelError,
            "'node_under_test'.*it returned 1, not a TensorType",
        ),
        (
            {"infer": lambda self, x: TensorType("float32", ("n", 3))},
            InvalidModelError,
            r"it returned float32\[n,3\]",
        ),
        (
            {"infer": lambda self, x: TensorType("float99", (3,))},
            InvalidModelError,
            "float99",
        ),
        (
            {"infer": lambda self: None},
            UnsupportedModelError,
            "1 inputs, which Bad does not take",
        ),
        (
            {"layout": fails, "lower": fails},
            BuildError,
            "'node_under_test': layout of operator",
        ),
        (
            {"layout": lambda *_: "rows", "lower": fails},
            BuildError,
            "it returned 'rows', not",
        ),
        (
            {"unsupported": lambda *_: False, "lower": fails},
            BuildError,
            "unsupported of operator",
        ),
        ({"view": fails}, BuildError, "'node_under_test': view of operator"),
        (
            {"__post_init__": fails},
            UnsupportedModelError,
            "its attributes do not fit: out of ideas",
        ),
    ],
)
def test_faults_of_an_operator_name_it_and_the_node(
    example: Path, members: dict[str, Any], error: type[Exception], message: str
) -> None:
    register_operator("Bad", domain=DOMAIN)(made("Bad", **members))
    with pytest.raises(error, match=message):
        InferenceSession(raw_model("Bad"))


def test_c4_holds_feature_maps_only(example: Path) -> None:
    members = {"layout": lambda *_: "c4", "lower": fails}
    register_operator("Bad", domain=DOMAIN)(made("Bad", **members))
    with pytest.raises(BuildError, match=r"returned 'c4', which holds floats of rank 3 to 5, for"):
        InferenceSession(raw_model("Bad", (4, 5)))


@pytest.mark.parametrize("reference", [fails, lambda self, x: x[:1, :1]], ids=["raises", "shape"])
def test_faults_on_the_host_name_the_node(reference: Any) -> None:
    register_operator("Bad", domain=DOMAIN)(made("Bad", reference=reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        session = InferenceSession(raw_model("Bad"))
    with session, pytest.raises(vkconv.VkconvError, match="node_under_test"):
        session.run(None, {"x": floats(1, 3, 5, 7)})


# --- unknown domains, and entry points ------------------------------------------------


def test_an_unknown_domain_says_how_to_register() -> None:
    with pytest.raises(UnsupportedModelError, match=r"vkconv\.register_operator") as caught:
        InferenceSession(raw_model("Unheard"))
    [problem] = caught.value.nodes
    assert (problem.node, problem.domain) == ("node_under_test", DOMAIN)
    assert "domain='com.example'" in problem.reason and "custom_operators.md" in problem.reason


def distribution(folder: Path, name: str, source: str, point: str = "") -> None:
    """An installed package of one module with an entry point, as far as Python looks."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vkconv.operators]\n{name} = {point or name}\n")


OPERATOR = """
from vkconv.custom_operators import Operator, register_operator
@register_operator("Plugged", domain="com.plugged")
class Plugged(Operator):
    def infer(self, x): return x.known_type
    def reference(self, x): return x + 1
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(entry_points, "_loaded", False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("plugged"):
            del sys.modules[name]


def plugged_model() -> onnx.ModelProto:
    nodes = [node("Plugged", "x", "y", domain="com.plugged")]
    return model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, domains={"com.plugged": 1})


def test_entry_points_are_found_and_a_broken_one_is_named(installed: Path) -> None:
    distribution(installed, "plugged_broken", "import no_such_module_anywhere")
    distribution(installed, "plugged_exits", "import sys; sys.exit(3)")
    distribution(installed, "plugged_gone", "", "plugged_gone:absent")
    distribution(installed, "plugged_good", OPERATOR)
    distribution(installed, "plugged_twin", OPERATOR)
    with pytest.warns(RuntimeWarning) as caught:
        session = InferenceSession(plugged_model(), device="reference")
    with session:
        [y] = session.run(None, {"x": np.zeros((2, 3), np.float32)})
    assert (y == 1).all()
    texts = [str(w.message) for w in caught if "entry point" in str(w.message)]
    assert len(texts) == 4
    wanted = {
        "plugged_broken": "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        "plugged_exits": "SystemExit: 3",
        "plugged_gone": "AttributeError",
        "plugged_twin": "InvalidInputError: operator 'com.plugged.Plugged' is registered already",
    }
    for name, why in wanted.items():
        # of two packages with one operator the first found has it
        other = name.replace("twin", "good")
        assert any((name in t or other in t) and why in t for t in texts), (name, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InferenceSession(plugged_model(), device="reference").close()


def test_models_of_known_operators_load_no_entry_points(installed: Path) -> None:
    distribution(installed, "plugged_broken", "raise RuntimeError('imported')")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relu = model([node("Relu", "x", "y")], {"x": [2, 3]}, {"y": [2, 3]})
        InferenceSession(relu, device="reference").close()
    assert "plugged_broken" not in sys.modules
