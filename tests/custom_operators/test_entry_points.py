"""Operators of installed packages: found by their entry points when a model needs them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.custom_operators.made_operators import DOMAIN, raw_model
from tests.small_models import model, node
from vkconv import InferenceSession, entry_points
from vkconv.errors import UnsupportedModelError


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
