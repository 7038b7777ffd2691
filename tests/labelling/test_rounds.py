"""Rounds of training behind the page, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import VALUES_TOML, wait_until, with_card, write_images, write_set
from unetseg.classes import read_classes
from unetseg.errors import InputError
from unetseg.labelling import rounds
from unetseg.labelling.rounds import Rounds
from unetseg.labelling.starting_model import StartingModel
from unetseg.prediction.model_file import read_card
from unetseg.prediction.run_folder import RunFolder
from unetseg.settings import Selection

PATIENCE = 240  # seconds, for processes at the lowest priority on a slow machine with other work

# A training by these words does an epoch in a blink.
QUICK_WORDS = ["--network", "compact", "--width", "4", "--depth", "2", "--device", "cpu"]
QUICK_WORDS += ["--size", "32", "--per-image", "2"]


@pytest.fixture
def project(empty):
    root = write_set(Path("set"), 4, toml=f"ignore = [255]\n{VALUES_TOML}")
    path = root / "masks" / "im3.png"
    Image.fromarray(np.full((64, 56), 255, np.uint8)).save(path)  # not labelled yet
    return root


class Told:
    """The events of a project's rounds.

    The budget leaves slow processors time to train: they need seconds before the first step.
    """

    def __init__(self, root, budget="12s", run="label", model=None):
        self.states, self.predicted, self.done = [], [], threading.Event()
        images = sorted((root / "images").iterdir())
        home = root / ".unetseg"
        told = self.change, self.predicted.extend
        self.rounds = Rounds(root, images, home, run, budget, *told, model)

    def change(self, state):
        self.states.append(state)
        if state["state"] in ("waiting", "failed"):
            self.done.set()


@pytest.mark.usefixtures("processor_time_of_rounds")
def test_a_round_leaves_a_run_and_predicts_the_next_image(project):
    told = Told(project)
    with closing(told.rounds):
        told.rounds.learn([3])
        assert told.done.wait(PATIENCE)
        states = [(s["state"], s["note"]) for s in told.states]
        assert states == [("training", None), ("predicting", None), ("waiting", None)]
        assert told.predicted == [3]
        assert told.states[0]["next"] is None
        assert told.states[-1]["next"] == "unetseg predict NEWIMAGES --model label"
        assert read_card("runs/label/model.safetensors").images_trained_on == 3
        table = read_classes(project / "classes.toml")
        labels = told.rounds.prediction(3, table)
        assert labels.shape == (64, 56)
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert told.rounds.prediction(0, table) is None
        assert read_card("runs/label/model.safetensors").name == "label"
        assert list(Path("runs").iterdir()) == [Path("runs/label")]
    assert Told(project).rounds.prediction(3, table) is not None  # it is there at the next start


@pytest.mark.usefixtures("processor_time_of_rounds")
def test_a_model_predicts_the_next_images_before_a_round_that_begins_with_its_weights(home):
    root = write_set(Path("set"), 4, toml=f"ignore = [255]\n{VALUES_TOML}")
    model = StartingModel("default")
    model.enter(root / ".unetseg")
    told = Told(root, model=model)
    with closing(told.rounds):
        told.rounds.turn(False)
        told.rounds.expect([3, 0])
        told.rounds.learn([])
        told.rounds.turn(True)
        ends = ["training", "waiting"]
        wait_until(lambda: [s["state"] for s in told.states[-2:]] == ends, PATIENCE)
    states = [state["state"] for state in told.states]
    assert states == ["paused", "predicting", "waiting", "training", "waiting"]
    assert told.predicted == [3, 0]
    assert read_card("runs/label/model.safetensors").network == model.card.network == "compact"


def test_a_round_takes_images_as_the_model_was_trained_on_them(home):
    root = write_set(Path("set"), 1)
    cropped = {"scale": 0.5, "selection": Selection(crop="bottom=4")}
    three = {"channels": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3, "takes_grey": True}
    for name, changes, words in (
        ("cropped", cropped, ["--crop=bottom=4", "--scale=0.5"]),
        ("colours", three, ["--channels=0,0,0"]),
    ):
        with_card("default", name, **changes)
        model = StartingModel(name)
        model.enter(root / ".unetseg")
        with closing(Told(root, model=model).rounds) as rounds:
            assert rounds._start(RunFolder("label")) == [f"--from={model.copies[0]}", *words]
            assert rounds._start(RunFolder("default"))[0] == f"--from={RunFolder('default').model}"


def test_a_model_predicts_where_nothing_is_trained(home):
    root = write_images(Path("set"), 2, channels=1)
    model = StartingModel("default")
    model.enter(home / "set" / ".unetseg")
    images = sorted(root.glob("*.png"))
    predicted = []
    rounds = Rounds(root, images, home, None, "1m", lambda _: None, predicted.extend, model)
    with closing(rounds):
        rounds.learn([1])
        assert model.prediction(images[1]) is None
        rounds.expect([1, 0])
        wait_until(lambda: len(predicted) == 2, PATIENCE)
    assert predicted == [1, 0]
    assert model.prediction(images[1]).shape == (64, 56)


# Python runs it when it starts. After each mask, the process waits for a file of this name.
WAIT_AFTER_MASKS = """
import os, sys, time
if "unetseg.labelling.child" in sys.orig_argv:
    replace = os.replace
    def replace_and_wait(source, target):
        replace(source, target)
        while str(target).endswith(".png") and not os.path.exists("go on"):
            time.sleep(0.01)
    os.replace = replace_and_wait
