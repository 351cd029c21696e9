"""YOLOv7 from a yaml and published names, against the same network written with functions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from tests.converters.checkpoints.wild_weights import Tensor, Weights, nmse, pictures
from tests.converters.checkpoints.wild_yolov7 import ANCHORS, CLASSES, YAML, network
from tests.models.yolov7 import NETS, yaml_of
from vkconv.converters import reparameterize
from vkconv.converters.checkpoints.yolov7 import load_yolov7
from vkconv.converters.checkpoints.yolov7_cfg import read_cfg
from vkconv.converters.checkpoints.yolov7_net import build_yolov7
from vkconv.errors import InvalidModelError

IMAGES = pictures(2, 3, 64, 96)


@cache
def trained() -> tuple[dict[str, Tensor], Tensor]:
    """A state_dict, and the rows it gives for IMAGES."""
    w = Weights(9)
    rows = network(w, IMAGES)
    return w.state, rows


def state() -> dict[str, Tensor]:
    return dict(trained()[0])


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "net.yaml"
    path.write_text(YAML)
    return path


def load(cfg: Path, weights: object):
    path = cfg.with_name("weights.pt")
    torch.save(weights, path)
    return load_yolov7(cfg, path)


def test_every_layer(cfg) -> None:
    loaded = load(cfg, state())
    expected = trained()[1]
    actual = loaded.module(IMAGES)
    assert nmse(actual[..., :4], expected[..., :4]) <= 1e-10
    assert nmse(actual[..., 4:], expected[..., 4:]) <= 1e-10
    assert (loaded.head, loaded.class_count, loaded.outputs) == ("yolov7", CLASSES, ("detections",))
    assert (loaded.size, loaded.size_step) == ((640, 640), 16)
    notes = " ".join(loaded.notes)
    assert "auxiliary half of IAuxDetect" in notes and "layers 18, 19" in notes
    assert not any(part.training for part in loaded.module.modules())


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: {"epoch": 300, "ema": None, "model": s, "optimizer": None},
        lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    ],
)
def test_files_as_training_writes_them(cfg, wrapped) -> None:
    actual = load(cfg, wrapped(state())).module(IMAGES)
    assert actual.dtype == torch.float32
    assert nmse(actual, trained()[1]) <= 1e-10


def test_half_precision(cfg) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state().items()}
    loaded = load(cfg, halves)
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert nmse(loaded.module(IMAGES), trained()[1]) <= 1e-5


def test_anchors_of_the_weights_win(cfg) -> None:
    w = Weights(9)
    fitted = ((11, 12, 17, 33), (35, 66, 70, 50))
    expected = network(w, IMAGES, fitted)
    loaded = load(cfg, w.state)
    assert any("anchors" in note for note in loaded.notes)
    assert nmse(loaded.module(IMAGES), expected) <= 1e-10
    # older files have them in cells only
    del w.state["model.20.anchor_grid"]
    assert nmse(load(cfg, w.state).module(IMAGES), expected) <= 1e-10
    # and a bare state_dict none: the cfg's
    del w.state["model.20.anchors"]
    without = load(cfg, w.state).module
    assert without.detect.anchors == tuple(((a, b), (c, d)) for a, b, c, d in ANCHORS)


def test_classes_of_the_weights_win(cfg) -> None:
    cfg.write_text(YAML.replace("nc: 3", "nc: 80"))
    loaded = load(cfg, state())
    assert loaded.class_count == CLASSES
    assert "the weights have 3 classes, where the cfg says 80" in loaded.notes
    assert nmse(loaded.module(IMAGES), trained()[1]) <= 1e-10


def test_rep_convs_in_deploy_form(cfg, tmp_path) -> None:
    """``rbr_reparam`` instead of branches, the rest as trained."""
    fused = reparameterize(load(cfg, state()).module)
    given = {k: v for k, v in state().items() if ".rbr_" not in k}
    for index in (5, 16):
        prefix = f"model.{index}."
        part = fused.model[index].state_dict()
        assert set(part) == {"rbr_reparam.weight", "rbr_reparam.bias"}
        given |= {prefix + key: value for key, value in part.items()}
    assert nmse(load(cfg, given).module(IMAGES), trained()[1]) <= 1e-10


def test_weights_that_are_fused_altogether(cfg) -> None:
    """What YOLOv7's own fusing leaves: no normalizations, and implicit vectors without effect."""
    fused = reparameterize(load(cfg, state()).module)
    given = {k: v for k, v in fused.state_dict().items() if ".bn." not in k}
    head = {k: v for k, v in state().items() if k.startswith("model.20.")}
    given = {**head, **given}
    for index, width in ((18, 16), (19, 16)):
        given[f"model.{index}.conv.weight"] = torch.zeros(24, width, 3, 3)
        given[f"model.{index}.conv.bias"] = torch.zeros(24)
    loaded = load(cfg, given)
    assert any("fused already" in note for note in loaded.notes)
    assert nmse(loaded.module(IMAGES), trained()[1]) <= 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.3.cv2.bn.bias"), "lack 'model.3.cv2.bn.bias', which"),
        (lambda s: s.pop("model.1.bn.running_var"), "lack 'model.1.bn.running_var'"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("model.16.")],
            "lack 'model.16.rbr_dense.0.weight' and 9 more",
        ),
        (lambda s: s.update({"model.21.conv.weight": torch.ones(1)}), "have 'model.21.conv.weig"),
        (
            lambda s: s.update({"model.4.conv.weight": torch.ones(16, 8, 1, 1)}),
            r"'model.4.conv.weight' has shape \(16, 8, 1, 1\), but the network needs \(16, 16, 1,",
        ),
        (
            lambda s: s.update({"model.4.conv.weight": torch.full((16, 16, 1, 1), torch.nan)}),
            "'model.4.conv.weight' has numbers that are not finite",
        ),
        (
            lambda s: s.update({"model.4.bn.bias": torch.ones(16, dtype=torch.int8)}),
            "'model.4.bn.bias' has type torch.int8",
        ),
        (
            lambda s: s.update({"model.20.anchor_grid": torch.ones(3, 1, 3, 1, 1, 2)}),
            "'model.20.anchor_grid' has shape .* 2 levels of 2 anchors",
        ),
        (
            lambda s: s.update({"model.20.anchor_grid": torch.zeros(2, 1, 2, 1, 1, 2)}),
            "anchors without a size",
        ),
    ],
)
def test_weights_that_do_not_fit(cfg, change, message: str) -> None:
    weights = state()
    change(weights)
    with pytest.raises(InvalidModelError, match=message) as caught:
        load(cfg, weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DownC", "GhostConv", r"layer 3 \(GhostConv\) .* not known; known are Conv, RepConv"),
        ("[-2, 1, RepConv", "[99, 1, RepConv", r"layer 5 .*\(RepConv\) takes its input from 99"),
        ("[-2, 1, RepConv", "[-7, 1, RepConv", "takes its input from -7, but only layers 0 to 4"),
        ("[-1, 1, ReOrg", "[-2, 1, ReOrg", "from -2, but only the picture comes"),
        ("[32, 3, 1]],                 ", "[32, 5, 1]],", "a RepConv has a kernel of 3"),
        ("[16, 3, 1]]", "[sixteen, 3, 1]]", r"layer 1 \(Conv\): argument 1 is 'sixteen'"),
        ("[16, 3, 1]]", "[-16, 3, 1]]", r"layer 1 \(Conv\): argument 1 is -16"),
        ("1, 2, nn.ReLU()", "1, 5, nn.ReLU()", "cannot be in 5 groups"),
        ("nn.ReLU()", "os.system('true')", "the activation .* is not known"),
        ("nn.ReLU()", "__import__('os').system('true')", "not valid yaml|is not known"),
        ("nn.LeakyReLU(0.1)", "nn.LeakyReLU(1e300)", "takes no such number"),
        ("nn.LeakyReLU(0.1)", "nn.ReLU(0.1)", "takes no such number"),
        ("'nearest'", "'area'", "is understood"),
        ("2, 'nearest'", "900, 'nearest'", "argument 2 is 900"),
        ("[-1, -2], 1, Concat, [1]", "[-1, -2], 1, Concat, [2]", "only channels, axis 1"),
        ("[-1, -2], 1, Shortcut", "[-1, -2, -3], 1, Shortcut", "adds two maps, but names 3"),
        ("[[-1, -2], 1, Shortcut, [1]]", "[[-1, 0], 1, Shortcut, [1]]", "does not fit its input"),
        ("[[-1, 6], 1, Concat", "[[-1, 7], 1, Concat", "layer 14 .* does not fit its input"),
        ("[-1, 1, SP, [5]]", "[[-1, -2], 1, SP, [5]]", "reads one map"),
        ("[16, 17, 18, 19]", "[16, 17, 18]", "has 3 inputs, but the cfg has anchors for 2 levels"),
        ("[nc, anchors]", "[nc, [[1, 2]]]", "second argument has to be anchors"),
        ("[-1, 4, Conv, [16", "[-1, 4, Conv, [32", "is repeated, but changes"),
        ("IAuxDetect", "Conv", "has to be one of Detect, IDetect"),
        ("[-1, 1, MP, []],                                              # 7",
         "[[-1], 1, Detect, [nc, anchors]],", "last layer of a cfg, and no other"),
    ],
)  # fmt: skip
def test_cfgs_that_do_not_work(cfg, old: str, new: str, message: str) -> None:
    assert old in YAML
    cfg.write_text(YAML.replace(old, new, 1))
    with pytest.raises(InvalidModelError, match=message) as caught:
        build_yolov7(read_cfg(cfg))
    assert "\n" not in str(caught.value)


