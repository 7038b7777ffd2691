"""ONNX files: they compute the same as PyTorch at any size, and describe themselves."""

import contextlib
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import unetseg
from tests.support import with_card
from unetseg.cli import app
from unetseg.errors import InputError, MachineError
from unetseg.features.encoder_weights import read_encoder_weights
from unetseg.network import unet
from unetseg.prediction import model_file, onnx_export
from unetseg.prediction.model import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """The file of an ensemble of two models, normalised otherwise, and the output of `export`."""
    before, home = Path.cwd(), tmp_path_factory.mktemp("onnx") / "home"
    shutil.copytree(made, home)
    os.chdir(home)
    try:
        with_card("default", "other", mean=(90.0,), std=(40.0,), temperature=1.8)
        out = home / "both.onnx"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            words = ("--model", "default", "--model", "other", "--out", str(out))
            assert app.main(["export", *words]) == 0
    finally:
        os.chdir(before)
    return SimpleNamespace(path=out, printed=printed.getvalue())


@pytest.fixture
def ensemble(exported, monkeypatch):
    """The same ensemble in PyTorch, in the folder that it lies in."""
    monkeypatch.chdir(exported.path.parent)
    return Model(["default", "other"])


def compute(path, image):
    """Return the answer of ONNX Runtime to an image (N, C, H, W)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize("shape", [(1, 1, 64, 56), (3, 1, 37, 5), (2, 1, 32, 129), (1, 1, 1, 1)])
def test_probabilities_are_the_tempered_mean_of_the_networks(exported, ensemble, shape):
    image = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
    shares = 0
    for path, card in zip(ensemble.paths, ensemble.cards, strict=True):
        network, _ = model_file.load_model(path)
        with torch.inference_mode():
            logits = network(torch.from_numpy((image - card.mean[0]) / card.std[0])).numpy()
        shares = shares + np.exp(logits) / np.exp(logits).sum(1, keepdims=True) / 2
    temperature = (ensemble.cards[0].temperature + 1.8) / 2
    powers = np.maximum(shares, 1e-7) ** (1 / temperature)
    found = compute(exported.path, image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-5)


def test_raw_pixels_give_what_predict_gives_in_one_piece(exported, ensemble):
    ensemble = Model(["default", "other"], unetseg.PredictSettings(mode="seamless"))
    image = ensemble.read("data/test/images/im100.png")  # (H, W, C)
    found = compute(exported.path, image.transpose(2, 0, 1)[None].astype(np.float32))[0]
    expected = ensemble.probabilities(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_network_with_a_pretrained_part_is_exported_and_described(home, capsys):
    network = unet.build_network("fused", 1, 3, width=4, depth=2).eval()
    network.pretrained.load_state_dict(read_encoder_weights())
    card = model_file.read_card("runs/default/model.safetensors")
    card = replace(card, network="fused", settings={"width": 4, "depth": 2})
    model_file.write_model("fused.safetensors", network.state_dict(), card)
    assert app.main(["info", "fused.safetensors"]) == 0
    assert "fused (depth 2, width 4)" in capsys.readouterr().out
    unetseg.export_onnx("fused.safetensors", "fused.onnx")
    image = Model("fused.safetensors").read("data/test/images/im100.png")  # (H, W, C)
    found = compute("fused.onnx", image.transpose(2, 0, 1)[None].astype(np.float32))[0]
    whole = Model("fused.safetensors", unetseg.PredictSettings(mode="seamless"))
    np.testing.assert_allclose(found, whole.probabilities(image), atol=1e-4)


def test_the_file_says_what_it_is(exported, ensemble):
    model = onnx.load(exported.path)
    (entry,) = model.metadata_props
    assert entry.key == "unetseg"
    said = json.loads(entry.value)
    card = ensemble.card
    assert said["classes"] == card.classes.to_dict()["classes"]
    expected = {"channels": 1, "dtype": "uint8", "scale": 1.0, "patch_size": 32, "multiple": 4}
    assert {key: said[key] for key in expected} == expected
    assert said["models"] == [one.sha256 for one in ensemble.cards]
    axes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert axes == {
        "image": ["batch", 1, "height", "width"],
        "probabilities": ["batch", 3, "height", "width"],
    }
    assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization"})


def test_the_file_names_no_place_on_this_machine(exported):
    data = exported.path.read_bytes()
    for place in ("site-packages", str(Path(torch.__file__).parent), str(exported.path.parent)):
        assert place.encode() not in data


def test_the_exporter_says_nothing_but_what_was_done(exported):
    lines = exported.printed.splitlines()
    assert lines[0].startswith("writing runs/default")
    assert "batch x 3 x height x width" in exported.printed
    assert lines[-1].startswith(f"Wrote {exported.path}")
    assert "torch" not in exported.printed.replace("PyTorch", "")


def test_a_file_that_computes_something_else_is_not_written(exported, home, monkeypatch):
    import onnx_ir

    monkeypatch.setattr(onnx_export, "_translate", lambda *_: onnx_ir.load(exported.path))
    with pytest.raises(MachineError, match=r"differs from PyTorch by .*not written"):
        unetseg.export_onnx(["default"], "alone.onnx")
    assert not Path("alone.onnx").exists()


def test_a_network_that_says_no_sizes_is_written_for_its_patches(home, monkeypatch):
    convolution = torch.nn.Conv2d(1, 3, 3, padding=1)
    monkeypatch.setitem(unet._BUILT_IN, "compact", lambda *_, **__: convolution)
    card = model_file.read_card("runs/default/model.safetensors")
    model_file.write_model("plain.safetensors", convolution.state_dict(), card)
    done = unetseg.export_onnx(["plain.safetensors"])
    assert done.inputs == ("batch", 1, 32, 32)
    assert done.outputs == ("batch", 3, 32, 32)
    assert compute("model.onnx", np.zeros((2, 1, 32, 32), np.float32)).shape == (2, 3, 32, 32)


def test_a_file_that_is_there_stays(home):
    Path("model.onnx").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        unetseg.export_onnx()
    assert Path("model.onnx").read_text() == "mine"


def test_operators_out_of_range_are_refused(home):
    with pytest.raises(InputError, match="opset: 7 is out of range; 18 to"):
        unetseg.export_onnx(opset=7)


def test_what_is_not_installed_is_named_with_the_line_to_type(home, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(InputError, match=r"needed to write ONNX: onnx; pip install onnx$"):
        unetseg.export_onnx()