"""


def test_a_prediction_is_told_while_others_are_on_their_way(home, monkeypatch):
    root = write_images(Path("set"), 3, channels=1)
    model = StartingModel("default")
    model.enter(home / "set" / ".unetseg")
    (home / "sitecustomize.py").write_text(WAIT_AFTER_MASKS)
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=os.pathsep)
    predicted = []
    images = sorted(root.glob("*.png"))
    rounds = Rounds(root, images, home, None, "1m", lambda _: None, predicted.append, model)
    with closing(rounds):
        rounds.expect([2, 0, 1])
        wait_until(lambda: predicted, PATIENCE)
        assert rounds.state()["state"] == "predicting"
        Path("go on").touch()
        wait_until(lambda: rounds.state()["state"] == "waiting", PATIENCE)
    assert predicted[0] == [2]
    assert sorted(number for new in predicted for number in new) == [0, 1, 2]


@pytest.mark.usefixtures("processor_time_of_rounds")
def test_a_round_that_fails_says_why_and_the_next_one_comes(project):
    for mask in (project / "masks").iterdir():
        Image.fromarray(np.full((64, 56), 255, np.uint8)).save(mask)
    told = Told(project)
    with closing(told.rounds):
        told.rounds.learn([])
        assert told.done.wait(PATIENCE)
        assert told.states[-1]["state"] == "failed"
        assert "every pixel of every mask is ignored" in told.states[-1]["note"]
        told.done.clear()
        told.rounds.learn([])
        assert told.done.wait(PATIENCE)
        assert told.states[-1]["round"] == 2


@pytest.mark.usefixtures("processor_time_of_rounds")
def test_closing_ends_a_round_within_a_second(project):
    told = Told(project, budget="5m")
    told.rounds.learn([3])
    child = wait_until(lambda: told.rounds._child)
    begin = time.monotonic()
    told.rounds.close()
    assert time.monotonic() - begin < 2
    assert child.returncode != 0
    assert not Path("runs/label").exists()


def process_state(pid):
    """Return the letter that Linux has for the state of a process; None once it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


@pytest.mark.skipif(sys.platform != "linux", reason="states of processes are read from /proc")
@pytest.mark.usefixtures("processor_time_of_rounds")
def test_training_rests_while_a_stroke_is_answered(project):
    told = Told(project, budget="5m")
    with closing(told.rounds):
        told.rounds.give_way(True)  # nothing is trained yet
        told.rounds.learn([3])
        child = wait_until(lambda: told.rounds._child)
        told.rounds.give_way(True)
        wait_until(lambda: process_state(child.pid) == "T")
        told.rounds.give_way(False)
        wait_until(lambda: process_state(child.pid) in "RS")
        told.rounds.give_way(True)
    assert child.returncode == -signal.SIGKILL


KILLED = """
import os, signal, sys, time
from pathlib import Path
from unetseg.labelling.rounds import Rounds
hangup, rests = sys.argv[1:]
signal.signal(signal.SIGHUP, getattr(signal, hangup))
if rests == "rests later":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])
images = sorted(Path("set/images").iterdir())
args = Path("set"), images, Path("set/.unetseg"), "label", "5m"
rounds = Rounds(*args, lambda _: None, lambda _: None)
rounds.learn([3])
while rounds._child is None:
    time.sleep(0.01)
pid = rounds._child.pid
if rests == "rests":
    rounds.give_way(True)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
if rests == "rests later":
    rounds.give_way(True)
    waiting = lambda: Path(f"/proc/{pid}/status").read_text().partition("ShdPnd:")[2].split()[0]
    while not int(waiting(), 16) >> signal.SIGTSTP - 1 & 1:
        time.sleep(0.01)
print(pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


# Python runs it when it starts: the signal to rest takes effect once the server has gone.
RESTS_LATER = """
import signal
raise_signal = signal.raise_signal
def late(number):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTSTP])
    raise_signal(number)
