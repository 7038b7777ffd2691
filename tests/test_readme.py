"""The pages: their links lead somewhere, and every command in the README is understood."""

import importlib
import re
import shlex
from pathlib import Path

import numpy
import pytest

from tests.benchmarks.__main__ import NAMES
from unetseg.cli.app import BUILT_INS, make_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LINES = sorted(set(re.findall(r"^ {4}(unetseg .+?)(?:  +#.*)?$", README, re.MULTILINE)))
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PAGES = [
    ROOT / "README.md",
    *(ROOT / ".github").glob("*.md"),
    *(ROOT / "unetseg").glob("*.md"),
    *(ROOT / "tests").rglob("*.md"),
]
LINKS = sorted(
    (page.relative_to(ROOT).as_posix(), target)
    for page in PAGES
    for target in set(re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text("utf-8")))
)


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
    # First the one that makes a set, trains and predicts; the others use its files.
    for block in sorted(BLOCKS, key=lambda block: "synthesize" not in block):
        short = block.replace("n=40", "n=10, n_test=2").replace('budget="2m"', "epochs=1")
        assert short != block or "synthesize" not in block
        exec(compile(short, "README.md", "exec"), names)
    assert names["labels"].shape == names["mask"].shape == (400, 200)
    assert set(numpy.unique(names["mask"])) <= {0, 1, 2}
    assert 0 <= names["found"].scores.mean_iou <= 1


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_every_link_inside_the_repository_leads_somewhere(page, target):
    path, _, heading = target.partition("#")
    found = (ROOT / page).parent / path if path else ROOT / page
    assert found.exists()
    if heading:
        titles = re.findall("^#+ (.+)", found.read_text("utf-8"), re.MULTILINE)
        assert heading in {re.sub("[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in titles}


def test_every_measurement_names_a_benchmark_that_exists_and_each_benchmark_is_named():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    asked = re.findall(r'(?:make\s+bench\s+ARGS=|-m\s+tests\.benchmarks\s+)"?([\w-]+)', text)
    assert set(asked) - {"NAME"} <= set(NAMES)
    quoted = [words.split()[0] for words in re.findall(r'`"([^"`]+)"`', text)]
    assert set(NAMES) <= {*asked, *quoted}
    for name in NAMES:
        assert (ROOT / "tests" / "benchmarks" / f"{name}.py").exists()


def test_the_face_is_short_and_leads_to_every_other_page():
    assert README.count("\n") < 250
    reached = {target.partition("#")[0] for page, target in LINKS if page == "README.md"}
    others = {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md"}
    assert {page for page in others if not page.startswith("tests/old")} <= reached


def test_the_map_of_the_house_has_every_folder_and_no_path_that_is_not_there():
    house = (ROOT / "unetseg" / "README.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `(\w+)/`", house, re.MULTILINE))
    assert rows == {path.parent.name for path in (ROOT / "unetseg").glob("*/__init__.py")}
    for path in re.findall(r"`((?:tests/)?[a-z]+/[a-z_/]*(?:\.py)?|[a-z]+\.py)`", house):
        assert (ROOT / "unetseg" / path).exists() or (ROOT / path).exists(), path
