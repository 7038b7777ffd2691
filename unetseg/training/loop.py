"""The course of a training run: learn, validate, save, stop, and write the final model."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from unetseg.errors import DivergenceError, Interrupted
from unetseg.network.optimizers import rate_at
from unetseg.network.pretrained import frozen_state, learned_state
from unetseg.prediction.calibration import PixelSample
from unetseg.prediction.run_folder import RunFolder
from unetseg.progress import EpochDone, Note, OnProgress, Progress
from unetseg.ranks import world
from unetseg.results import Result, Table
from unetseg.scoring.metrics import Scores
from unetseg.scoring.predictions import PassedProbabilities
from unetseg.signals import Caught
from unetseg.text import plural, show
from unetseg.training.artefacts import Artefacts, TensorBoard
from unetseg.training.checkpoint import Best, Machine, Tally, TrainState
from unetseg.training.clock import Clock
from unetseg.training.learner import Learner, Step
from unetseg.training.threads import Threads
from unetseg.training.validation import Validation, calibrate, validate

# Steps after which their losses are read. Reading waits for the device, while all devices but the
# CPU could go on with the next steps.
STEPS_PER_READ = {"cpu": 1, "cuda": 20, "mps": 20}

Row = dict[str, float | None]


@dataclass(frozen=True, repr=False)
class TrainResult(Result):
    """The result of a finished run.

    Attributes:
        run: Its folder.
        scores: Scores of the final model on the whole held-out images; None where none are.
        names: The held-out images.
        seconds: Time of the training, sessions before a resume included.
        patches: Patches trained on, repetitions counted.
        kept: "final", or "best epoch 12" under ``patience``.
        already: Whether the run had been finished before; then nothing was done.
    """

    run: RunFolder
    scores: Scores | None
    names: tuple[str, ...]
    seconds: float
    patches: int
    kept: str
    already: bool = False

    def line(self) -> str:
        """Return the run, and its score."""
        scored = self.scores.line() if self.scores else "no score: nothing was held out"
        return f"{self.run.path}: {'finished before' if self.already else scored}"

    def tables(self) -> Sequence[Table]:
        """Return the scores of each class; the facts of the run where there are none."""
        if self.scores is None:
            return self.run.tables()
        images = plural(len(self.names), "held-out image")
        return (self.scores.table(f"{images}, whole ({self.kept} model)"),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row an epoch, as `RunFolder.records` does."""
        return self.run.records()


@dataclass
class Course:
    """The course of a run so far, beside the states of its learner and its clock.

    Attributes:
        validate_every: Epochs between validations.
        given: The options given beside the settings: ``from`` and ``classes``, where they were.
        tally: The losses of the current epoch.
        history: Rows of ``history.csv``.
        best: The best validation, under ``patience``.
    """

    validate_every: int
    given: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    history: list[Row] = field(default_factory=list)
    best: Best | None = None

    def note_validation(self, found: Validation, network: nn.Module, epoch: int) -> None:
        """Keep the weights of the best validation, and count those since."""
        score = found.scores.mean_iou or 0.0
        if self.best is None or score > self.best.score:
            weights = {k: v.clone() for k, v in learned_state(network).items()}
            self.best = Best(epoch, score, weights, 0)
        else:
            self.best = replace(self.best, worse=self.best.worse + 1)

    def explain(self, error: DivergenceError, folder: RunFolder) -> DivergenceError:
        """Return the error of a loss that is not finite, with the path of the last good model."""
        good = show(folder.model) if folder.model.exists() else "none"
        last = f"{self.history[-1]['train_loss']:.4g}" if self.history else "none yet"
        text = f"{error.problem}; last epoch's loss {last}; last good model: {good}"
        return DivergenceError(folder.path, text, error.remedy)


