"""Checkpoints: exact round trips, the one before the last, and refusals."""

import math
import os
import random
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import same
from unetseg.errors import DivergenceError, InputError, MachineError
from unetseg.prediction.run_folder import previous_path
from unetseg.training.checkpoint import (
    read_checkpoint,
    read_checkpoint_with_fallback,
    read_state,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def state():
    weights = {"first.weight": torch.rand(2, 3, 3, 3), "first.seen": torch.tensor(7)}
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(2, 3, 3, 3)}}
    return {
        "step": 5,
        "network": weights,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "random": torch.get_rng_state(),
        "history": [{"loss": 0.5, "iou": None}, {"loss": math.inf, "iou": True}],
    }


def test_a_checkpoint_is_read_back_bit_by_bit(tmp_path, state):
    write_checkpoint(tmp_path / "last.pt", state)
    assert same(read_checkpoint(tmp_path / "last.pt"), state)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_plain_torch_reads_it_with_weights_only_and_nothing_allowed(tmp_path, state):
    write_checkpoint(tmp_path / "last.pt", state)
    with torch.serialization.safe_globals([]):
        content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert same(content["state"], state)


def test_a_view_is_saved_without_the_memory_around_it(tmp_path):
    large = torch.arange(1_000_000.0)
    write_checkpoint(tmp_path / "last.pt", {"view": large[::1000], "first": large[:10]})
    assert (tmp_path / "last.pt").stat().st_size < 20_000
    read = read_checkpoint(tmp_path / "last.pt")
    assert same(read, {"view": large[::1000].contiguous(), "first": large[:10].clone()})


@pytest.mark.parametrize(
    "value",
    [np.float64(1), np.zeros(2), Path("a"), {1, 2}, {1.5: 1}, object(),
     torch.ones(2).to_sparse(), torch.ones(2, device="meta")],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_a_programming_error_and_keeps_the_old_file(tmp_path, value):
    write_checkpoint(tmp_path / "last.pt", {"a": 1})
    with pytest.raises(TypeError, match=r"state\.a\[0\]"):
        write_checkpoint(tmp_path / "last.pt", {"a": [value]})
    assert read_checkpoint(tmp_path / "last.pt") == {"a": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_tensor_that_is_not_finite_is_not_saved_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"a": torch.ones(2)})
    with pytest.raises(DivergenceError, match=r"last\.pt: state\.b\.c is not finite; not written"):
        write_checkpoint(path, {"b": {"c": torch.tensor([1.0, value])}})
    assert same(read_checkpoint(path), {"a": torch.ones(2)})


