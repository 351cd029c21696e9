"""``vkconv inspect --pipelines``: asked of AMD's compiler, which needs no GPU of AMD's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

from tests.cli.test_end_to_end import call
from tests.device.handmade import run_python
from tests.drivers import null_hardware
from tests.small_models import floats, model, node
from vkconv.cli.main import main
from vkconv.device.vulkan import statistics

DEMO = str(Path(__file__).parents[2] / "vkconv" / "data" / "demo.onnx")
#: what a session would dispatch, by the planner itself
PLAN = """
import json, sys
from vkconv.device import open_compiler
from vkconv.loading import read_onnx
from vkconv.plan import ConstantStore
from vkconv.planning import plan_graph
with open_compiler() as compiler:
    plan = plan_graph(read_onnx({!r}).graph, compiler.caps, ConstantStore(), lambda _: None).plan
print(json.dumps([d.kernel for d in plan.dispatches]))
"""


@pytest.fixture
def open_model(tmp_path: Path) -> Path:
    proto = model(
        [node("Conv", "x w", "y")], {"x": ["n", 3, "h", 8]}, {"y": None}, {"w": floats(4, 3, 3, 3)}
    )
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def own_lines(text: str) -> list[str]:
    """Without what RADV of Mesa 25 says of hardware that is not there."""
    return [line for line in text.splitlines() if not line.startswith("ac_compute_device_uuid")]


def table(text: str) -> list[dict[str, str]]:
    """The rows of the table by heading; none of its cells is folded on a pipe."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    head = lines[rule - 1]
    names = [name.strip() for name in head.split("  ") if name.strip()]
    ends = [head.index(name) + len(name) for name in names]
    starts = [0, head.index(names[1]), *(end + 1 for end in ends[1:-1])]
    # headings stand to the left of texts and to the right of numbers
    starts[2] = head.index(names[2]) - 1
    rows = []
    for line in lines[rule + 1 :]:
        if not line.strip():
            break
        cells = [line[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        rows.append({name: cell.strip() for name, cell in zip(names, cells, strict=True)})
    return rows


@pytest.mark.parametrize("family", ["raven", "navi21"])
def test_every_kernel_of_the_plan_is_listed(family: str, tmp_path: Path) -> None:
    environment = {**null_hardware(family), "VKCONV_CACHE_DIR": str(tmp_path / "cache")}
    path = tmp_path / "found.json"
    done = call("inspect", DEMO, "--pipelines", "--json", str(path), **environment)
    assert done.returncode == 0, done.stderr
    assert not own_lines(done.stderr) and not (tmp_path / "cache").exists()

    planned = run_python(PLAN.format(DEMO), **environment)
    assert planned.returncode == 0, planned.stderr
    expected = Counter(json.loads(planned.stdout))
    rows = table(done.stdout)
    listed: Counter[str] = Counter()
    for row in rows:
        listed[row["kernel"]] += int(row["dispatches"])
    assert listed == expected
    assert len({(row["kernel"], row["differs in"]) for row in rows}) == len(rows)
    assert all(int(row["VGPRs"]) > 0 and int(row["code size"]) > 0 for row in rows)

    found = json.loads(path.read_text())
    assert found["model"] == DEMO and family.upper() in found["device"]["name"]
    assert found["dispatches"] == expected.total() and found["deferred_nodes"] == 0
    for row, pipeline in zip(rows, found["pipelines"], strict=True):
        (executable,) = pipeline["executables"]
        said = executable["statistics"]
        assert set(said) == set(found["descriptions"])
        assert said["Spilled VGPRs"] == said["Spilled SGPRs"] == said["Scratch size"] == 0
        assert row["kernel"] == pipeline["kernel"]
        assert int(row["dispatches"]) == pipeline["dispatches"]
        shown = [int(row[name]) for name in ("VGPRs", "SGPRs", "occupancy", "code size")]
        names = ("VGPRs", "SGPRs", "Subgroups per SIMD", "Code size")
        assert shown == [said[name] for name in names]
    pipelines, dispatches = len(rows), expected.total()
    assert f"{pipelines} for {dispatches} dispatches: none spills registers" in done.stdout
    assert found["device"]["name"] in done.stdout


def test_json_to_standard_output(open_model: Path) -> None:
    environment = null_hardware("raven")
    shape = ["--shape", "x=1,3,8,8"]
    done = call("inspect", str(open_model), "--pipelines", "--json", "-", *shape, **environment)
    assert done.returncode == 0, done.stderr
    kernels = {pipeline["kernel"] for pipeline in json.loads(done.stdout)["pipelines"]}
    assert kernels == {row["kernel"] for row in table(done.stderr)}
    unsized = call("inspect", str(open_model), "--pipelines", **environment)
    assert unsized.returncode == 1 and len(own_lines(unsized.stderr)) == 1
    assert "--shape x=" in unsized.stderr


def test_what_only_a_run_can_plan_is_counted(tmp_path: Path) -> None:
    nodes = [
        node("NonZero", "x", "places"),
        node("Cast", "places", "numbers", to=1),
        node("Mul", "numbers numbers", "y"),
    ]
    onnx.save(model(nodes, {"x": [4, 4]}, {"y": None}), tmp_path / "net.onnx")
    done = call("inspect", str(tmp_path / "net.onnx"), "--pipelines", **null_hardware("raven"))
    assert done.returncode == 0, done.stderr
    assert "2 nodes left out: a run plans them" in done.stdout
    assert {row["kernel"] for row in table(done.stdout)} >= {"count_nonzero", "place_nonzero"}


def test_a_plan_that_dispatches_nothing(tmp_path: Path) -> None:
    proto = model([node("Shape", "x", "y")], {"x": [4, 4]}, {"y": ("int64", [2])})
    onnx.save(proto, tmp_path / "net.onnx")
    done = call("inspect", str(tmp_path / "net.onnx"), "--pipelines", **null_hardware("raven"))
    assert done.returncode == 0, done.stderr
    assert "none: no node runs on the device" in done.stdout


def test_a_plan_file_is_for_its_device(open_model: Path) -> None:
    plan = str(open_model.with_suffix(".vkplan"))
    assert main(["compile", str(open_model), "--shape", "x=1,3,6,8", "--device", "reference"]) == 0
    done = call("inspect", plan, "--pipelines", **null_hardware("raven"))
    assert done.returncode == 1 and len(own_lines(done.stderr)) == 1
    assert "make it again for this device" in done.stderr


def test_a_driver_that_does_not_tell_is_named(folder, refused, monkeypatch) -> None:
    monkeypatch.setattr(statistics, "EXTENSION", "VK_KHR_that_no_driver_has")
    said = refused(main, ["inspect", "model.onnx", "--pipelines"], 1)
    name = statistics.probes()[0].info.name
    assert f"'{name}' lacks VK_KHR_that_no_driver_has" in said and "no device here" in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--pipelines --device reference", 1, "device 'reference' compiles nothing"),
        ("--pipelines --device kompute:1", 1, "device 'kompute:1' compiles nothing"),
        ("--pipelines --json model.onnx", 1, "would overwrite the model"),
        ("--pipelines --json none/x.json", 1, "there is no folder"),
        ("--pipelines --plan", 2, "not allowed"),
        ("--json x.json", 2, "--json goes with --pipelines"),
        ("--plan --json -", 2, "--json goes with --pipelines"),
    ],
)
def test_wrong_usage_is_one_line(arguments, code, message, folder, refused) -> None:
    assert message in refused(main, ["inspect", "model.onnx", *arguments.split()], code)
    assert not Path("x.json").exists()
