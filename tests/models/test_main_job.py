"""The main job, an image in and boxes out, on two drivers, and under the validation layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.device.handmade import LAVAPIPE, ROOT, SWIFTSHADER, run_python
from tests.device.test_validation import messages
from tests.models.comparison import ALLOWED_NMSE, images, nmse, onnxruntime_session
from tests.models.yolov7_tiny import OUTPUTS, yolov7_tiny

EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
DRIVERS = {"lavapipe": LAVAPIPE, "SwiftShader": SWIFTSHADER}

#: goes before what runs under the layer
WHOLE_RANGES = "from tests.validation import take_whole_ranges\ntake_whole_ranges()\n"

#: keeps what vkconv-run prints apart from what a validation layer writes to the descriptors
RUN_EXAMPLE = """
import contextlib, io
from pathlib import Path
from vkconv.cli.run import main
image, folder = Path({image!r}), Path({folder!r})
output, record = folder / f"{{image.stem}}.png", folder / f"{{image.stem}}.json"
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    status = main([str(image), "-o", str(output), "--json", str(record)])
assert status == 0, out.getvalue()
"""

RUN_MODEL = """
import numpy as np
import vkconv
x = np.load({feed!r})
with vkconv.InferenceSession({model!r}, strict=True) as session:
    outputs = session.run(None, {{"images": x}})
    session.profile({{"images": x}})
np.savez({result!r}, *outputs)
"""

Record = dict[str, Any]


def run_code(folder: Path, image: Path) -> str:
    return RUN_EXAMPLE.format(image=str(image), folder=str(folder))


def record_of(folder: Path, image: Path) -> Record:
    """The JSON that vkconv-run wrote."""
    return json.loads((folder / f"{image.stem}.json").read_text())


@pytest.mark.parametrize("image", EXAMPLES, ids=lambda path: path.stem)
def test_the_same_boxes_on_both_drivers(image, tmp_path):
    found = []
    for driver, name in ((LAVAPIPE, "llvmpipe"), (SWIFTSHADER, "SwiftShader")):
        done = run_python(
            run_code(tmp_path, image),
            timeout=600,
            VK_ICD_FILENAMES=driver,
            VKCONV_CACHE_DIR=str(tmp_path / "cache"),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == done.stderr == ""
        record = record_of(tmp_path, image)
        assert name in record["device"]["name"]
        found.append(record["detections"])
    first, second = found
    assert first and len(first) == len(second)
    for detection in first:
        twin = max(second, key=lambda other: overlap(detection["box"], other["box"]))
        second.remove(twin)
        assert twin["label"] == detection["label"]
        assert overlap(twin["box"], detection["box"]) > 0.99
        assert abs(twin["confidence"] - detection["confidence"]) < 1e-3


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_message_while_boxes_are_found(driver, tmp_path):
    assert messages(WHOLE_RANGES + run_code(tmp_path, EXAMPLES[0]), DRIVERS[driver]) == ""
    assert record_of(tmp_path, EXAMPLES[0])["detections"]


@pytest.fixture
def tiny_job(exported, tmp_path) -> tuple[str, Callable[[], float]]:
    """Code that runs the YOLOv7-tiny-like net, small enough for a slow driver; how wrong it is."""
    shape = (1, 3, 128, 128)
    model = exported("yolov7_tiny_128", yolov7_tiny, shape, outputs=OUTPUTS)
    x = images(*shape)
    feed, result = tmp_path / "feed.npy", tmp_path / "result.npz"
    np.save(feed, x)

    def worst() -> float:
        expected = onnxruntime_session(model).run(None, {"images": x})
        with np.load(result) as actual:
            return max(nmse(actual[f"arr_{i}"], e) for i, e in enumerate(expected))

    return RUN_MODEL.format(feed=str(feed), model=str(model), result=str(result)), worst


@pytest.mark.parametrize("driver", DRIVERS)
def test_yolov7_tiny_under_validation(driver, tiny_job, record_property):
    code, worst = tiny_job
    assert messages(WHOLE_RANGES + code, DRIVERS[driver]) == ""
    record_property("nmse", worst())
    assert worst() <= ALLOWED_NMSE
