import os
import shutil
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
os.environ["UNETSEG_NO_PLUGINS"] = "1"  # also in the processes that tests start

import pytest
import torch

import unetseg
from tests.support import QUICK, write_set

torch.set_num_threads(1)
INSTALLED = set(sys.path)  # where distributions lie that no test has installed


@pytest.fixture(autouse=True)
def plugins_of_this_machine_are_hidden(monkeypatch):
    """Let a test see the plug-ins that it installs alone, once it deletes UNETSEG_NO_PLUGINS."""
    monkeypatch.setattr(
        "unetseg.plugins.distributions",
        lambda path: [] if path[0] in INSTALLED else distributions(path=path),
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder as a person has it after patch and train: data/, runs/default. Copy it, or read."""
    home = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(home)
    try:
        write_set("data/train", 12)
        write_set("data/test", 3, first=100)
        unetseg.build_store(patches=unetseg.PatchSettings(size=32, per_image=4, val=0.25))
        unetseg.train(**{**QUICK, "epochs": 12})
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of `made` of one's own, as the current folder."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def processor_time(monkeypatch):
    """Let the clock of this process run only while it computes: other work slows no test then."""
    monkeypatch.setattr(time, "monotonic", time.process_time)


def pytest_collection_modifyitems(items):
    """Start with the longest: two workers then end at about the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_pipeline.py"))