def test_an_ordered_dict_becomes_a_dict(tmp_path):
    write_checkpoint(tmp_path / "last.pt", {"a": OrderedDict(x=1)})
    assert type(read_checkpoint(tmp_path / "last.pt")["a"]) is dict


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "last.pt"
    for step in range(4):
        write_checkpoint(path, {"step": step})
        assert read_checkpoint(path) == {"step": step}
        if step:
            assert read_checkpoint(previous_path(path)) == {"step": step - 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-previous.pt", "last.pt"]


def test_it_is_kept_where_hard_links_do_not_exist(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links")

    monkeypatch.setattr(os, "link", refuse)
    for step in range(2):
        write_checkpoint(tmp_path / "last.pt", {"step": step})
    assert read_checkpoint(tmp_path / "last-previous.pt") == {"step": 0}


def test_at_every_failing_step_of_a_save_a_whole_checkpoint_is_left(tmp_path, monkeypatch):
    """Even where the last one is damaged and only the one before it can be read."""
    path = tmp_path / "last.pt"
    for damaged in (False, True):
        for call in ("fsync", "replace"):
            for number in range(1, 5):
                for leftover in tmp_path.iterdir():
                    leftover.unlink()
                for step in range(2):
                    write_checkpoint(path, {"step": step})
                if damaged:
                    path.unlink()
                    path.write_bytes(b"damaged")
                count, original = 0, getattr(os, call)

                def fail(*arguments, at=number, do=original):
                    nonlocal count
                    count += 1
                    if count == at:
                        raise OSError(28, "No space left on device")
                    return do(*arguments)

                with monkeypatch.context() as patch:
                    patch.setattr(os, call, fail)
                    with suppress(MachineError):
                        write_checkpoint(path, {"step": 2})
                state, _, _ = read_checkpoint_with_fallback(path)
                assert state["step"] in ((0, 2) if damaged else (1, 2))
                assert not list(tmp_path.glob(".*"))


def test_every_flipped_bit_of_a_checkpoint_is_noticed_or_changes_nothing(tmp_path, state):
    path = tmp_path / "last.pt"
    write_checkpoint(path, state)
    good = path.read_bytes()
    rng = random.Random(1)
    noticed = 0
    for place in rng.sample(range(len(good)), 60):
        data = bytearray(good)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert same(read_checkpoint(path), state)
        except InputError:
            noticed += 1
    assert noticed > 10


def test_a_truncated_checkpoint_is_refused(tmp_path, state):
    path = tmp_path / "last.pt"
    write_checkpoint(path, state)
    good = path.read_bytes()
    for length in (1, 5, 50, 97, 1000, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(InputError):
            read_checkpoint(path)


def rezip(path, change, **how):
    """Write a zip file again; ``change`` receives the list of (name, content)."""
    with zipfile.ZipFile(path) as archive:
        members = [(n, archive.read(n)) for n in archive.namelist()]
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in change(members) or members:
            archive.writestr(name, data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "how", "words"),
    [
        (lambda m: m, {"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
        (lambda m: [*m, m[-1]], {}, "two members have one name"),
        (lambda m: [*m, ("archive/../x", b"")], {}, "does not belong to a checkpoint"),
        (lambda m: [*m, ("/etc/x", b"")], {}, "does not belong to a checkpoint"),
        (lambda m: [*m, ("archive/code/x.py", b""), ("archive/constants.pkl", b"")], {},
         "TorchScript"),
        (lambda m: [x for x in m if "data.pkl" not in x[0]], {}, "no data.pkl"),
        (lambda m: [x for x in m if "data/0" not in x[0]], {}, "damaged"),
        (lambda m: [*m, *((f"archive/{k:050000}", b"") for k in range(100))], {}, "more members"),
    ],
    ids=["deflated", "twice", "parent", "absolute", "script", "empty", "missing", "many"],
)  # fmt: skip
def test_a_zip_that_torch_did_not_write_is_refused_before_torch_reads_it(
    tmp_path, change, how, words
):
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"a": torch.ones(3)})
    rezip(path, change, **how)
    with pytest.raises(InputError, match=words):
        read_checkpoint(path)


def test_damage_is_named_with_its_member(tmp_path):
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"a": torch.full((100,), 7.0)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 7.0), struct.pack("<f", 8.0), 1))
    with pytest.raises(InputError, match="checksum differs in archive/data/0"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"format": "unetseg-checkpoint", "version": 2, "state": {}}, "checkpoint format 2"),
        ({"format": "unetseg-checkpoint", "version": 1, "state": 5}, "does not write"),
        ({"format": "unetseg-checkpoint", "version": 1,
          "state": {"a": torch.ones(1).expand(10**9)}}, "does not write"),
        ({"format": "unetseg-checkpoint", "version": 1,
          "state": {"a": torch.ones(3).to_sparse()}}, "does not write|damaged"),
        ({"format": "unetseg-checkpoint", "version": 1,
          "state": {"a": torch.ones(3, device="meta")}}, "does not write|damaged"),
        ({"conv.weight": torch.ones(2)}, r"another program.*\(?keys conv\.weight"),
        ([1, 2], "another program"),
    ],
)  # fmt: skip
def test_content_that_unetseg_does_not_write_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(InputError, match=words) as caught:
        read_checkpoint(tmp_path / "last.pt")
    assert "train again" in caught.value.remedy


def test_a_model_given_for_a_checkpoint_gets_the_way_out(made):
    with pytest.raises(InputError, match="give a model to start_from instead"):
        read_checkpoint(made / "runs/default/model.safetensors")


def test_the_older_checkpoint_is_used_with_a_warning_that_names_both(tmp_path):
    path = tmp_path / "last.pt"
    for step in range(2):
        write_checkpoint(path, {"step": step})
    assert read_checkpoint_with_fallback(path) == ({"step": 1}, path, None)
    good = path.read_bytes()
    path.unlink()  # the other name has its own content from here on
    for damage in (good[:-5], b"", None):
        if damage is not None:
            path.write_bytes(damage)
        else:
            path.unlink()
        state, used, warning = read_checkpoint_with_fallback(path)
        assert (state, used) == ({"step": 0}, previous_path(path))
        assert str(path) in warning
        assert str(used) in warning


def test_with_both_bad_the_error_gives_both_reasons(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"hello")
    previous_path(path).write_bytes(b"")
    with pytest.raises(InputError, match=r"text that begins 'hello'.*last-previous\.pt is empty"):
        read_checkpoint_with_fallback(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"position": None}, "position is None, not a table"),
        ({"seconds": math.nan}, "seconds is nan, not a finite number"),
        ({"network": {"head.weight": 3}}, "3 is no tensor"),
        ({"settings": {"epochs": 3}}, r"settings.*(lr|batch_size)"),
        ({"best": {"epoch": 1}}, "best.score is missing"),
        ({"store": "absent"}, "store is missing"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_a_checkpoint_that_a_run_cannot_go_on_from_is_refused_in_one_line(
    made, tmp_path, change, problem
):
    path = tmp_path / "last.pt"
    state = read_checkpoint(made / "runs/default/last.pt")
    read_state(made / "runs/default/last.pt")
    write_checkpoint(path, {k: v for k, v in (state | change).items() if v != "absent"})
    with pytest.raises(InputError, match=problem) as refused:
        read_state(path)
    assert "this unetseg cannot go on from it" in str(refused.value)
    assert "train again with overwrite" in str(refused.value)
    assert "\n" not in str(refused.value)
