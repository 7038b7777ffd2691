"""The README: its Python runs, and its command lines are understood as they stand."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from unetseg.cli.app import BUILT_INS, make_command

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
LINES = sorted(set(re.findall(r"^ {4}(unetseg .+?)(?:  +#.*)?$", README, re.MULTILINE)))
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


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
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_example_runs_in_an_empty_folder(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["labels"].shape == (400, 200)
    assert 0 <= names["found"].scores.mean_iou <= 1


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_every_link_inside_the_repository_leads_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()
