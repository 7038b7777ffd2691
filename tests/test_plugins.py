"""Plug-ins: an installed one is a command like any other; a broken one fails alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imageio.v3 import imwrite

from unetseg.cli import app

ROOT = Path(__file__).parents[1]

GOOD = """
from typing import Annotated
import typer
def work(n: Annotated[int, typer.Option("--n", help="How many [x].")] = 1) -> None:
    '''Do the work of [a] plug-in.'''
    typer.echo(f"worked {n}")
"""


def make_plugin(folder, code, *, distribution="plug", name="work", value=None, summary="Plug"):
    """Write what pip would leave of an installed plug-in: one module and its metadata."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: {summary}\n"
    (info / "METADATA").write_text(about)
    (info / "entry_points.txt").write_text(f"[unetseg.commands]\n{name} = {value or module}:work\n")
    return info


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path of this process, and a fresh choice of modules from it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNETSEG_NO_PLUGINS", raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_example_installs_and_counts(tmp_path):
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"  # setuptools leaves build files beside what it builds
    source.mkdir()
    for path in (ROOT / "tests" / "example_plugin").iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    command += ["--no-index", "--no-compile", "--target", target, source]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    mask = np.array([[1, 0, 2, 2], [0, 1, 0, 2], [0, 0, 0, 0], [1, 1, 0, 2]], np.uint8)
    imwrite(tmp_path / "mask.png", mask)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(target)])}
    environment.pop("UNETSEG_NO_PLUGINS", None)

    def unetseg(*args):
        return subprocess.run(
            [sys.executable, "-m", "unetseg", *args],
            env=environment,
            cwd=tmp_path,
            text=True,
            capture_output=True,
        )

    listed = unetseg("--help")
    assert "Count the objects of each class in masks" in listed.stdout
    counted = unetseg("count-objects", "mask.png", "--min-pixels", "2")
    assert counted.stderr == ""
    rows = [line.split() for line in counted.stdout.splitlines() if "mask.png" in line]
    # class 1: two pixels joined by a corner, and two in the last row; class 2: three, and one
    assert rows == [["mask.png", "1", "2", "4"], ["mask.png", "2", "1", "3"]]


def test_a_plugin_is_listed_with_its_summary_and_not_imported(folder, capsys):
    make_plugin(folder, "raise SystemExit('imported')", summary="Does [/red] more")
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "Does [/red] more" in shown.out
    assert "Commands of plug-ins" in shown.out
    assert shown.err == ""


def test_a_plugin_runs_with_options_help_and_settings(folder, capsys):
    make_plugin(folder, GOOD)
    assert app.main(["work", "--n", "3"]) == 0
    assert capsys.readouterr().out == "worked 3\n"
    assert app.main(["work", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Do the work of [a] plug-in." in shown
    assert "How many [x]." in shown
    (folder / "s.toml").write_text("[train]\nlr = 1\n[work]\nn = 7")
    assert app.main(["--config", str(folder / "s.toml"), "work"]) == 0
    assert capsys.readouterr().out == "worked 7\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "not loaded (ModuleNotFoundError: No module named"),
        ("def work(:", "not loaded (SyntaxError: "),
        ("import sys; sys.exit(0)", "not loaded (SystemExit: 0)"),
        ("raise MemoryError", "not loaded (MemoryError)"),
        ("other = 1", "not loaded (AttributeError: module 'plug' has no attribute 'work')"),
        ("work = 3", "plug:work is of type int, no function"),
        ("class work: pass", "plug:work is of type type, no function"),
        ("import typer; work = typer.Typer()", "plug:work is of type Typer, no function"),
        ("def work(x: 'Nothing') -> None: ...", "not usable as a command (NameError: name 'N"),
        ("def work() -> None: 1 / 0", "failed (ZeroDivisionError: division by zero)"),
        ("def work() -> None: import none_such", "failed (ModuleNotFoundError: No module"),
        ("def work() -> None: raise SystemExit('[/red] no')", "failed (SystemExit: [/red] no)"),
    ],
)
def test_a_broken_plugin_names_its_distribution_and_its_reason(folder, capsys, code, reason):
    make_plugin(folder, code)
    assert app.main(["work"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"unetseg: error: plug-in plug: {reason}")
    assert err.count("\n") == 1
    assert app.main(["--help"]) == 0


def test_what_a_plugin_prints_at_import_stays_out_of_the_results(folder, capsys):
    make_plugin(folder, "print('hello')\n" + GOOD)
    assert app.main(["work"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("worked 1\n", "hello\n")


def test_errors_of_ours_raised_by_a_plugin_keep_their_exit_code(folder, capsys):
    code = "from unetseg.errors import InputError\ndef work() -> None: raise InputError('a', 'b')"
    make_plugin(folder, code)
    assert app.main(["work"]) == 2
    assert capsys.readouterr().err == "unetseg: error: a: b\n"


def test_built_in_commands_win(folder, capsys):
    make_plugin(folder, "raise SystemExit(9)", name="synth")
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "Make a synthetic set" in shown.out
    assert shown.err == "unetseg: warning: plug-in plug: 'synth' is a built-in command; left out\n"


def test_of_two_plugins_of_one_name_the_first_by_distribution_runs(folder, capsys):
    make_plugin(folder, GOOD.replace("worked", "second"), distribution="plug-b")
    make_plugin(folder, GOOD.replace("worked", "first"), distribution="plug-a")
    assert app.main(["work"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "first 1\n"
    line = "unetseg: warning: plug-in plug-b: 'work' is already offered by plug-a; left out\n"
    assert shown.err == line


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("entry_points.txt", b"[unetseg.commands]\nno equals sign\n", "not readable"),
        ("entry_points.txt", b"[unetseg.commands]\nwork\xff = plug:work\n", "not readable"),
        ("METADATA", b"Version: 1.0\n", "not readable"),
        ("entry_points.txt", b"[unetseg.commands]\n--work = plug:work\n", "cannot be a command's"),
        ("entry_points.txt", b"[unetseg.commands]\n[/b]\x1b = plug:work\n", "cannot be a comm"),
    ],
)
def test_broken_metadata_costs_one_warning_and_no_other_plugin(
    folder, capsys, file, content, reason
):
    make_plugin(folder, GOOD, distribution="fine", name="fine")
    (make_plugin(folder, GOOD) / file).write_bytes(content)
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert " fine " in shown.out
    assert shown.err.startswith("unetseg: warning: plug-in ")
    assert reason in shown.err
    assert shown.err.count("\n") == 1
    assert "\x1b" not in shown.err


def test_a_variable_leaves_all_plugins_out(folder, capsys, monkeypatch):
    make_plugin(folder, GOOD)
    monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")
    assert app.main(["work"]) == 2
    assert "command 'work': not known" in capsys.readouterr().err


def test_built_in_commands_do_not_even_look_for_plugins(folder, capsys, monkeypatch):
    monkeypatch.setattr("unetseg.cli.plugins.distributions", lambda: pytest.fail("looked"))
    monkeypatch.setattr(app, "BUILT_INS", {"work": ("plug", "Work")})
    make_plugin(folder, GOOD)
    assert app.main(["work"]) == 0
