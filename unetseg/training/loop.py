"""The course of a training run: epochs, budget, validation, saving, and going on exactly."""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg import __version__, files
from unetseg.classes import ClassTable
from unetseg.dataset.store import Store
from unetseg.devices import describe_device
from unetseg.errors import Code, DivergenceError, InputError, Interrupted, arg
from unetseg.network.optimizers import rate_at
from unetseg.network.pretrained import frozen_digest, frozen_state, learned_state
from unetseg.network.unet import can_be_seamless, count_parameters
from unetseg.pictures.transforms import scaled_size
from unetseg.prediction import likeness, model_file
from unetseg.prediction.calibration import PixelSample
from unetseg.prediction.model_file import ModelCard, ModelSource
from unetseg.prediction.run_folder import RunFolder, resolve_model, write_history
from unetseg.prediction.segmenter import Segmenter, computed_pixels
from unetseg.progress import EpochDone, Note, OnProgress, Plan, Progress
from unetseg.ranks import world
from unetseg.records import to_plain
from unetseg.scoring.evaluation import score_held_out
from unetseg.scoring.metrics import Scores
from unetseg.settings import PredictSettings, TrainSettings, split_augment
from unetseg.signals import Caught
from unetseg.text import format_duration, show, to_toml
from unetseg.training import artefacts
from unetseg.training.checkpoint import write_checkpoint
from unetseg.training.events import Events
from unetseg.training.learner import Learner, Step