signal.raise_signal = late
"""


@pytest.mark.skipif(sys.platform != "linux", reason="states of processes are read from /proc")
@pytest.mark.parametrize("rests", ["rests", "rests later", "trains"])
@pytest.mark.parametrize("hangup", ["SIG_DFL", "SIG_IGN"])  # nohup ignores that a terminal closes
def test_training_ends_with_a_server_that_is_killed(project, hangup, rests, tmp_path, monkeypatch):
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(RESTS_LATER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "late"), prepend=os.pathsep)
    line = [sys.executable, "-c", KILLED, hangup, rests]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: process_state(int(done.stdout)) in (None, "Z"), PATIENCE)


def test_a_command_whose_parent_has_gone_saves_its_run_and_stops(project):
    words = ["train", "set", "--run", "r", "--epochs", "100000", "--val", "0", *QUICK_WORDS]
    line = [sys.executable, "-m", "unetseg.labelling.child", *words]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen(line, text=True, **pipes) as child:
        wait_until(lambda: Path("runs/r/last.pt").exists(), PATIENCE)
        _, said = child.communicate(timeout=60)  # closes standard input first
    assert child.returncode == 128 + signal.SIGTERM
    *_, last = said.strip().splitlines()
    said = r"unetseg: error: runs/r: stopped after step \d+ \(epoch \d+\); everything is saved; "
    assert re.fullmatch(f"{said}go on with: unetseg train --resume --run r", last)
    assert RunFolder("runs/r").state() == "interrupted"


def test_standard_input_is_empty_while_the_pipe_is_read_under_another_number():
    code = "import os, sys; from unetseg.labelling.child import take_pipe; pipe = take_pipe(); "
    code += "print([sys.stdin.read(), os.read(pipe, 9), os.read(pipe, 9)], flush=True)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as child:
        said, _ = child.communicate("pipe", timeout=60)
    assert said == "['', b'pipe', b'']\n"


def write_run(path, text):
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(text)


@pytest.mark.parametrize(("kill", "left"), [(0, "first"), (1, "first"), (2, "new")])
def test_a_kill_while_a_run_takes_the_place_of_another_leaves_one_of_them(
    project, monkeypatch, kill, left
):
    run, done, rename = Path("runs/label"), [], Path.rename

    def killed(path, target):
        if len(done) == kill:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with closing(Told(project).rounds) as rounds, monkeypatch.context() as patch:
        apart, before = (rounds._beside(run, kind) for kind in ("next", "before"))
        write_run(apart, "first")
        rounds._replace(run, apart)
        write_run(apart, "new")
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt) if kill < 2 else nullcontext():
            rounds._replace(run, apart)
    with closing(Told(project).rounds) as rounds:
        assert (run / "model.safetensors").read_text() == left
        if kill == 2:
            assert not before.parent.exists()
            write_run(before, "older")  # the kill came while it was removed
            write_run(apart, "newer")
            rounds._replace(run, apart)
            assert (run / "model.safetensors").read_text() == "newer"
            assert not before.parent.exists()


def test_a_round_whose_process_cannot_begin_says_so_and_the_next_one_comes(project, monkeypatch):
    def refused(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    told = Told(project, budget="5m")
    with closing(told.rounds):
        with monkeypatch.context() as patch:
            patch.setattr(rounds.subprocess, "Popen", refused)
            told.rounds.learn([])
            assert told.done.wait(60)
        assert told.states[-1]["state"] == "failed"
        assert "Resource temporarily unavailable" in told.states[-1]["note"]
        told.rounds.learn([])
        wait_until(lambda: told.rounds._child)


def test_a_process_that_ends_is_not_forgotten_while_a_signal_is_sent_to_it(project):
    told = Told(project, budget="5m")
    with closing(told.rounds):
        told.rounds.learn([])
        child = wait_until(lambda: told.rounds._child)
        with told.rounds._wake:  # as where a stroke lets it rest
            child.kill()
            assert not told.done.wait(0.3)  # the round ends after that
            assert told.rounds._child is child
        assert told.done.wait(PATIENCE)
        assert told.rounds._child is None


@pytest.mark.usefixtures("processor_time_of_rounds")
def test_a_pause_stops_a_round_and_what_was_new_is_learned_afterwards(project):
    told = Told(project)
    with closing(told.rounds):
        told.rounds.learn([3])
        told.rounds.turn(False)
        assert told.rounds.state()["state"] == "paused"
        told.rounds.turn(True)
        assert told.done.wait(PATIENCE)
        assert Path("runs/label/model.safetensors").exists()


def test_a_pause_ends_though_there_is_nothing_new_to_learn(project):
    told = Told(project)
    with closing(told.rounds):
        told.rounds.turn(False)
        told.rounds.turn(True)
    assert [(s["on"], s["state"]) for s in told.states] == [(False, "paused"), (True, "waiting")]


def test_a_pause_that_comes_as_a_round_begins_is_the_state_that_stays(project, monkeypatch):
    told, ended = Told(project), threading.Event()
    do_round = told.rounds._do_round

    def paused_first(run, order):
        told.rounds.turn(False)
        do_round(run, order)
        ended.set()

    monkeypatch.setattr(told.rounds, "_do_round", paused_first)
    with closing(told.rounds):
        told.rounds.learn([3])
        assert ended.wait(PATIENCE)
        assert [state["state"] for state in told.states] == ["paused"]
        assert told.rounds._order == (3,)  # it is learned later


def test_a_run_of_another_training_is_not_replaced(project):
    said = "already exists, and belongs to another training; choose another run"
    with closing(Told(project).rounds) as rounds:
        write_run(Path("runs/label"), "made meanwhile")
        with pytest.raises(InputError, match=said):
            rounds._replace(Path("runs/label"), rounds._beside(Path("runs/label"), "next"))
    with pytest.raises(InputError, match=said):
        Told(project)
