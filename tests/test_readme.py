"""The README: its Python runs, and its command lines are understood as they stand."""

import importlib
import re
import shlex
from pathlib import Path

import numpy
import pytest

from unetseg.cli.app import BUILT_INS, make_command

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
LINES = sorted(set(re.findall(r"^ {4}(unetseg .+?)(?:  +#.*)?$", README, re.MULTILINE)))
# Files of plug-ins begin with their name; tests/test_plugins.py installs and runs those.
BLOCKS = re.findall(r"^```python[^\n]*\n(?!# unetseg_)(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_understood(line):
    words = shlex.split(line)[1:]
    if words[0] == "--config":
        words = words[2:]
    name, *rest = words
    module, _ = BUILT_INS[name]
    command = make_command(name, getattr(importlib.import_module(module), name))
    command.make_context(name, rest)  # raises on an unknown option or a missing argument


def test_there_are_lines_and_blocks_to_check():
    assert len(LINES) >= 7
    assert len(BLOCKS) >= 2


def test_every_python_example_runs_in_a_folder_that_was_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    # First the one that makes a set, trains and predicts; the others use what it has written.
    for block in sorted(BLOCKS, key=lambda block: "synthesize" not in block):
        exec(compile(block, "README.md", "exec"), names)
    assert names["labels"].shape == names["mask"].shape == (400, 200)
    assert set(numpy.unique(names["mask"])) <= {0, 1, 2}
    assert 0 <= names["found"].scores.mean_iou <= 1


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_every_link_inside_the_repository_leads_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()
