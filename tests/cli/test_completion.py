"""Shell completion: the answers to a shell, and that a real bash takes them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unetseg import settings
from unetseg.cli import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def complete(monkeypatch, capsys):
    """Return a function from a line typed so far to the answer to bash or another shell."""

    def ask(line, shell="bash"):
        monkeypatch.setenv("_UNETSEG_COMPLETE", f"complete_{shell}")
        words = line.split(" ")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        assert app.main([]) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out.split() if shell == "bash" else shown.out

    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("unetseg tr", ["train"]),
        ("unetseg sus", ["suspects"]),
        ("unetseg --ver", ["--version"]),
        ("unetseg train --epo", ["--epochs"]),
        ("unetseg train --loss ", list(settings.LOSSES)),
        ("unetseg train --loss weighted", ["weighted-ce", "weighted-ce+dice"]),
        ("unetseg train --network ", list(settings.NETWORKS)),
        ("unetseg train --augment s", ["strong"]),
        ("unetseg train --optimizer a", ["adamw"]),
        ("unetseg train --schedule ", list(settings.SCHEDULES)),
        ("unetseg train --symmetries v", ["vflip"]),
        ("unetseg predict x.png --device c", ["cpu", "cuda"]),
        ("unetseg predict x.png --mode s", ["seamless"]),
        ("unetseg predict x.png --weights u", ["uniform"]),
        ("unetseg --config none.toml train --lr", ["--lr"]),
        ("unetseg predict im", []),  # bash then offers files
        ("unetseg nonsense --x", []),
    ],
)
def test_commands_options_and_values_are_offered(empty, complete, line, offered):
    assert complete(line) == offered


@pytest.mark.parametrize("option", ["train --run", "train --from", "predict x --model"])
def test_runs_are_offered_by_their_names(empty, complete, option):
    assert complete(f"unetseg {option} ") == []
    for run in ("wide", "wider", "other"):
        Path("runs", run).mkdir(parents=True)
    assert complete(f"unetseg {option} wid") == ["wide", "wider"]


def test_zsh_and_fish_are_told_in_their_own_words(empty, complete):
    assert complete("unetseg train --optimizer ", "zsh") == (
        '_arguments \'*: :(("muon"\n"adamw"\n"sgd"))\'\n'
    )
    assert complete("unetseg train --epo", "fish") == "--epochs\tPasses over all patches.\n"


def test_a_completion_imports_neither_torch_nor_numpy():
    script = (
        "import sys; from unetseg.cli.app import main; assert main([]) == 0; "
        "print(sorted({'torch', 'numpy', 'PIL', 'h5py'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "_UNETSEG_COMPLETE": "complete_bash"}
    env |= {"COMP_WORDS": "unetseg train --loss d", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("dice\n[]\n", "")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes_after_installing_as_the_readme_says(tmp_path):
    program = tmp_path / "unetseg"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m unetseg "$@"\n')
    program.chmod(0o755)
    script = (
        "unetseg --install-completion >&2\n. ~/.bashrc\nCOMP_WORDS=(unetseg train --op)\n"
        'COMP_CWORD=2\n_unetseg_completion unetseg\necho "${COMPREPLY[@]}"\n'
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "--optimizer\n", done.stderr
    assert "bash completion installed" in done.stderr