class Trainer:
    """A run while it trains.

    Each of several processes has one; their states are the same after every step.

    Args:
        learner: The learner.
        clock: The clock that ends it.
        artefacts: The files that it leaves.
        course: The course of the run so far.
        threads: The number of threads to compute with.
        passed: Receives the probabilities of the final model; None where nobody wants them.
        caught: Signals.
        on_progress: Receives `Progress`, `EpochDone` and `Note` records.

    Attributes:
        learner, clock, artefacts, course: The arguments of these names.
        scores: The scores of the last validation.
    """

    def __init__(
        self,
        learner: Learner,
        clock: Clock,
        artefacts: Artefacts,
        course: Course,
        threads: Threads,
        passed: PassedProbabilities | None,
        caught: Caught,
        on_progress: OnProgress,
    ) -> None:
        self.learner, self.clock, self.artefacts, self.course = learner, clock, artefacts, course
        self.ranks, self.caught, self.on_progress = world(), caught, on_progress
        self.scores: Scores | None = None
        self._threads, self._passed = threads, passed
        self._unread: list[Step] = []
        self._last_loss: float | None = None

    def run(self) -> TrainResult:
        """Train until the steps or the time are used up, then write the final model.

        Raises:
            DivergenceError: A loss, a gradient or a weight is not finite.
            Interrupted: A signal came; everything is saved.
            MachineError: A file cannot be written.
        """
        events = self.artefacts.folder.path / "events" if self.ranks.is_writer else None
        with closing(TensorBoard(events, self.learner.position.epoch)) as board:
            self._read_clock()
            while self.learner.position.step_in_epoch or not self._has_ended():
                while not (self.learner.epoch_is_whole or self.clock.is_over):
                    self._do_step()
                    self._agree()
                self._end_epoch(board)
                self._read_clock()
            return self._finish(board)

    def _has_ended(self) -> bool:
        """Whether steps or time are used up, or the validations no longer improve."""
        patience, best = self.artefacts.recipe.patience, self.course.best
        is_stale = patience is not None and best is not None and best.worse >= patience
        return self.clock.is_over or is_stale

    # -- steps ------------------------------------------------------------------------------

    def _do_step(self) -> None:
        """Learn from the next batch, and read the losses where that is due."""
        begin, before = time.monotonic(), self.learner.position.patches_seen
        learner, recipe = self.learner, self.artefacts.recipe
        lr = recipe.lr * rate_at(recipe.schedule, self.clock.share)
        self._unread.append(learner.advance(lr))
        every = STEPS_PER_READ[learner.batches.device.type]
        if learner.epoch_is_whole or len(self._unread) >= every:
            self.read_losses()
        tally, seconds = self.course.tally, time.monotonic() - begin
        self.course.tally = replace(tally, epoch_seconds=tally.epoch_seconds + seconds)
        seen = learner.position.patches_seen
        self.clock.note_steps(seen - before, seconds)
        self._threads.note_step(seconds)
        total = self.clock.expected_patches(seen)
        loss = "" if self._last_loss is None else f", loss {self._last_loss:.3f}"
        detail = f"epoch {learner.position.epoch + 1}{loss}"
        place = (min(seen, total), total, "patches", detail)
        self.on_progress(Progress("training", *place, seconds_left=self.clock.left()))

    def read_losses(self) -> None:
        """Add up the losses of the steps since they were last read.

        Call this before scoring or saving; otherwise the weights of a diverged step could be
        written.

        Raises:
            DivergenceError: A loss or a gradient is not finite.
        """
        try:
            results = self.learner.read(self._unread)
        except DivergenceError as error:
            raise self.course.explain(error, self.artefacts.folder) from None
        for loss, pixels in results:
            tally, self._last_loss = self.course.tally, loss
            loss_sum, valid_sum = tally.loss_sum + loss * pixels, tally.valid_sum + pixels
            self.course.tally = replace(tally, loss_sum=loss_sum, valid_sum=valid_sum)
        self._unread.clear()

    def _read_clock(self) -> None:
        """Agree with the other ranks how far the training is, by the clock of rank 0."""
        self.clock.share = self.ranks.on_rank_zero(
            lambda: self.clock.read(self.learner.position.step)
        )

    def _agree(self) -> None:
        """Agree with the other ranks how far the training is, and whether to stop or to save.

        A signal may have come to any rank.
        """
        share, due = 0.0, False
        if self.ranks.is_writer:
            share, due = self.clock.read(self.learner.position.step), self.artefacts.is_save_due
        signum, self.clock.share, save = self.ranks.maximum(self.caught.signum or 0, share, due)
        if signum:
            self.save()
            self.ranks.gather(None)  # nobody leaves before it is saved
            raise self._interrupted(int(signum))
        if save:
            self.save()

    def _stop_if_caught(self) -> None:
        """Save and leave where a signal came to rank 0, or leave with rank 0 if that failed."""
        self.ranks.check()
        if self.ranks.is_writer and self.caught.signum is not None:
            self.save()
            raise self._interrupted(self.caught.signum)

    def _interrupted(self, signum: int) -> Interrupted:
        at, folder = self.learner.position, self.artefacts.folder
        text = f"stopped after step {at.step} (epoch {at.epoch + 1}); everything is saved"
        return Interrupted(signum, folder.path, text, folder.how_to_resume())

    # -- ends -------------------------------------------------------------------------------

    def _end_epoch(self, board: TensorBoard) -> None:
        """Validate where that is due, add a row to the history, and save."""
        self.read_losses()
        learner, course, over = self.learner, self.course, self.clock.is_over
        whole, at = learner.epoch_is_whole, learner.position
        due = (at.epoch + 1) % course.validate_every == 0 and whole and not over
        if due:
            due = self.ranks.on_rank_zero(self.clock.has_time_to_score)
        found = self._validate() if due else None
        batches = learner.batches
        patches = len(batches.data) if whole else at.step_in_epoch * batches.size
        # Close the epoch only after validation, so that a run interrupted during validation repeats
        # it on resume.
        learner.close_epoch()
        self._add_row(patches, found)
        board.add_row(course.history[-1])
        course.tally = Tally()
        if found:
            board.add_pictures(learner.position.epoch, found, self.artefacts.opened)
            if self.artefacts.recipe.patience:
                course.note_validation(found, learner.averaged, learner.position.epoch)
        if not over and self.artefacts.may_save(self.clock.seconds()):
            self.save()
        self.on_progress(EpochDone(course.history[-1], self.clock.left()))

    def _add_row(self, patches: int, found: Validation | None) -> None:
        """Add the row of an epoch to the history."""
        at, tally = self.learner.position, self.course.tally
        names = self.artefacts.opened.info.classes.names
        unknown: Row = dict.fromkeys(["val_loss", "val_mean_iou", *(f"iou_{n}" for n in names)])
        row: Row = {
            "epoch": at.epoch,
            "step": at.step,
            "seconds": round(self.clock.seconds(), 3),
            "patches": at.patches_seen,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "train_loss": tally.loss_sum / max(tally.valid_sum, 1),
            **(found.columns() if found else unknown),
            "patches_per_second": patches / max(tally.epoch_seconds, 1e-9),
        }
        self.course.history.append(row)

    def _validate(
        self, sample: PixelSample | None = None, passed: PassedProbabilities | None = None
    ) -> Validation | None:
        """Score the averaged weights; see `unetseg.training.validation.validate`."""
        begin = time.monotonic()
        found = validate(
            self.artefacts.opened,
            self.learner.averaged,
            self.learner.batches.device,
            self.on_progress,
            self._stop_if_caught,
            sample,
            passed,
        )
        if found:
            self.clock.note_scoring(time.monotonic() - begin)
        self.scores = found.scores if found else None
        return found

    def _finish(self, board: TensorBoard) -> TrainResult:
        """Score the final model, and write it."""
        learner, course, artefacts = self.learner, self.course, self.artefacts
        kept = "final"
        if course.best is not None:
            averaged = learner.averaged
            averaged.load_state_dict(frozen_state(averaged) | course.best.weights)
            kept = f"best epoch {course.best.epoch}"
        sample = PixelSample(seed=artefacts.recipe.seed + self.ranks.rank)
        found = self._validate(sample, self._passed)
        late: Row = {}
        calibration = None
        if found:
            calibration = calibrate(sample)
            last = course.history[-1] if course.history else {}
            if not course.best and last.get("val_mean_iou", 0) is None:
                late = found.columns()
                last.update(late)
            if (found.scores.confusion.sum(0) > 0).sum() == 1:
                text = "the model gives one class everywhere: train longer, or look at samples.png"
                self.on_progress(Note(text, warning=True))
            if self.ranks.is_writer:
                artefacts.show(found)
        self.save(kept, calibration)
        self.ranks.gather(None)  # nobody looks for the model before it is there
        epoch = learner.position.epoch
        if found and late:  # not before the save: a run resumed until here would write them twice
            board.add_row({"epoch": epoch, **late})
            board.add_pictures(epoch, found, artefacts.opened)
        return TrainResult(
            run=artefacts.folder,
            scores=self.scores,
            names=tuple(s.name for s in artefacts.opened.info.sources if s.split == "val"),
            seconds=self.clock.seconds(),
            patches=learner.position.patches_seen,
            kept=kept,
        )

    def save(self, kept: str = "", calibration: dict[str, float | None] | None = None) -> None:
        """Write checkpoint, history and model.

        Args:
            kept: Which weights the final model has; empty while the training is not finished.
            calibration: The result of `calibrate` for the final model.
        """
        self.read_losses()
        if not self.ranks.is_writer:
            return
        learner, course, artefacts = self.learner, self.course, self.artefacts
        seen, finished = learner.position.patches_seen, bool(kept)
        card = artefacts.card(seen, self.scores, calibration, finished=finished, kept=kept)
        state = TrainState(
            finished=finished,
            settings=artefacts.recipe,
            given=course.given,
            store=str(artefacts.opened.path),
            store_hash=artefacts.opened.content_hash,
            learner=learner.state(),
            tally=course.tally,
            validate_every=course.validate_every,
            history=course.history,
            best=course.best,
            seconds=self.clock.seconds(),
            expected_steps=self.clock.expected_steps,
            machine=this_machine(learner.batches.device, self._threads.most),
            share=self.clock.share,
            learned_before=artefacts.learned_before,
        )
        artefacts.save(state, learner.averaged.state_dict(), card)


def this_machine(device: torch.device, threads: int) -> Machine:
    """Return the facts of this machine that decide whether a resume goes on to the same bits."""
    return Machine(threads, str(torch.__version__), device.type, world().size)
