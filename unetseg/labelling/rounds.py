"""The dense network behind the page: it learns in rounds, in a process of its own, at low priority.

A round trains on all strokes and accepted masks for the time of its budget, beginning with the
weights of the round before. Then it predicts the images that come next, by a network that never saw
a stroke on them. Training and prediction are the commands `train` and `predict`; a round that fails
or is stopped leaves the model of the round before. No process outlives the server.

A model that the project begins with predicts images before the first round, in the same process and
by the same command. The first round begins with its weights.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.classes import ClassTable
from unetseg.dataset.naming import stem_of
from unetseg.errors import InputError, UnetsegError, arg
from unetseg.labelling.starting_model import StartingModel
from unetseg.pictures import masks
from unetseg.pictures.reading import read_info, read_mask
from unetseg.prediction.model_file import read_card
from unetseg.prediction.run_folder import RunFolder
from unetseg.settings import parse_duration

_PREDICTED, _MARKER = "network", "run"
_AT_ONCE = 12  # images predicted after a round
_LOOK = 0.5  # seconds between two looks whether there are new predictions
_NICE = 19  # the lowest priority, which leaves a stroke all it needs
_FLAGS = 0
if sys.platform == "win32":  # the same priority there, and no Ctrl-C
    _FLAGS = subprocess.IDLE_PRIORITY_CLASS | subprocess.CREATE_NEW_PROCESS_GROUP


def predict_line(run: RunFolder) -> str | None:
    """Return the command line that predicts images by the model of a run, if it has one."""
    return f"unetseg predict NEWIMAGES{run.option('--model')}" if run.model.exists() else None


class Rounds:
    """Trains again and again as labels come in; a thread of its own waits for the processes.

    The model that the project begins with predicts the images that come next before a round begins.
    It predicts further ones while there is nothing new to learn from.

    Args:
        folder: The folder of labelled images.
        images: The image files, by number.
        home: The folder of the project's state, where predictions lie.
        run: The name of the run that holds the model of the last finished round. The next one is
            trained under the same name in a hidden folder beside it. None trains nothing.
        budget: The time of a round, such as "2m".
        on_change: A function that the thread calls with each new `state`.
        on_masks: A function that the thread calls with the images that have new predictions.
        model: The model that the project begins with, if any.

    Raises:
        InputError: There is a run of this name that did not come from this project.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Path],
        home: Path,
        run: str | None,
        budget: str,
        on_change: Callable[[dict[str, Any]], None],
        on_masks: Callable[[Sequence[int]], None],
        model: StartingModel | None = None,
    ) -> None:
        self._folder, self._images, self._home = folder, tuple(images), home
        self._run, self._budget = RunFolder(run) if run else None, budget
        self._on_change, self._on_masks = on_change, on_masks
        self._model = model
        self._marker = home / _MARKER
        if self._run:
            self._refuse_foreign(self._run.path)
            self._restore(self._run.path)
        self._wake = threading.Condition()
        self._order: tuple[int, ...] | None = None  # None: there is nothing new to learn from
        self._ahead: tuple[int, ...] = ()  # images to predict by the model
        self._answered = set[int]()  # images that the model was asked for
        self._is_on, self._is_closed, self._is_stopped = True, False, False
        self._child: subprocess.Popen[bytes] | None = None
        self._round, self._began, self._state, self._note = 0, 0.0, "waiting", ""
        self._thread = threading.Thread(target=self._work, name="rounds", daemon=True)
        self._thread.start()

    def _refuse_foreign(self, path: Path) -> None:
        """Refuse to train over a run that did not come from this project."""
        own = self._marker.read_text("utf-8") if self._marker.exists() else ""
        if path.exists() and own != str(path.resolve()):
            text = "already exists, and belongs to another training"
            raise InputError(path, text, f"choose another {arg('run')}")

    def _restore(self, path: Path) -> None:
        """Put the run back that a kill left out of its place, while the next one came there."""
        before = self._beside(path, "before")
        if before.exists() and not path.exists():
            before.rename(path)

    def _beside(self, path: Path, kind: str) -> Path:
        """Return the place of a run of the same name that no other project uses."""
        project = hashlib.sha256(os.fsencode(self._home.resolve())).hexdigest()[:8]
        return path.parent / f".{kind}-{project}" / path.name

    # -- called by the server ----------------------------------------------------------------

    def learn(self, order: Sequence[int]) -> None:
        """Take new labels into the next round, and predict images in this order after it."""
        with self._wake:
            self._order = tuple(order) if self._run else None
            self._wake.notify()

    def expect(self, order: Sequence[int]) -> None:
        """Predict images in this order by the model that the project begins with."""
        with self._wake:
            self._ahead = tuple(order)
            self._wake.notify()

    def turn(self, on: bool) -> None:
        """Pause, which stops a round that is going on, or continue."""
        with self._wake:
            was_on, self._is_on = self._is_on, on
            if not on:
                self._stop_child()
                self._change("paused", "")
            elif not (was_on or self._has_work()):
                self._change("waiting", "")  # else the thread tells of its work
            self._wake.notify()

    def give_way(self, is_needed: bool) -> None:
        """Let the process that trains rest while a stroke is answered, and then go on.

        A kill of the server may come before the process rests. SIGSTOP would let it rest forever
        then. The system drops SIGTSTP where no parent is left that could let the process go on.
        """
        with self._wake:
            if self._child is not None and sys.platform != "win32":
                self._child.send_signal(signal.SIGTSTP if is_needed else signal.SIGCONT)

    def close(self) -> None:
        """Stop at once; the model of the last finished round stays."""
        with self._wake:
            self._is_closed = True
            self._stop_child()
            self._wake.notify()
        self._thread.join(5)

    def state(self) -> dict[str, Any]:
        """Return the state for the page.

        The keys are "on", "state", "round", "share", "seconds", "note" and "next". "share" is the
        part of the time of a round, "seconds", that is over; None between rounds.
        "next" is the command line that predicts other images, once there is a network for it.
        """
        share, seconds = None, parse_duration(self._budget)
        if self._state == "training":
            share = min(1.0, (time.monotonic() - self._began) / seconds)
        return {
            "on": self._is_on,
            "state": self._state,
            "round": self._round,
            "share": share,
            "seconds": seconds,
            "note": self._note or None,
            "next": predict_line(self._run) if self._run else None,
        }

    def prediction(self, number: int, table: ClassTable) -> NDArray[np.uint8] | None:
        """Return the network's class indices (H, W) of an image; None where it has none yet.

        Raises:
            InputError: The prediction holds other classes than the table.
        """
        path = self._home / _PREDICTED / self._mask_name(number)
        return masks.decode(read_mask(path), table, path) if path.exists() else None

    def _mask_name(self, number: int) -> str:
        return f"{stem_of(self._images[number])}.png"

    # -- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._is_closed or (self._is_on and self._has_work()))
                if self._is_closed:
                    return
                self._is_stopped = False
                numbers, order = self._unanswered(), self._order or ()
                if not numbers:
                    self._order = None
            try:
                if self._model and numbers:
                    self._answer(self._model, numbers)
                elif self._run:
                    self._do_round(self._run, order)
            except (UnetsegError, OSError) as error:  # such as no room for one more process
                self._answered.update(numbers)
                self._change("failed", str(error))

    def _has_work(self) -> bool:
        return self._order is not None or bool(self._unanswered())

    def _unanswered(self) -> tuple[int, ...]:
        """Return the images that the model predicts now."""
        if self._model is None:
            return ()
        near = self._ahead if self._order is None else self._ahead[:_AT_ONCE]
        return tuple(number for number in near if number not in self._answered)[:_AT_ONCE]

    def _answer(self, model: StartingModel, numbers: Sequence[int]) -> None:
        """Predict images by the model that the project begins with."""
        self._tell("predicting", self._note)
        note = self._predict(numbers, model.copies, model.folder) or self._note
        with self._wake:
            if not self._is_stopped:
                self._answered.update(numbers)
            self._tell("failed" if note else "waiting", note)

    def _do_round(self, run: RunFolder, order: Sequence[int]) -> None:
        self._round += 1
        self._began = time.monotonic()
        self._tell("training", "")
        failure = self._train(run)
        if failure is None and order:
            self._tell("predicting", "")
            failure = self._predict(order[:_AT_ONCE], [run.path], self._home / _PREDICTED)
        with self._wake:
            if self._is_stopped:  # by a pause: the round is done again later
                self._order = self._order or tuple(order)
            self._tell("failed" if failure else "waiting", failure or "")

    def _train(self, run: RunFolder) -> str | None:
        """Train in a folder apart, and put it in the place of the last round; return a failure."""
        apart = self._beside(run.path, "next")
        words = ["train", str(self._folder), "--run", str(apart), "--budget", self._budget]
        failure = self._call([*words, "--val", "0", "--overwrite", *self._start(run)])
        if failure is None:
            self._replace(run.path, apart)
        _remove(apart)
        return failure

    def _replace(self, path: Path, apart: Path) -> None:
        """Put a finished run in the place of the run before; after a kill `_restore` mends it."""
        self._refuse_foreign(path)  # it may have come meanwhile
        before = self._beside(path, "before")
        _remove(before)  # a kill may have left it
        files.write_bytes(self._marker, str(path.resolve()).encode())
        if path.exists():
            files.make_folder(before.parent)
            path.rename(before)
        apart.rename(path)
        _remove(before)

    def _start(self, run: RunFolder) -> list[str]:
        """Return the options for a round from the weights of the round before, or of the model.

        Images are taken in the part and at the scale that these weights were trained on.
        """
        if run.model.exists():
            start = run.model
        elif self._model:
            start = self._model.copies[0]
        else:
            return []
        card = read_card(start)
        selection, scale = card.selection, card.scale
        channels = selection.channels
        if not channels and card.channels > 1 and read_info(self._images[0]).channels == 1:
            channels = (0,) * card.channels  # as the model takes grey images
        given: dict[str, object] = {"channels": ",".join(map(str, channels))}
        given |= {"crop": selection.crop, "page": selection.page}
        given |= {"scale": None if scale == 1 else scale}
        words = [f"--{name}={value}" for name, value in given.items() if value not in (None, "")]
        return [f"--from={start}", *words]

    def _predict(self, numbers: Sequence[int], models: Sequence[Path], out: Path) -> str | None:
        """Predict images, and tell of each mask soon after it is there; return a failure."""
        words = ["predict", *(str(self._images[number]) for number in numbers)]
        words += [f"--model={model}" for model in models]
        places = {number: out / self._mask_name(number) for number in numbers}
        told = {number: files.change_time(path) for number, path in places.items()}

        def tell_new() -> None:
            found = {number: files.change_time(path) for number, path in places.items()}
            new = [number for number in numbers if found[number] != told[number]]
            told.update(found)
            if new:
                self._on_masks(new)

        # A mask with a place on a map would be a TIFF.
        words += [f"--out={out}", "--format=png", "--no-overlay", "--overwrite"]
        failure = self._call(words, tell_new)
        tell_new()
        return failure

    def _call(self, words: Sequence[str], on_look: Callable[[], None] = lambda: None) -> str | None:
        """Run a command of unetseg to its end, and call `on_look` meanwhile.

        Returns:
            Its error, if any.
        """
        with tempfile.TemporaryFile() as said:
            with self._wake:
                if self._is_stopped:
                    return "stopped"
                self._child = child = subprocess.Popen(
                    [sys.executable, "-m", "unetseg.labelling.child", *words],
                    stdin=subprocess.PIPE,  # its end tells the process that the server has gone
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    # Ctrl-C in the terminal is for the server. In a new session, a process that
                    # rests would rest forever if the server was killed.
                    process_group=0,
                    creationflags=_FLAGS,
                )
            if sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, child.pid, _NICE)
            with child:  # the pipe stays open until its end
                while child.poll() is None:
                    on_look()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(_LOOK)
            with self._wake:  # while nobody sends a signal to the process
                self._child = None
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        if child.returncode == 0:
            return None
        return lines[-1] if lines else f"ended with {child.returncode}"

    def _stop_child(self) -> None:
        self._is_stopped = True
        if self._child is not None:
            self._child.kill()

    def _tell(self, state: str, note: str) -> None:
        """Tell of the work that goes on. Once a pause has stopped it, the pause is the state."""
        with self._wake:
            if not self._is_stopped:
                self._change(state, note)

    def _change(self, state: str, note: str) -> None:
        self._state, self._note = state, note
        self._on_change(self.state())


def _remove(path: Path) -> None:
    """Remove a run and its folder, which may hold runs of other names."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
