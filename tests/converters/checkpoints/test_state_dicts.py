"""Weights files: which are read, and that nothing in them is run or believed."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vkconv.converters.checkpoints.state_dicts import fill, read_state_dict
from vkconv.errors import InvalidInputError, InvalidModelError


class Marker:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def saved(tmp_path: Path, value: object, **how: object) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(value, path, **how)
    return path


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_plain_state_dict(tmp_path, legacy: bool) -> None:
    state = net().state_dict()
    path = saved(tmp_path, state, _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: {"ema": s, "model": {}},
        lambda s: {"epoch": 1, "model": s, "ema": None},
        lambda s: {"state_dict": s, "meta": {"classes": ("a", "b")}},
        lambda s: {"model": {"module": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {**s, "epoch": 3, "name": "x"},
        lambda s: OrderedDict((k, nn.Parameter(v, False)) for k, v in s.items()),
    ],
)
def test_what_is_around_it(tmp_path, wrapped) -> None:
    state = net().state_dict()
    found = read_state_dict(saved(tmp_path, wrapped(state)))
    assert list(found) == list(state)


def test_code_is_never_run(tmp_path) -> None:
    marker = tmp_path / "ran"
    for value in (Marker(marker), {"model": Marker(marker)}, {"a.weight": Marker(marker)}):
        path = saved(tmp_path, value)
        with pytest.raises(InvalidModelError, match=r"Python object \(posix.system\)"):
            read_state_dict(path)
    with open(tmp_path / "weights.pt", "wb") as file:
        pickle.dump(Marker(marker), file)
    with pytest.raises(InvalidModelError):
        read_state_dict(tmp_path / "weights.pt")
    assert not marker.exists()


def test_a_pickled_model_is_told_how_to_be_saved(tmp_path) -> None:
    path = saved(tmp_path, {"model": net(), "epoch": 1})
    with pytest.raises(InvalidModelError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert "torch.nn.modules.container.Sequential" in message and "\n" not in message
    # what the message says works
    code = message[message.index("import torch") :]
    folder = os.getcwd()
    try:
        os.chdir(tmp_path)
        exec(code, {})
    finally:
        os.chdir(folder)
    assert list(read_state_dict(tmp_path / "weights_state.pt")) == list(net().state_dict())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epoch": 1}, "hold no state_dict"),
        ({}, "hold no state_dict"),
        ([1, 2], "hold no state_dict"),
        (torch.ones(3), "hold no state_dict"),
        ({"model": {"model": {"model": {"model": {"model": {"a": torch.ones(1)}}}}}}, "hold no"),
        ({1: torch.ones(1)}, "no text"),
        ({"a": torch.ones(2, 2).to_sparse()}, "no plain tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "no plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "no plain tensor"),
        ({"a": torch.ones(1).expand(10**9)}, "larger than its numbers"),
        ({"a": torch.ones(1).expand(10**6, 10**6)}, "larger than its numbers"),
    ],
)
def test_what_holds_no_weights(tmp_path, value: object, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        read_state_dict(saved(tmp_path, value))


def test_numbers_may_be_shared_but_not_without_end(tmp_path) -> None:
    one = torch.ones(1000)
    assert len(read_state_dict(saved(tmp_path, {f"a{i}": one for i in range(3)}))) == 3
    with pytest.raises(InvalidModelError, match="more than they may"):
        read_state_dict(saved(tmp_path, {f"a{i}": one for i in range(100)}))


def test_files_that_are_none(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="no such file"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(InvalidInputError, match="not a file"):
        read_state_dict(tmp_path)
    path = tmp_path / "weights.pt"
    whole = io.BytesIO()
    torch.save(net().state_dict(), whole)
    contents = [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"hello", bytes(range(256)) * 40]
    contents += [whole.getvalue()[:400], whole.getvalue()[:-30]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InvalidModelError) as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value) and "weights.pt" in str(caught.value)


def test_damage_anywhere_is_one_clear_line(tmp_path) -> None:
    """Bytes of a good file changed at random: read all the same, or refused."""
    whole = io.BytesIO()
    torch.save({"model": net().state_dict()}, whole)
    good = np.frombuffer(whole.getvalue(), np.uint8)
    random = np.random.default_rng(0)
    path = tmp_path / "weights.pt"
    refused = 0
    for _ in range(150):
        bad = good.copy()
        places = random.integers(0, len(bad), 8)
        bad[places] = random.integers(0, 256, 8)
        path.write_bytes(bad.tobytes())
        # any other exception is a fault
        with suppress(InvalidModelError):
            read_state_dict(path)
            refused -= 1
        refused += 1
    assert refused > 20


def test_archives_that_unpack_to_more(tmp_path) -> None:
    path = saved(tmp_path, net().state_dict())
    packed = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidModelError, match="unpack to more"):
        read_state_dict(packed)


def test_other_archives(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(InvalidModelError):
        read_state_dict(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(InvalidModelError):
        read_state_dict(path)


def test_filling_takes_no_second_copy() -> None:
    """A float32 tensor becomes the parameter itself; the module need not have memory."""
    state = net().state_dict()
    with torch.device("meta"):
        module = net().eval()
    fill(module, state, "x.pt")
    assert module[0].weight.data_ptr() == state["0.weight"].data_ptr()
    assert not any(p.requires_grad for p in module.parameters())
    x = torch.rand(1, 3, 4, 4)
    other = net().eval()
    other.load_state_dict(state)
    assert torch.equal(module(x), other(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), "lack '0.bias', which"),
        (lambda s: s.update(a=torch.ones(1), b=torch.ones(1)), "have 'a' and 1 more, for which"),
        (lambda s: s.update({"0.bias": torch.ones(5)}), r"'0.bias' has shape \(5,\).* \(4,\)"),
        (lambda s: s.update({"0.bias": torch.ones(4).bool()}), "torch.bool"),
        (lambda s: s.update({"0.bias": torch.full((4,), torch.inf)}), "not finite"),
        (lambda s: s.update({"0.bias": torch.ones(4).double() * 1e300}), "not finite"),
    ],
)
def test_what_does_not_fit(change, message: str) -> None:
    state = net().state_dict()
    change(state)
    with pytest.raises(InvalidModelError, match=message):
        fill(net(), state, "x.pt", unused=["c"])


def test_what_may_be_missing_or_left_over() -> None:
    state = net().state_dict()
    del state["1.num_batches_tracked"]
    state["c"] = torch.ones(1)
    fill(net(), state, "x.pt", unused=["c"])
