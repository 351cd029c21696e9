"""Pixels in, normalised on the device: against float64, against the host's way, and refused."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.fake_session import save_model
from tests.plan_file.test_damage import roomy, tables_of, with_tables
from tests.sentinels import guarded_arenas
from tests.small_models import floats, model, node
from tests.test_session import DEVICES
from vkconv import ImageInput, InferenceSession, compile_model
from vkconv.cli.main import main
from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.ir import TensorType, Value
from vkconv.ops.image_to_tensor import ImageToTensor
from vkconv.plan_file import read_compiled
from vkconv.vision import choose_head, prepare, prepare_pixels


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def normalised(x: np.ndarray, image: ImageInput) -> np.ndarray:
    """(N, C, H, W) float64."""
    channels = x.shape[-1]
    order = list(range(channels))
    if image.channel_order == "bgr":
        order[:3] = order[:3][::-1] if channels >= 3 else order[:3]
    values = x[..., order].astype(np.float64) * image.scale
    return ((values - np.asarray(image.mean)) / np.asarray(image.std)).transpose(0, 3, 1, 2)


def identity(channels: int, *, dtype: str = "float32", outputs: str = "y") -> Any:
    shape = ["n", channels, "h", "w"]
    return model([node("Neg", "x", "y"), node("Abs", "x", "z")], {"x": (dtype, shape)},
                 dict.fromkeys(outputs.split(), (dtype, None)))  # fmt: skip


SPECS = [
    ImageInput(),
    ImageInput(scale=1.0, channel_order="bgr"),
    ImageInput(scale=1 / 255, mean=0.45, std=0.22),
    ImageInput(scale=1.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    ImageInput(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bgr"),
]


@DEVICES
@pytest.mark.parametrize("image", SPECS, ids=str)
def test_three_channels(device: str, image: ImageInput) -> None:
    with InferenceSession(identity(3), device=device, images=image) as session:
        for shape in ((1, 5, 7), (3, 4, 9), (2, 1, 1), (1, 16, 16)):
            x = pixels(*shape, 3)
            (y,) = session.run(["y"], {"x": x})
            wanted = -normalised(x, image)
            assert y.dtype == np.float32 and y.shape == wanted.shape
            assert np.allclose(y, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_channels_and_dtypes(channels: int, dtype: str) -> None:
    image = ImageInput(mean=tuple(np.linspace(0.2, 0.5, channels)), channel_order="bgr")
    with (
        guarded_arenas() as guard,
        InferenceSession(identity(channels, dtype=dtype), images={"x": image}) as session,
    ):
        for shape in ((1, 5, 7), (2, 3, 5)):
            x = pixels(*shape, channels)
            session.run(None, {"x": 255 - x})
            guard.poison()
            (y,) = session.run(None, {"x": x})
            guard.check()
            assert y.dtype == dtype
            assert np.allclose(y, -normalised(x, image), atol=1e-6 if dtype == "float32" else 1e-3)


def test_padding_lanes_are_zero() -> None:
    """A convolution sums whole vec4s: what lies behind the third channel must be nothing."""
    proto = model([node("Conv", "x w", "y")], {"x": [1, 3, 6, 5]}, {"y": None},
                  {"w": floats(8, 3, 1, 1)})  # fmt: skip
    x = pixels(1, 6, 5, 3)
    with guarded_arenas() as guard, InferenceSession(proto, images=ImageInput()) as session:
        guard.poison()
        (y,) = session.run(None, {"x": x})
        guard.check()
        kernels = [d.kernel for d in next(iter(session._stages.values())).plan.dispatches]
    wanted = np.einsum("oc,nchw->nohw", floats(8, 3, 1, 1)[..., 0, 0], normalised(x, ImageInput()))
    assert np.allclose(y, wanted, rtol=1e-5, atol=1e-5)
    assert kernels[0] == "image_to_tensor" and "to_c4" not in kernels


def test_the_same_numbers_as_on_the_host() -> None:
    """The demo detector gets the very same tensor: its output is equal to the last bit."""
    with as_file(files("vkconv").joinpath("data", "demo.onnx")) as path:
        with InferenceSession(path) as session:
            arg = session.get_inputs()[0]
            metadata = session.get_modelmeta().custom_metadata_map
            head = choose_head({o.name: o.shape for o in session.get_outputs()}, metadata)
            picture = Image.fromarray(pixels(190, 333, 3))
            size = (arg.shape[3], arg.shape[2])
            tensor, box = prepare(picture, head, input_size=size)
            wanted = session.run(None, {arg.name: tensor})
        with InferenceSession(path, images=ImageInput()) as session:
            numbers = ImageInput(scale=head.input_scale, channel_order=head.channel_order)
            session.set_image_input(arg.name, numbers)
            raw, same = prepare_pixels(picture, head, input_size=size)
            assert same == box and raw.dtype == np.uint8 and raw.nbytes * 4 == tensor.nbytes
            found = session.run(None, {arg.name: raw})
            placed = {p.where for p in session.placement}
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert placed <= {"gpu", "fused", "folded"}


@pytest.mark.parametrize("disabled", ["", "unified", "texel"])
def test_any_memory_layout_of_the_pixels(disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    x = pixels(2, 6, 5, 3)
    with InferenceSession(identity(3), images=ImageInput(scale=1.0)) as session:
        wanted = -x.transpose(0, 3, 1, 2).astype(np.float32)
        buffer = np.zeros(x.size + 1, np.uint8)
        buffer[1:] = x.reshape(-1)
        layouts = [x, np.asfortranarray(x), x[::-1][::-1], buffer[1:].reshape(x.shape)]
        layouts += [np.repeat(x, 2, axis=2)[:, :, ::2]]
        for given in layouts:
            assert np.array_equal(session.run(None, {"x": given})[0], wanted)
        binding, y = session.io_binding(), np.zeros_like(wanted)
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", y)
        session.run_with_iobinding(binding)
        assert np.array_equal(y, wanted)
        assert np.array_equal(session.run_async(None, {"x": x}).result(20)[0], wanted)
        assert session.profile({"x": x}).steps[0].kernel == "image_to_tensor"


def test_what_the_session_says_of_its_inputs() -> None:
    nodes = [node("Mul", "x scale", "a"), node("Add", "a b", "y")]
    proto = model(nodes, {"x": ["n", 3, None, 8], "scale": [], "b": [1, 5, 1, 8]}, {"y": None})
    with InferenceSession(proto, device="reference", images=ImageInput()) as session:
        first, *rest = session.get_inputs()
        assert (first.type, first.shape) == ("tensor(uint8)", ["n", None, 8, 3])
        assert [a.shape for a in rest] == [[], [1, 5, 1, 8]]  # a scalar, five channels: no images
        assert session.image_inputs["x"].shape == ["n", 3, None, 8]
        assert session.image_inputs["x"].type == "tensor(float)" and len(session.image_inputs) == 1
    with InferenceSession(proto, device="reference") as session:
        assert not session.image_inputs


def test_other_numbers_at_any_time_without_a_new_plan() -> None:
    x = pixels(1, 4, 4, 3)
    with InferenceSession(identity(3), images=ImageInput()) as session:
        session.run(None, {"x": x})
        (stage,) = session._stages.values()
        for image in SPECS:
            session.set_image_input("x", image)
            wanted = -normalised(x, image)
            (y,) = session.run(None, {"x": x})
            assert np.allclose(y, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
        assert list(session._stages.values()) == [stage]
        with pytest.raises(InvalidInputError, match=r"'z' was not opened for images; .*: x"):
            session.set_image_input("z", ImageInput())
        with pytest.raises(InvalidInputError, match="mean has 2 numbers for 3 channels"):
            session.set_image_input("x", ImageInput(mean=(0.1, 0.2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel_order": "grb"}, "'rgb' or 'bgr', not 'grb'"),
        ({"std": 0.0}, r"std 0\.0 is no number"),
        ({"std": (1.0, 0.0, 1.0)}, "std .* is no number"),
        ({"scale": float("nan")}, "scale nan is no number"),
        ({"scale": "much"}, "scale much is no number"),
        ({"mean": (0.0, float("inf"))}, "mean .* is no number"),
    ],
)
def test_numbers_that_normalise_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ImageInput(**arguments)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"nothing": ImageInput()}, "input 'nothing' takes no images; .*'x' float32"),
        ({"words": ImageInput()}, "input 'words' takes no images"),
        ({"x": 255}, "images holds int for 'x'"),
        ({"x": ImageInput(mean=(0.0, 0.0))}, "mean has 2 numbers for 3 channels"),
    ],
)
def test_inputs_that_take_no_images(images: Any, message: str) -> None:
    proto = model([node("Relu", "x", "y"), node("Identity", "words", "z")],
                  {"x": [1, 3, 4, 4], "words": ("int64", [2])},
                  {"y": None, "z": ("int64", None)})  # fmt: skip
    with pytest.raises(InvalidInputError, match=message):
        InferenceSession(proto, device="reference", images=images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 4, 4, 3), np.float32), "is float32, the model takes uint8"),
        (pixels(1, 3, 4, 4), "size 3 along axis 1, the model takes 4"),
        (pixels(4, 4, 3), "has rank 3"),
    ],
)
def test_feeds_that_are_no_pixels(given: Any, message: str) -> None:
    proto = model([node("Relu", "x", "y")], {"x": [1, 3, 4, 4]}, {"y": None})
    session = InferenceSession(proto, device="reference", images=ImageInput())
    with session, pytest.raises(InvalidInputError, match=message):
        session.run(None, {"x": given})


def test_a_plan_kept_on_disk_takes_images_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("vkconv.plan_cache.WORTH_KEEPING", 0.0)
    proto = model([node("Conv", "x w", "y"), node("Sigmoid", "y", "z")], {"x": [2, 3, 5, 7]},
                  {"z": None}, {"w": floats(40_000, 3, 1, 1)})  # fmt: skip
    data, x = proto.SerializeToString(), pixels(2, 5, 7, 3)
    with InferenceSession(data, images=ImageInput(scale=0.01)) as session:
        wanted = session.run(None, {"x": x})
    for _ in range(100):
        if list(tmp_path.glob("plans/*.vkplan")):
            break
        __import__("time").sleep(0.05)
    with InferenceSession(data) as session:  # another plan: it takes floats
        assert session.get_inputs()[0].type == "tensor(float)"
        given = (x.transpose(0, 3, 1, 2) * np.float32(0.01)).astype(np.float32)
        assert np.allclose(session.run(None, {"x": given})[0], wanted[0], atol=1e-5)
    monkeypatch.setattr("vkconv.loading.read_onnx", lambda *_: pytest.fail("read again"))
    with InferenceSession(data, images=ImageInput(scale=0.01)) as session:
        assert session.get_inputs()[0].shape == [2, 5, 7, 3]
        assert np.array_equal(session.run(None, {"x": x})[0], wanted[0])
        session.set_image_input("x", ImageInput(scale=0.0))
        assert np.all(session.run(None, {"x": x})[0] == 0.5)


def fed_with_pixels(tmp_path: Path, images: Any, **options: Any) -> tuple[Path, np.ndarray, Any]:
    """A plan file, pixels for it, and what the ONNX model makes of them."""
    proto = model([node("Conv", "x w", "y")], {"x": ["n", 3, "h", 7]}, {"y": None},
                  {"w": floats(6, 3, 3, 3)})  # fmt: skip
    path, x = tmp_path / "net.vkplan", pixels(2, 5, 7, 3)
    made = compile_model(proto, str(path), shapes={"x": (2, 3, 5, 7)}, images=images, **options)
    assert made.images == ["x"] and made.inputs == {"x": (2, 5, 7, 3)}
    with InferenceSession(proto, images=images, **options) as session:
        return path, x, session.run(None, {"x": x})[0]


@DEVICES
@pytest.mark.parametrize("image", SPECS, ids=str)
def test_a_plan_file_takes_the_pixels_it_was_compiled_for(
    device: str, image: ImageInput, tmp_path: Path
) -> None:
    path, x, wanted = fed_with_pixels(tmp_path, image, device=device)
    for source in (path, path.read_bytes()):
        with InferenceSession(source, device=device) as session:
            [arg] = session.get_inputs()
            assert (arg.type, arg.shape) == ("tensor(uint8)", [2, 5, 7, 3])
            assert session.image_inputs["x"].shape == [2, 3, 5, 7]
            assert np.array_equal(session.run(None, {"x": x})[0], wanted)
            assert device == "reference" or np.any(wanted)
            with pytest.raises(InvalidInputError, match="is float32, the model takes uint8"):
                session.run(None, {"x": x.astype(np.float32)})


def test_a_session_has_the_last_word_on_a_plan_file_s_numbers(tmp_path: Path) -> None:
    path, x, first = fed_with_pixels(tmp_path, {"x": ImageInput(scale=0.5)})
    for images in (ImageInput(scale=1.0), {"x": ImageInput(scale=1.0)}):
        with InferenceSession(path, images=images) as session:
            (y,) = session.run(None, {"x": x})
            assert np.allclose(y, 2 * first, rtol=1e-5, atol=1e-3)
            session.set_image_input("x", ImageInput(scale=0.5))
            assert np.array_equal(session.run(None, {"x": x})[0], first)
    with InferenceSession(path, images={}) as session:
        assert np.array_equal(session.run(None, {"x": x})[0], first)


def test_plan_files_take_no_other_images(tmp_path: Path) -> None:
    path, _, _ = fed_with_pixels(tmp_path, ImageInput())
    with pytest.raises(InvalidInputError, match=r"'y' takes no images; a plan file takes what"):
        InferenceSession(path, images={"y": ImageInput()})
    proto = model([node("Relu", "x", "y")], {"x": [1, 3, 4, 4]}, {"y": None})
    compile_model(proto, str(path))
    with pytest.raises(InvalidInputError, match="vkconv compile --images"):
        InferenceSession(path, images={"x": ImageInput()})
    with InferenceSession(path, images=ImageInput()) as session:  # as with a model: those that can
        assert not session.image_inputs and session.get_inputs()[0].type == "tensor(float)"
    words = model([node("Relu", "x", "y")], {"x": [1, 5, 4, 4]}, {"y": None})
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=r"no input takes images.*'x' float32"):
        compile_model(words, str(path), images=ImageInput())
    with pytest.raises(InvalidInputError, match="mean has 2 numbers for 3 channels"):
        compile_model(proto, str(path), images=ImageInput(mean=(0.0, 1.0)))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", []), ("scale", 1.0), ("std", [0.0]), ("mean", ["1"]), ("mean", [0.0, 1.0]),
     ("mean", [True]), ("scale", [1e999]), ("scale", [10**400]), ("channel_order", "grb"),
     ("channel_order", None)],
)  # fmt: skip
def test_numbers_of_a_plan_file_that_normalise_nothing(
    key: str, value: Any, tmp_path: Path
) -> None:
    path, _, _ = fed_with_pixels(tmp_path, ImageInput(), device="reference")
    data = roomy(path.read_bytes())
    read_compiled(data)
    tables = tables_of(data)
    tables["body"]["images"][0]["normalisation"][key] = value
    with pytest.raises(InvalidModelError, match="damaged"):
        read_compiled(with_tables(data, tables))
    del tables["body"]["images"][0]["normalisation"]  # as earlier versions wrote it
    assert read_compiled(with_tables(data, tables)).normalisation == {"x": ImageInput()}


def test_a_model_with_more_inputs_is_compiled_for_some_pixels(tmp_path: Path) -> None:
    proto = model([node("Add", "x z", "a"), node("Add", "a b", "y")],
                  {name: [1, 3, 5, 3] for name in "xbz"}, {"y": None})  # fmt: skip
    path = tmp_path / "net.vkplan"
    made = compile_model(proto, str(path), images={"b": ImageInput(scale=2.0), "x": ImageInput()})
    assert sorted(made.images) == ["b", "x"]
    feeds = {"x": pixels(1, 5, 3, 3), "b": pixels(1, 5, 3, 3, seed=1), "z": floats(1, 3, 5, 3)}
    with InferenceSession(path) as session:
        assert [a.name for a in session.get_inputs()] == ["x", "b", "z"]
        (y,) = session.run(None, feeds)
    wanted = normalised(feeds["x"], ImageInput()) + normalised(feeds["b"], ImageInput(scale=2.0))
    assert np.allclose(y, wanted + feeds["z"], rtol=1e-5, atol=1e-3)


def test_the_operator_checks_its_operands() -> None:
    op = ImageToTensor(shape=(1, 3, 2, 2))
    table = Value("t", TensorType("float32", (3, 3)))
    assert op.infer(Value("w", TensorType("int32", (3,))), table) == TensorType(
        "float32", (1, 3, 2, 2)
    )
    with pytest.raises(InvalidModelError, match="do not fit"):
        op.infer(Value("w", TensorType("int32", (4,))), table)
    with pytest.raises(InvalidModelError, match="1 to 4 channels, not 5"):
        ImageToTensor(shape=(1, 5, 2, 2)).infer(Value("w", TensorType("int32", (5,))), table)


def test_the_command_feeds_pixels(tmp_path: Path, capsys: Any) -> None:
    import json

    path = save_model(tmp_path / "model.onnx")
    Image.fromarray(pixels(50, 70, 3)).save(tmp_path / "in.png")
    arguments = ["run", str(path), str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
    trace = tmp_path / "trace.json"
    assert main([*arguments, "--json", "-", "--profile", str(trace)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [d["label"] for d in found["detections"]][:1] == ["cat"]
    kernels = {e.get("cat") for e in json.loads(trace.read_text())["traceEvents"]}
    assert "image_to_tensor" in kernels
