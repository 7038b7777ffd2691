"""A run's folder: its name, its state, its lock, its history."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

import unetseg
from tests.support import QUICK
from unetseg.errors import InputError, MachineError
from unetseg.prediction.run_folder import (
    RunFolder,
    list_runs,
    read_history,
    resolve_model,
    write_history,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "path", "option"),
    [
        ("default", "runs/default", ""),
        ("wide", "runs/wide", " --run wide"),
        ("runs/wide", "runs/wide", " --run wide"),
        ("elsewhere/wide", "elsewhere/wide", " --run elsewhere/wide"),
        ("far/default", "far/default", " --run far/default"),
        ("./here", "here", " --run ./here"),
        ("two words", "runs/two words", " --run 'two words'"),
    ],
)
def test_a_bare_name_lies_in_runs_and_a_path_where_it_says(empty, name, path, option):
    folder = RunFolder(name)
    assert folder.path == Path(path)
    assert folder.option() == option
    assert folder.resume_line() == f"unetseg train --resume{option}"


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match="run: is empty"):
        RunFolder("")


def test_the_option_printed_leads_back_to_the_folder(empty):
    import shlex

    for name in ("wide", "a b", "x/y", "./here", "it's"):
        folder = RunFolder(name)
        words = shlex.split(folder.option())
        assert RunFolder(words[1]).path == folder.path, name


def test_states(home):
    assert RunFolder("fresh").state() == "new"
    assert RunFolder("default").state() == "finished"
    folder = RunFolder("default")
    folder.model.write_bytes(b"damaged")
    assert folder.state() == "interrupted"
    folder.model.unlink()
    assert folder.state() == "interrupted"
    folder.checkpoint.unlink()
    assert folder.state() == "new"


def test_clearing_removes_what_a_run_writes_and_nothing_else(home):
    folder = RunFolder("default")
    (folder.path / "notes.txt").write_text("mine")
    folder.events.mkdir(exist_ok=True)
    (folder.events / "events.out.tfevents.1.host").write_bytes(b"")
    folder.clear(keep=folder.config)
    assert {p.name for p in folder.path.iterdir()} == {"notes.txt", ".lock", "config.toml"}


def test_one_process_holds_a_folder_and_the_next_is_told_which(empty):
    folder = RunFolder("busy")
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()
        with pytest.raises(MachineError, match=rf"in use by process {os.getpid()} on "):
            folder.locked().__enter__()
    with folder.locked():  # free again
        pass
    assert not folder.is_locked()


def test_the_lock_ends_with_its_process(empty):
    code = (
        "import os; from unetseg.prediction.run_folder import RunFolder; "
        "held = RunFolder('busy').locked(); held.__enter__(); "
        "os._exit(9)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 9
    holder = Path("runs/busy/.holder")
    assert holder.read_text().startswith("process ")
    with RunFolder("busy").locked():
        assert holder.read_text().startswith(f"process {os.getpid()} on ")
    assert not holder.exists()


def test_a_file_where_the_folder_is_due_is_said(empty):
    Path("runs").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is due"):
        RunFolder("x").locked().__enter__()


def test_history_keeps_numbers_and_gaps(empty):
    rows = [{"epoch": 1, "loss": 0.123456789, "iou": None}, {"epoch": 2, "loss": 1e-7, "iou": 0.5}]
    write_history(Path("h.csv"), rows)
    assert Path("h.csv").read_text() == "epoch,loss,iou\n1,0.123457,\n2,1e-07,0.5\n"
    assert read_history(Path("h.csv"))[0] == {"epoch": "1", "loss": "0.123457", "iou": ""}


def test_runs_are_listed_with_their_state(home):
    unetseg.train(run="also", **{**QUICK, "epochs": 1})
    Path("runs/nothing").mkdir()
    RunFolder("default").model.write_bytes(b"damaged")
    found = {r.name: r for r in list_runs()}
    assert {name: r.state for name, r in found.items()} == {
        "also": "finished",
        "default": "interrupted",
    }
    assert found["also"].card.name == "also"
    assert found["also"].seconds > 0
    assert found["default"].card is None


def test_a_look_at_a_run_keeps_no_train_from_starting(empty):
    folder = RunFolder("busy")
    with folder.locked():
        pass
    looking = filelock.FileLock(folder.path / ".lock", thread_local=False)
    looking.acquire()
    timer = threading.Timer(0.05, looking.release)
    timer.start()
    with folder.locked():
        assert folder.is_locked()
    timer.join()


def test_a_process_that_has_just_taken_a_folder_is_named_as_soon_as_it_says_who_it_is(empty):
    folder = RunFolder("busy")
    with folder.locked():
        pass
    holder = (folder.path / ".holder").absolute()
    timer = threading.Timer(0.5, holder.write_text, ["process 7 on a slow disk"])
    with filelock.FileLock(folder.path / ".lock"):
        timer.start()
        with pytest.raises(MachineError, match="in use by process 7 on a slow disk"):
            folder.locked().__enter__()
    timer.join()


def test_looking_at_a_run_leaves_nothing_behind(empty):
    assert not RunFolder("nope").is_locked()
    assert not Path("runs").exists()


def test_a_lock_that_may_not_be_taken_is_judged_by_its_holder(empty, monkeypatch):
    folder = RunFolder("theirs")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with folder.locked(), monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", refuse)
        assert folder.is_locked()
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", refuse)
        assert not folder.is_locked()


def test_a_run_that_cannot_be_looked_at_does_not_hide_the_others(home, monkeypatch):
    Path("runs/strange").mkdir()
    state = RunFolder.state

    def refuse(folder):
        if folder.name == "strange":
            raise MachineError(folder.path, "no permission to read")
        return state(folder)

    monkeypatch.setattr(RunFolder, "state", refuse)
    assert {r.name: r.state for r in list_runs()} == {
        "default": "finished",
        "strange": "unreadable",
    }


# --- finding a model -----------------------------------------------------------------------


def test_a_name_stands_for_a_file_a_folder_or_a_run(empty):
    for folder in ("runs/a", "runs/cv/fold-10", "runs/cv/fold-2", "else/b"):
        Path(folder).mkdir(parents=True)
        Path(folder, "model.safetensors").touch()
    Path("runs/started").mkdir()
    assert resolve_model("a") == [Path("runs/a/model.safetensors")]
    assert resolve_model("runs/a") == [Path("runs/a/model.safetensors")]
    assert resolve_model("else/b") == [Path("else/b/model.safetensors")]
    assert resolve_model("else/b/model.safetensors") == [Path("else/b/model.safetensors")]
    assert resolve_model("cv") == [
        Path("runs/cv/fold-2/model.safetensors"),
        Path("runs/cv/fold-10/model.safetensors"),
    ]
    for name in ("nothing", "started"):
        with pytest.raises(InputError, match=f"{name}: no model of this name; runs there are: a"):
            resolve_model(name)


def test_without_any_run_the_next_step_is_to_train(empty):
    with pytest.raises(InputError, match=r"call unetseg.train first"):
        resolve_model("default")
