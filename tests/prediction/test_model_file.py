"""Model files: exact round trips, and refusals."""

import io
import json
import math
import os
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from tests.support import same
from unetseg.classes import table_of
from unetseg.errors import DivergenceError, InputError
from unetseg.network.unet import build_network
from unetseg.prediction import model_file
from unetseg.prediction.model_file import (
    ModelCard,
    ModelSource,
    change_classes,
    load_model,
    read_card,
    write_model,
)
from unetseg.training.checkpoint import read_checkpoint

CARD = ModelCard(
    network="compact", settings={"width": 2, "depth": 1}, channels=3,
    classes=table_of([0, 128, 255], ignore=(7,)), mean=(1.5, 2.5, 3.5), std=(1.0, 2.0, 0.1),
    dtype="uint8", scale=0.5, patch_size=96, symmetries=("hflip", "turn"),
    scores={"mean_iou": 0.75, "iou": {"0": None}}, name="default", store="data/\udc80.h5",
    store_hash="ab" * 32, sources=(ModelSource("ü\x1b.png", "0" * 64, "train"),),
    trained="2026-01-02T03:04:05+00:00", patches_seen=2**40, temperature=1.25,
    versions={"torch": torch.__version__},
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("compact", 3, 3, width=2, depth=1)


@pytest.fixture
def model(tmp_path, network):
    write_model(tmp_path / "model.safetensors", network.state_dict(), CARD)
    return tmp_path / "model.safetensors"


def test_a_model_is_read_back_bit_by_bit_in_evaluation_mode(model, network):
    loaded, card = load_model(model)
    assert card == replace(CARD, sha256=card.sha256)
    assert len(card.sha256) == 64
    assert same(dict(loaded.state_dict()), dict(network.state_dict()))
    assert not loaded.training


def test_the_card_alone_is_the_same(model):
    assert read_card(model) == load_model(model)[1]


def test_looks_are_kept_and_a_model_without_any_is_read(model, network):
    seen = replace(CARD, looks={"images": 9, "least": {"mean": [0.5]}})
    write_model(model, network.state_dict(), seen)
    assert load_model(model)[1].looks == seen.looks
    with_card(model, network, {"looks": "absent"})
    assert load_model(model)[1].looks == {}


def test_equal_weights_and_card_give_equal_bytes_and_hash(model, network, tmp_path):
    again = write_model(tmp_path / "b", network.state_dict(), CARD)
    assert (tmp_path / "b").read_bytes() == model.read_bytes()
    assert again.sha256 == read_card(model).sha256
    other = write_model(tmp_path / "c", network.state_dict(), replace(CARD, patches_seen=1))
    assert other.sha256 != again.sha256


def test_safetensors_itself_reads_the_weights_and_finds_one_metadata_text(model, network):
    with safetensors.safe_open(model, "pt") as file:
        assert set(file.metadata()) == {"unetseg"}
        card = json.loads(file.metadata()["unetseg"])
        assert same({k: file.get_tensor(k) for k in file.keys()}, dict(network.state_dict()))  # noqa: SIM118
    assert list(card) == sorted(card)
    assert card["classes"]["ignore"] == [7]
    assert card["scores"] == {"mean_iou": 0.75, "iou": {"0": None}}


def test_a_header_that_no_reader_would_take_is_not_written(model, network, monkeypatch):
    before = model.read_bytes()
    monkeypatch.setattr(model_file, "_MAX_HEADER", 1000)
    with pytest.raises(InputError, match="images are more than a model can name"):
        write_model(model, network.state_dict(), CARD)
    assert model.read_bytes() == before


def test_half_precision_strided_and_shared_weights_are_written_plain(tmp_path, network):
    state = {k: v.clone() for k, v in network.state_dict().items()}
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
    state = {
        k: v.half().to(memory_format=torch.channels_last) if v.ndim == 4 else v
        for k, v in expected.items()
    }
    write_model(tmp_path / "m", state, CARD)
    assert same(dict(load_model(tmp_path / "m")[0].state_dict()), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_written_and_the_old_model_stays(model, network, value):
    before = model.read_bytes()
    state = dict(network.state_dict())
    state["head.bias"] = torch.tensor([1.0, value, 1.0])
    with pytest.raises(DivergenceError, match=r"head\.bias are not finite"):
        write_model(model, state, CARD)
    assert model.read_bytes() == before


def test_every_flipped_bit_of_a_model_is_noticed_or_changes_nothing(model, network):
    good, card = model.read_bytes(), read_card(model)
    rng = random.Random(1)
    header = 8 + int.from_bytes(good[:8], "little")
    noticed = 0
    for place in [*rng.sample(range(header), 30), *rng.sample(range(header, len(good)), 30)]:
        data = bytearray(good)
        data[place] ^= 1 << rng.randrange(8)
        model.write_bytes(data)
        try:
            loaded, found = load_model(model)
        except InputError:
            noticed += 1
            continue
        assert found == card
        assert same(dict(loaded.state_dict()), dict(network.state_dict()))
    assert noticed >= 55


def test_a_truncated_model_is_refused(model):
    good = model.read_bytes()
    for length in (1, 7, 8, 9, 300, len(good) // 2, len(good) - 1):
        model.write_bytes(good[:length])
        with pytest.raises(InputError):
            load_model(model)


def with_header(path, change):
    """Rewrite the JSON header of a safetensors file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def with_card(path, weights, changes):
    """Write a model whose card is forged and whose checksum fits."""
    data = json.loads(CARD.to_json()) | changes
    data = {k: v for k, v in data.items() if v != "absent"}
    tensors = {k: v.contiguous() for k, v in weights.state_dict().items()}
    arrays = [
        model_file._Array(k, "F32" if t.is_floating_point() else "I64", tuple(t.shape), 0, 0)
        for k, t in tensors.items()
    ]
    data["sha256"] = model_file._digest(data, arrays, lambda k: tensors[k].numpy().tobytes())
    path.write_bytes(safetensors.torch.save(tensors, {"unetseg": json.dumps(data)}))


def test_a_forger_without_changes_would_be_believed(model, network):
    with_card(model, network, {})
    assert load_model(model)[1] == replace(CARD, sha256=read_card(model).sha256)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "format 2; this unetseg reads up to 1"),
        ({"format": "x"}, "no card"),
        ({"channels": 0}, "channels is 0, not at least 1"),
        ({"channels": True}, "channels is True, not a whole number"),
        ({"channels": 4}, "mean or std of other length"),
        ({"classes": table_of([0, 1]).to_dict()}, r"head\.\w+ is F32 \(3"),
        ({"classes": {"classes": [], "ignore": []}}, "0 found"),
        ({"classes": -1}, "not a class table"),
        ({"mean": ["a", 1, 1]}, "mean.0 is 'a', not a finite number"),
        ({"mean": 3}, "mean is 3, not a list"),
        ({"std": [1.0, 0.0, 1.0]}, "std.1 is 0.0, not above 0"),
        ({"std": [1.0, 10**400, 1.0]}, "std.1 is 10+, not a finite number"),
        ({"scale": -1.0}, "scale is -1.0, not above 0"),
        ({"patch_size": 2**31}, "patch_size is 2147483648, not at most 65536"),
        ({"patches_seen": 1.5}, "patches_seen is 1.5, not a whole number"),
        ({"settings": [1]}, r"settings is \[1\], not a table"),
        ({"versions": None}, "versions is None, not a table"),
        ({"looks": [1]}, r"looks is \[1\], not a table"),
        (
            {"sources": [{"name": 1, "sha256": "", "split": "val"}]},
            "0.name is 1, not a text",
        ),
        (
            {"sources": [{"name": "a", "sha256": "", "split": "test"}]},
            "0.split is 'test', not",
        ),
        ({"network": "absent"}, "network is missing"),
        ({"network": "\x1b[31m"}, r"\\x1b"),
        ({"settings": {"width": 2, "depth": 1, "unknown": 1}}, "settings"),
        ({"settings": {"width": 10**9, "depth": 1}}, "width"),
        ({"settings": {"width": 4, "depth": 1}}, "where the network has"),
        ({"settings": {"name": "x"}}, "cannot be built"),
        ({"dtype": "float64"}, "images of 'float64'"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_in_one_line(model, network, changes, words):
    with_card(model, network, changes)
    with pytest.raises(InputError, match=words) as caught:
        load_model(model)
    assert str(caught.value).startswith(str(model))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["head.bias"].update(data_offsets=[0, 12]), "does not lie where it should"),
        (lambda h: h["head.bias"].update(shape=[4]), "does not lie where it should"),
        (lambda h: h["head.bias"].update(shape=[-3]), "is of type"),
        (lambda h: h["head.bias"].update(dtype="F64"), "is of type F64"),
        (lambda h: h["head.bias"].update(data_offsets=["a", "b"]), "header is damaged"),
        (lambda h: h.pop("head.bias"), "does not lie where|bytes where"),
        (lambda h: h.update(new=h["head.bias"]), "does not lie where it should"),
        (lambda h: h.update(new={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
         "new is F32 .0,. where the network has nothing"),
        (lambda h: h.update(renamed=h.pop("head.bias")), "is nothing where the network has"),
        (lambda h: h.pop("__metadata__"), "a safetensors file of another program"),
        (lambda h: h.update(__metadata__=[]), "header is damaged"),
        (lambda h: h.update(__metadata__={"unetseg": 5}), "not readable"),
        (lambda h: h.update(__metadata__={"unetseg": "[" * 100_000}), "not readable"),
        (lambda h: h["__metadata__"].update(unetseg=h["__metadata__"]["unetseg"].replace(
            '"patches_seen":1099511627776', '"patches_seen":1')), "checksum differs"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_refused(model, change, words):
    with_header(model, change)
    with pytest.raises(InputError, match=words):
        load_model(model)


def test_stored_weights_that_are_not_finite_are_refused(model, network, monkeypatch):
    state = dict(network.state_dict()) | {"head.bias": torch.tensor([0.0, math.nan, 0.0])}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "isfinite", torch.ones_like)
        write_model(model, state, CARD)
    with pytest.raises(InputError, match=r"head\.bias are not finite"):
        load_model(model)


class Payload:
    """The code that a pickle runs when it is read: it makes a file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def files_of_others(folder):
    """Return the files of other programs, each with the words that name it."""
    canary = folder / "canary"
    made = {}

    def make(name, data, words):
        (folder / name).write_bytes(data)
        made[folder / name] = words

    def saved(value, **how):
        buffer = io.BytesIO()
        torch.save(value, buffer, **how)
        return buffer.getvalue()

    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(canary)], object), allow_pickle=True)
    make("empty", b"", "is empty")
    make("text", b"hello world", "text that begins 'hello")
    make("png", b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image")
    make("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file")
    make("pickle", pickle.dumps(Payload(canary)), "a Python pickle")
    make("npy", buffer.getvalue(), "a NumPy array")
    make("legacy", saved(Payload(canary), _use_new_zipfile_serialization=False), "a Python pickle")
    make("payload.pt", saved({"format": Payload(canary)}), "holds code|zip archive")
    make("other.pt", saved({"state_dict": 1}), "another program|zip archive")
    make("header", (200 << 20).to_bytes(8, "little") + b'{"' + bytes(99), "header|a safetensors")
    assert not canary.exists()
    return made, canary


@pytest.mark.parametrize("read", [load_model, read_card, read_checkpoint])
def test_files_of_other_programs_are_named_and_their_code_never_runs(tmp_path, read):
    made, canary = files_of_others(tmp_path)
    for path, words in made.items():
        with pytest.raises(InputError, match=words):
            read(path)
    assert not canary.exists()
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(InputError, match="not found"):
        read(tmp_path / "missing")


def test_the_colours_of_a_model_whose_masks_are_colours_stay(tmp_path, network):
    path = tmp_path / "m"
    classes = table_of(["#000000", "#00ff00", "#ff0000"])
    write_model(path, network.state_dict(), replace(CARD, classes=classes))
    with pytest.raises(InputError, match="its masks are colours"):
        change_classes(path, [], ["#00ff00=#0000ff"])
    assert change_classes(path, ["#00ff00=block"], []).classes.names[1] == "block"