_SAVE_SECONDS = 60.0  # a killed run loses at most about this much
_SAVE_SHARE = 0.02  # short epochs are not all saved: saving takes at most this share of the time
_VALIDATION_SHARE = 0.1
_FORWARD_SHARE = 0.4  # a window predicted costs about this much of a patch trained
# Steps between two looks at the losses. A look waits for the device, which on others than the CPU
# could go on with the next steps meanwhile.
_LOOK_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}
_SHOWN = 4  # held-out images in validation.png and the events


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        run: Its folder.
        scores: Of the final model on the whole held-out images; None where none are held out.
        names: The held-out images.
        seconds: Time of the training, sessions before a resume included.
        patches: Patches trained on, repetitions counted.
        kept: "final", or "best epoch 12" under ``patience``.
        already: The run had been finished before; nothing was done.
    """

    run: RunFolder
    scores: Scores | None
    names: tuple[str, ...]
    seconds: float
    patches: int
    kept: str
    already: bool = False


class Trainer:
    """A run while it trains: what learns, how long it goes on, its history and its files.

    Each of several processes has one; their states are the same after every step.
    """

    def __init__(
        self,
        opened: Store,
        folder: RunFolder,
        settings: TrainSettings,
        started: float,
        caught: Caught,
        on_progress: OnProgress,
        passes: int = 1,
    ) -> None:
        self.store, self.folder, self.settings = opened, folder, settings
        self.passes = passes  # over the held-out images that the budget must leave time for
        self.ranks = world()
        self.started, self.caught = started, caught
        self.on_progress = self.ranks.only_on_rank_zero(on_progress)
        self.classes: ClassTable = opened.info.classes
        self.learner = Learner(opened, settings)
        # Everything below is saved and restored.
        self.given: dict[str, str] = {}  # what was asked for beside the settings
        self.loss_sum = self.valid_sum = 0.0
        self.epoch_seconds = 0.0
        self.seconds_before = 0.0  # of sessions before this one
        self.history: list[dict[str, float | None]] = []
        self.last_scores: Scores | None = None
        self.best: dict[str, Any] | None = None  # under patience: epoch, score, weights
        # These are not.
        self.look_every, self.unseen = _LOOK_EVERY[self.learner.device.type], list[Step]()
        self.last_loss: float | None = None
        self.shown: dict[int, NDArray[np.uint8]] = {}  # what the last validation found
        self.temperature, self.calibration = 1.0, dict[str, float | None]()
        self._saved_at = time.monotonic()
        self._saving_seconds = 0.0

    # -- starting ---------------------------------------------------------------------------

    def start(self, start_from: str | None) -> None:
        """Start with a new network, or with the weights of a model."""
        torch.manual_seed(self.settings.seed)
        network = self.learner.build() if start_from is None else self._from_model(start_from)
        if self.settings.patience and self.store.held_out_count == 0:
            raise InputError(arg("patience"), "no image is held out to judge by", "leave it out")
        self._prepare(network)
        self.on_progress(Note(self._augmentation_text()))
        if self.ranks.is_writer:  # not sooner: what is wrong with the call shows first
            self.folder.clear(keep=self.store.path)
            self._write_config()
            pictures, masks = self.learner.batch(self.learner.indices(0))
            artefacts.write_samples(self.folder.samples, pictures, masks, self.store.info)

    def _augmentation_text(self) -> str:
        if self.settings.augment == "none":
            return "no augmentation"
        name = " and ".join(filter(None, split_augment(self.settings.augment)))
        words = {"hflip": "left-right", "vflip": "up-down", "turn": "quarter turns"}
        kept = ", ".join(text for key, text in words.items() if key in self.learner.symmetries)
        why = " (by where the classes lie)" if self.settings.symmetries == "auto" else ""
        return f"augmentation: {name}; symmetries{why}: {kept or 'none'}"

    def _from_model(self, name: str) -> nn.Module:
        """Return a network with the weights of the model ``name``; what does not fit is new."""
        paths = resolve_model(name)
        old, card = model_file.load_model(paths[0])
        if card.channels != self.store.info.channels:
            text = f"trained on {card.channels} channels, the store has {self.store.info.channels}"
            raise InputError(paths[0], text, f"choose another {arg('start_from')}")
        network = self.learner.build()
        weights = old.state_dict()
        text = f"starting from {show(paths[0])} ({card.name}, {len(card.sources)} images)"
        other = card.classes.names != self.classes.names
        if other:
            head = list(weights)[-1].rpartition(".")[0]
            weights = {k: v for k, v in weights.items() if not k.startswith(f"{head}.")}
            text += f"; other classes ({', '.join(map(show, card.classes.names))} there), so the "
            text += f"last layer ({show(head)}) is new"
        network.load_state_dict(weights, strict=not other)
        self.on_progress(Note(text, warning=other))
        return network

    def _prepare(self, network: nn.Module) -> None:
        """Have ``network`` learn, and see from its speed how many steps there is time for."""
        settings, learner = self.settings, self.learner
        learner.take(network)
        self.validate_every = settings.validate or self._validation_interval()
        rate = learner.measure_rate(self._read)
        self.training_started = time.monotonic()
        spent = self.training_started - self.started + self.seconds_before
        self.rate, spent = self.ranks.gather((rate, spent))[0]  # the clock is that of rank 0
        windows = self._validation_windows() * self.passes
        if images := self.store.held_out_count:  # the ranks wait for the one with the most
            windows *= -(-images // self.ranks.size) * self.ranks.size / images
        reserve = windows * _FORWARD_SHARE / self.rate * 1.2 + 2.0
        if settings.budget is not None:
            self.available = settings.budget - spent - reserve
            if self.available <= 0 and not self.seconds_before:
                need = format_duration(settings.budget - self.available + 1)
                text = f"{format_duration(settings.budget)} leaves no time to train"
                raise InputError(arg("budget"), text, f"give more than {need}", code=Code.NO_TIME)
            self.expected_steps = max(1, int(self.available * self.rate / learner.batch_size))
            if self.expected_steps < learner.steps_per_epoch:
                share = self.expected_steps / learner.steps_per_epoch
                text = f"there is time for {100 * share:.0f} % of the patches only: give more, or "
                self.on_progress(
                    Note(f"{text}train on smaller images ({arg('scale', 0.5)})", warning=True)
                )
        else:
            assert settings.epochs is not None
            self.expected_steps = settings.epochs * learner.steps_per_epoch
        learner.average_over(self.expected_steps)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train until the epochs or the budget are used up, then write the final model."""
        self.on_progress(self._plan())
        self.events = Events(
            self.folder.path / "events" if self.ranks.is_writer else None, self.learner.epoch
        )
        try:
            return self._run()
        finally:
            self.events.close()

    def _run(self) -> TrainResult:
        while True:
            self.progress = self.ranks.on_rank_zero(self._progress)
            if not self.learner.step_in_epoch and (self._patience_ended() or self.progress >= 1):
                return self._finish()
            self._run_epoch()
            if self.learner.step_in_epoch:
                self._end_epoch()

    def _agree(self) -> None:
        """Agree with the other ranks how far the training is, and whether to stop or to save.

        The clock is that of rank 0; a signal may have come to any.
        """
        due = time.monotonic() - self._saved_at > _SAVE_SECONDS
        clock = (self._progress(), due) if self.ranks.is_writer else (0.0, False)
        signum, self.progress, save = self.ranks.maximum(self.caught.signum or 0, *clock)
        self.save_due = bool(save)
        if signum:
            self.save(finished=False)
            self.ranks.gather(None)  # nobody leaves before it is saved
            raise self._interrupted(int(signum))

    def _progress(self) -> float:
        """Return the share of the training that is done, 0 to 1, by this process's clock."""
        if self.settings.budget is None:
            return self.learner.step / self.expected_steps
        step_time = self.learner.batch_size / self.rate
        whole = max(self.seconds_before + self.available, 1e-6)
        return (self.seconds() + step_time / 2) / whole

    def seconds(self) -> float:
        """Return the time trained so far, sessions before a resume included."""
        return self.seconds_before + time.monotonic() - self.training_started

    def _run_epoch(self) -> None:
        learner = self.learner
        while learner.step_in_epoch < learner.steps_per_epoch and self.progress < 1:
            begin = time.monotonic()
            assert self.settings.lr is not None
            lr = self.settings.lr * rate_at(self.settings.schedule, self.progress)
            self.unseen.append(learner.advance(lr))
            whole = learner.step_in_epoch == learner.steps_per_epoch
            if whole or len(self.unseen) >= self.look_every:
                self.look()
            self.epoch_seconds += time.monotonic() - begin
            self._report_step()
            self._agree()
            if self.save_due:
                self.save(finished=False)

    def look(self) -> None:
        """Add up the losses of the steps since the last look.

        Nothing is scored or saved before: its weights would be those of a step that failed.

        Raises:
            DivergenceError: A loss or gradient is not finite.
        """
        for loss, pixels in self._read(self.unseen):
            self.last_loss = loss
            self.loss_sum += loss * pixels
            self.valid_sum += pixels
        self.unseen.clear()

    def _read(self, steps: Sequence[Step]) -> list[tuple[float, int]]:
        """Return loss and pixels of steps, in their order; see `look`."""
        results = self.learner.read(steps)
        for step, (loss, norm, _) in zip(steps, results, strict=True):
            if not np.isfinite([loss, norm]).all():
                self._diverged(step, loss)
        return [(loss, pixels) for loss, _, pixels in results]

    def _diverged(self, step: Step, loss: float) -> NoReturn:
        good = self.folder.model if self.folder.model.exists() else "none"
        last = f"{self.history[-1]['train_loss']:.4g}" if self.history else "none yet"
        raise DivergenceError(
            self.folder.path,
            f"the loss is not finite ({loss}) at step {step.number}, learning rate {step.lr:.3g}; "
            f"last epoch's loss {last}; last good model: {show(good)}",
            f"try a smaller {arg('lr')}",
        )

    def _report_step(self) -> None:
        learner = self.learner
        if self.settings.budget is None:
            total = self.expected_steps * len(learner.data) / learner.steps_per_epoch
        else:
            total = learner.patches_seen / max(self.progress, 1e-6)
        text = f"epoch {learner.epoch + 1}"
        text += "" if self.last_loss is None else f", loss {self.last_loss:.3f}"
        done = min(learner.patches_seen, total)
        self.on_progress(Progress("training", done, total, "patches", text))

    def _end_epoch(self) -> None:
        """Close an epoch: validate where due, add its row, save."""
        self.look()
        learner = self.learner
        whole = learner.step_in_epoch == learner.steps_per_epoch
        over = self.progress >= 1
        scored = (learner.epoch + 1) % self.validate_every == 0 and whole and not over
        found, val_loss = self.validate() if scored else (None, None)
        patches = len(learner.data) if whole else learner.step_in_epoch * learner.batch_size
        learner.close_epoch()  # after validation: a run stopped in it closes this epoch once more
        self._add_row(patches / max(self.epoch_seconds, 1e-9), found, val_loss)
        self.loss_sum = self.valid_sum = self.epoch_seconds = 0.0
        if found:
            self._show()
        if found and self.settings.patience:
            self._note_best(found)
        if not over and self._saving_seconds <= _SAVE_SHARE * self.seconds():
            self.save(finished=False)
        left = self.seconds() * (1 - self.progress) / max(self.progress, 1e-6)
        self.on_progress(EpochDone(self.history[-1], max(0.0, left)))

    def _add_row(self, rate: float, found: Scores | None, val_loss: float | None) -> None:
        row: dict[str, float | None] = {
            "epoch": self.learner.epoch,
            "step": self.learner.step,
            "seconds": round(self.seconds(), 3),
            "patches": self.learner.patches_seen,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "train_loss": self.loss_sum / max(self.valid_sum, 1),
            "val_loss": val_loss,
            "val_mean_iou": found.mean_iou if found else None,
        }
        for name in self.classes.names:
            row[f"iou_{name}"] = found.iou[name] if found else None
        self.history.append({**row, "patches_per_second": rate})
        self.events.add_row(self.history[-1])

    def _note_best(self, found: Scores) -> None:
        """Keep the weights of the best validation, and count those since."""
        score = found.mean_iou or 0.0
        if self.best is None or score > self.best["score"]:
            weights = {k: v.clone() for k, v in learned_state(self.learner.averaged).items()}
            epoch = self.learner.epoch
            self.best = {"epoch": epoch, "score": score, "weights": weights, "worse": 0}
        else:
            self.best["worse"] += 1

    def _patience_ended(self) -> bool:
        patience = self.settings.patience
        return bool(patience and self.best and self.best["worse"] >= patience)

    # -- validation -------------------------------------------------------------------------

    def _validation_windows(self) -> float:
        """Return what a validation computes, in patches."""
        info = self.store.info
        stride = PredictSettings().stride_for(info.size, can_be_seamless(self.learner.network))
        computed = (
            computed_pixels(
                scaled_size(source.height, source.width, info.scale),
                [self.learner.network],
                info.size,
                stride,
                self.learner.device,
            )
            for source in info.held_out
        )
        return sum(computed) / info.size**2

    def _validation_interval(self) -> int:
        """Return the epochs between validations that keep them under a tenth of the time.

        Counted in windows and patches, never measured, so that a resumed run validates at the
        same epochs.
        """
        cost = self._validation_windows() * _FORWARD_SHARE
        return max(1, int(np.ceil(cost / (_VALIDATION_SHARE * len(self.learner.data)))))

    def segmenter(self) -> Segmenter:
        """Return the averaged network as ``predict`` would use it by default."""
        info, defaults = self.store.info, PredictSettings()
        return Segmenter(
            [self.learner.averaged],
            size=info.size,
            means=[info.mean],
            stds=[info.std],
            stride=defaults.stride_for(info.size, can_be_seamless(self.learner.network)),
            weights=defaults.weights,
            device=self.learner.device,
        )

    def validate(self, sample: PixelSample | None = None) -> tuple[Scores | None, float | None]:
        """Score the averaged weights on the whole held-out images; None where there are none.

        Args:
            sample: Is given the probabilities on the way.
        """
        if self.store.held_out_count == 0:
            return None, None
        shown: dict[int, list[Tensor]] = {}

        def observe(number: int, band: Tensor, truth: Tensor) -> None:
            if sample:
                sample.add(number, band, truth)
            if number in shown or len(shown) < _SHOWN:
                shown.setdefault(number, []).append(band.argmax(0).to(torch.uint8).cpu())

        self.last_scores, val_loss = score_held_out(
            self.store,
            self.segmenter(),
            on_progress=self.on_progress,
            check=self._stop_if_caught,
            observe=observe,
        )
        self.shown = {number: torch.cat(bands).numpy() for number, bands in shown.items()}
        return self.last_scores, val_loss

    def _show(self) -> None:
        """Put the pictures of the last validation into the events."""
        if self.events.active:
            self.events.add_pictures(self.learner.epoch, self._pictures(), self.classes)

    def _pictures(self) -> list[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]]:
        """Return image, truth and labels of the images that the last validation remembers."""
        return [(*self.store.held_out(k)[:2], labels) for k, labels in self.shown.items()]

    # -- ending and saving ------------------------------------------------------------------

    def _finish(self) -> TrainResult:
        kept = "final"
        if self.best is not None:
            averaged = self.learner.averaged
            averaged.load_state_dict(frozen_state(averaged) | self.best["weights"])
            kept = f"best epoch {self.best['epoch']}"
        sample = PixelSample(seed=self.settings.seed + self.ranks.rank)
        found, val_loss = self.validate(sample)
        late: dict[str, float | None] = {}
        if found and self.history and self.history[-1]["val_mean_iou"] is None and not self.best:
            late = {"val_loss": val_loss, "val_mean_iou": found.mean_iou}
            late |= {f"iou_{name}": found.iou[name] for name in self.classes.names}
            self.history[-1].update(late)
        if found:
            self._calibrate(sample)
        if found and (found.confusion.sum(0) > 0).sum() == 1:
            text = "the model gives one class everywhere: train longer, or look at samples.png"
            self.on_progress(Note(text, warning=True))
        if self.ranks.is_writer:
            artefacts.write_validation(self.folder.validation, self._pictures(), self.classes)
        self.save(finished=True, kept=kept)
        self.ranks.gather(None)  # nobody looks for the model before it is there
        if late:  # not sooner: a run resumed until here would write them twice
            self.events.add_row({"epoch": self.learner.epoch, **late})
            self._show()
        names = tuple(s.name for s in self.store.info.sources if s.split == "val")
        patches = self.learner.patches_seen
        return TrainResult(self.folder, found, names, self.seconds(), patches, kept)

    def _calibrate(self, sample: PixelSample) -> None:
        """Fit the model's temperature; no score of labels changes by it."""
        if self.ranks.size > 1:
            sample.pool(self.ranks.concatenate)
        found = sample.calibration()
        self.temperature = found.temperature if found else sample.temperature()
        error = found.error if found else None
        self.calibration = {"error": error, "temperature": self.temperature}

    def _stop_if_caught(self) -> None:
        """Save and leave where a signal came to rank 0, or leave with it; see `_agree`."""
        self.ranks.check()
        if self.ranks.is_writer and self.caught.signum is not None:
            self.save(finished=False)
            raise self._interrupted(self.caught.signum)

    def _interrupted(self, signum: int) -> Interrupted:
        learner = self.learner
        return Interrupted(
            signum,
            self.folder.path,
            f"stopped after step {learner.step} (epoch {learner.epoch + 1}); everything is saved",
            f"go on with: {self.folder.resume_line()}",
        )

    def save(self, *, finished: bool, kept: str = "") -> None:
        """Write checkpoint, history and model; each is the old file or the new one, whole.

        The model comes last: once it says that the run is finished, all the rest is there. A run
        killed before that goes on from the checkpoint.
        """
        self.look()
        if not self.ranks.is_writer:
            return
        card = self._card(finished, kept)  # the first may take a second, which is not of saving
        begin = time.monotonic()
        write_checkpoint(self.folder.checkpoint, self._state(finished))
        if self.history:
            write_history(self.folder.history, self.history)
        model_file.write_model(self.folder.model, self.learner.averaged.state_dict(), card)
        self._saved_at = time.monotonic()
        self._saving_seconds += self._saved_at - begin

    def _card(self, finished: bool, kept: str) -> ModelCard:
        info = self.store.info
        scored: dict[str, Any] = self.last_scores.to_dict() if self.last_scores else {}
        if self.calibration:
            scored["calibration"] = self.calibration
        return ModelCard(
            network=self.settings.network,
            settings=self.learner.network_settings,
            channels=info.channels,
            classes=self.classes,
            mean=info.mean,
            std=info.std,
            dtype=info.dtype,
            scale=info.scale,
            patch_size=info.size,
            symmetries=tuple(sorted(self.learner.symmetries)),
            scores=scored,
            name=self.folder.name,
            store=str(self.store.path),
            store_hash=self.store.content_hash,
            sources=tuple(ModelSource(s.name, s.sha256, s.split) for s in info.sources),
            trained=datetime.now(UTC).isoformat(timespec="seconds"),
            patches_seen=self.learner.patches_seen,
            temperature=self.temperature,
            finished=finished,
            kept=kept,
            versions={"unetseg": __version__, "torch": str(torch.__version__)},
            looks=self._looks,
        )

    @functools.cached_property
    def _looks(self) -> dict[str, Any]:
        """What the training images look like; empty where they are too few to say."""
        opened = self.store
        found = likeness.appearance_of_patches(opened.images, opened.source, opened.info.size)
        return to_plain(found) if found else {}

    def _state(self, finished: bool) -> dict[str, Any]:
        return {
            "finished": finished,
            "settings": dataclasses.asdict(self.settings),
            "network_settings": self.learner.network_settings,
            "given": self.given,
            "store": str(self.store.path),
            "store_hash": self.store.content_hash,
            **self.learner.state(),
            "history": self.history,
            "best": self.best,
            "position": self.learner.position() | {name: getattr(self, name) for name in _POSITION},
            "seconds": self.seconds(),
            "expected_steps": self.expected_steps,
            "machine": _machine(self.learner.device),
        }

    def restore(self, saved: Mapping[str, Any], path: Path) -> None:
        """Take over the state of a checkpoint read from ``path``."""
        if saved["store_hash"] != self.store.content_hash:
            text = f"has changed since {show(path)} was saved"
            raise InputError(self.store.path, text, f"train a new {arg('run')} on it")
        torch.set_num_threads(saved["machine"]["threads"])
        self.given = dict(saved["given"])
        self.seconds_before = float(saved["seconds"])
        self._prepare(self._rebuilt(saved.get("frozen", ""), path))
        self.expected_steps = int(saved["expected_steps"])  # of the whole run, not of what is left
        self.learner.average_over(self.expected_steps)
        self.learner.restore(saved)
        self.history = [dict(row) for row in saved["history"]]
        self.best = saved["best"]
        for name in _POSITION:
            setattr(self, name, saved["position"][name])
        for key, now in _machine(self.learner.device).items():
            if (before := saved["machine"].get(key, now)) != now:
                text = f"not bit-exact: {key} {before} -> {now}"
                self.on_progress(Note(text, warning=True))

    def _rebuilt(self, frozen: str, path: Path) -> nn.Module:
        """Return a network whose frozen weights have the digest that a checkpoint names."""
        network = self.learner.build()
        if frozen_digest(network) not in ("", frozen) and self.folder.model.exists():
            # They came with --from, or from a file that has changed; the model so far has them.
            network, _ = model_file.load_model(self.folder.model)
        if frozen_digest(network) not in ("", frozen):
            text = "the pretrained weights that it was trained with are not there"
            raise InputError(path, text, "give back the file of --weights, or train a new --run")
        return network

    # -- what people look at ----------------------------------------------------------------

    def _plan(self) -> Plan:
        learner, several = self.learner, self.ranks.size
        if self.settings.budget is None:
            left = (self.expected_steps - learner.step) * learner.batch_size / self.rate
            share = self._validation_windows() * _FORWARD_SHARE / self.validate_every
            seconds = left * (1 + share / len(learner.data))
            epochs = self.settings.epochs or 1
        else:
            seconds = max(0.0, self.available)
            epochs = -(-self.expected_steps // learner.steps_per_epoch)
        return Plan(
            self.settings.network,
            count_parameters(learner.network),
            len(learner.data),
            epochs,
            self.rate,
            seconds,
            self.store.images.nbytes + self.store.masks.nbytes if learner.data.in_memory else 0,
            describe_device(learner.device)
            + (f" x {several}" if several > 1 else "")
            + f", {self.settings.precision}",
            learner.step,
        )

    def _write_config(self) -> None:
        text = to_toml(
            "train",
            {
                "source": str(self.store.path),
                "run": str(self.folder.path),
                **dataclasses.asdict(self.settings),
                "validate": None,  # no option of the command
                "budget": None if self.settings.budget is None else f"{self.settings.budget:.12g}s",
            },
        )
        files.write_bytes(self.folder.config, text.encode())


_POSITION = ("loss_sum", "valid_sum", "epoch_seconds", "validate_every")


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": device.type,
        "ranks": world().size,
    }
