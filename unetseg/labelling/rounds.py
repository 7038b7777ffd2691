"""The dense network behind the page: it learns in rounds, in a process of its own, at low priority.

A round trains on all strokes and accepted masks for the time of its budget, beginning with the
weights of the round before. Then it predicts the images that come next, by a network that never saw
a stroke on them. Training and prediction are the commands `train` and `predict`; a round that fails
or is stopped leaves the model of the round before. No process outlives the server.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
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
from unetseg.errors import InputError, arg
from unetseg.pictures import masks
from unetseg.pictures.reading import read_mask
from unetseg.prediction.run_folder import RunFolder
from unetseg.settings import parse_duration

_PREDICTED, _MARKER = "network", "run"
_AT_ONCE = 12  # images predicted after a round
_NICE = 19  # the lowest priority, which leaves a stroke all it needs


class Rounds:
    """Trains again and again as labels come in; a thread of its own waits for the processes.

    Args:
        folder: The folder of labelled images.
        images: The image files, by number.
        home: The folder of the project's state, where predictions lie.
        run: The name of the run that holds the model of the last finished round. The next one is
            trained in a run beside it, whose name ends in "-next".
        budget: The time of a round, such as "2m".
        on_change: A function that the thread calls with each new `state`.
        on_masks: A function that the thread calls with the images that have new predictions.

    Raises:
        InputError: There is a run of this name that did not come from this project.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[Path],
        home: Path,
        run: str,
        budget: str,
        on_change: Callable[[dict[str, Any]], None],
        on_masks: Callable[[Sequence[int]], None],
    ) -> None:
        self._folder, self._images, self._home = folder, tuple(images), home
        self._run, self._budget = RunFolder(run), budget
        self._on_change, self._on_masks = on_change, on_masks
        self._marker = home / _MARKER
        self._refuse_foreign()
        self._wake = threading.Condition()
        self._order: tuple[int, ...] | None = None  # None: there is nothing new to learn from
        self._is_on, self._is_closed, self._is_stopped = True, False, False
        self._child: subprocess.Popen[bytes] | None = None
        self._round, self._began, self._state, self._note = 0, 0.0, "waiting", ""
        self._thread = threading.Thread(target=self._work, name="rounds", daemon=True)
        self._thread.start()

    def _refuse_foreign(self) -> None:
        """Refuse to train over a run that did not come from this project."""
        path = self._run.path
        own = self._marker.read_text("utf-8") if self._marker.exists() else ""
        if path.exists() and own != str(path.resolve()):
            text = "already exists, and belongs to another training"
            raise InputError(path, text, f"choose another {arg('run')}")

    # -- called by the server ----------------------------------------------------------------

    def learn(self, order: Sequence[int]) -> None:
        """Take new labels into the next round, and predict images in this order after it."""
        with self._wake:
            self._order = tuple(order)
            self._wake.notify()

    def turn(self, on: bool) -> None:
        """Pause, which stops a round that is going on, or continue."""
        with self._wake:
            self._is_on = on
            if not on:
                self._stop_child()
            self._wake.notify()
        if not on:
            self._tell("paused", "")

    def give_way(self, is_needed: bool) -> None:
        """Let the process that trains rest while a stroke is answered, and then go on."""
        with self._wake:
            if self._child is not None and sys.platform != "win32":
                self._child.send_signal(signal.SIGSTOP if is_needed else signal.SIGCONT)

    def close(self) -> None:
        """Stop at once; the model of the last finished round stays."""
        with self._wake:
            self._is_closed = True
            self._stop_child()
            self._wake.notify()
        self._thread.join(5)

    def state(self) -> dict[str, Any]:
        """Return the state for the page: "on", "state", "round", "share" and "note"."""
        share = None
        if self._state == "training":
            share = min(1.0, (time.monotonic() - self._began) / parse_duration(self._budget))
        return {
            "on": self._is_on,
            "state": self._state,
            "round": self._round,
            "share": share,
            "note": self._note or None,
        }

    def prediction(self, number: int, table: ClassTable) -> NDArray[np.uint8] | None:
        """Return the network's class indices (H, W) of an image; None where it has none yet.

        Raises:
            InputError: The prediction holds other classes than the table.
        """
        path = self._home / _PREDICTED / f"{stem_of(self._images[number])}.png"
        return masks.decode(read_mask(path), table, path) if path.exists() else None

    # -- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._is_closed or (self._is_on and self._order is not None)
                )
                if self._is_closed:
                    return
                order, self._order, self._is_stopped = self._order or (), None, False
            self._do_round(order)

    def _do_round(self, order: Sequence[int]) -> None:
        self._round += 1
        self._began = time.monotonic()
        self._tell("training", "")
        failure = self._train()
        if failure is None and order:
            self._tell("predicting", "")
            failure = self._predict(order[:_AT_ONCE])
        with self._wake:
            if self._is_stopped:  # by a pause: the round is done again later
                self._order = self._order or tuple(order)
                return
        self._tell("failed" if failure else "waiting", failure or "")
        if failure is None:
            self._on_masks(order[:_AT_ONCE])

    def _train(self) -> str | None:
        """Train in a folder apart, and put it in the place of the last round; return a failure."""
        apart = self._run.path.with_name(f"{self._run.path.name}-next")
        words = ["train", str(self._folder), "--run", str(apart), "--budget", self._budget]
        words += ["--val", "0", "--overwrite"]
        if self._run.model.exists():
            words += ["--from", str(self._run.path)]
        failure = self._call(words)
        if failure is None:
            old = apart.with_name(f"{self._run.path.name}-old")
            if self._run.path.exists():
                self._run.path.rename(old)
            apart.rename(self._run.path)
            shutil.rmtree(old, ignore_errors=True)
            files.write_bytes(self._marker, str(self._run.path.resolve()).encode())
        return failure

    def _predict(self, numbers: Sequence[int]) -> str | None:
        out = self._home / _PREDICTED
        images = [str(self._images[number]) for number in numbers]
        words = ["predict", *images, "--model", str(self._run.path), "--out", str(out)]
        return self._call([*words, "--no-overlay", "--overwrite"])

    def _call(self, words: Sequence[str]) -> str | None:
        """Run a command of unetseg to its end; return its error, or None."""
        with self._wake:
            if self._is_stopped:
                return "stopped"
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", "unetseg.labelling.child", *words],
                stdin=subprocess.PIPE,  # its end tells the process that the server has gone
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # Ctrl-C in the terminal is for the server. In a new session, a process that rests
                # would rest forever if the server was killed.
                process_group=0,
            )
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, child.pid, _NICE)
        with child:
            assert child.stderr is not None
            said = child.stderr.read()
            child.wait()  # the pipe stays open until then
        self._child = None
        if child.returncode == 0:
            return None
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with {child.returncode}"

    def _stop_child(self) -> None:
        self._is_stopped = True
        if self._child is not None:
            self._child.kill()

    def _tell(self, state: str, note: str) -> None:
        self._state, self._note = state, note
        self._on_change(self.state())