def test_a_level_that_is_none(cfg) -> None:
    cfg.write_text(YAML.replace("[12, 1, Conv, [24, 3, 1]]", "[12, 1, Conv, [24, 3, 3]]"))
    with pytest.raises(InvalidModelError, match="no level of a head"):
        build_yolov7(read_cfg(cfg))


def test_deeply_branched_and_large_nets_cost_nothing() -> None:
    """Sizes are only looked at once the weights are there."""
    from vkconv.converters.checkpoints.yolov7_cfg import parse_cfg

    rows = [[-1, 1, "Conv", [65536, 3, 2]] for _ in range(4)]
    head = [[-1, 1, "Detect", ["nc", "anchors"]]]
    cfg = {"nc": 80, "anchors": [[1, 1]], "backbone": rows, "head": head}
    net = build_yolov7(parse_cfg(cfg, "large"))
    assert sum(p.numel() for p in net.parameters()) > 1e11
    assert {p.device.type for p in net.parameters()} == {"meta"}


@pytest.mark.parametrize("name", NETS)
def test_the_published_nets(name: str, tmp_path) -> None:
    """Full depth, thin: every key of a training state_dict has its place."""
    net = NETS[name](classes=4, width=0.125)
    (tmp_path / "net.yaml").write_text(yaml_of(name, 4, 0.125))
    torch.save({"model": net.state_dict()}, tmp_path / "net.pt")
    loaded = load_yolov7(tmp_path / "net.yaml", tmp_path / "net.pt")
    x = pictures(1, 3, 64, 64)
    assert nmse(loaded.module(x), net(x)) <= 1e-14
    assert (loaded.size_step, loaded.notes) == (32, ())


@pytest.mark.parametrize(("name", "parameters"), [("yolov7", 37_622_682), ("yolov7-tiny", 0)])
def test_their_sizes(name: str, parameters: int) -> None:
    """As the paper counts them: 36.9 and 6.2 million, plus what the training form adds."""
    from tests.models.yolov7 import cfg_of
    from vkconv.converters.checkpoints.yolov7_cfg import parse_cfg

    net = build_yolov7(parse_cfg(cfg_of(name), name))
    count = sum(p.numel() for p in net.parameters())
    assert count == parameters or round(count / 1e6, 1) == 6.2
    assert net.detect.strides == (8, 16, 32)
