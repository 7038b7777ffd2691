"""The loop of a training run: steps, epochs, validation, saving, and going on exactly."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unetseg import __version__, atomic, augmentation, checkpoints, likeness, report
from unetseg.batches import Patches, epoch_order
from unetseg.calibration import PixelSample
from unetseg.checkpoints import ModelCard, ModelSource
from unetseg.classes import IGNORED, ClassTable
from unetseg.config import (
    DEFAULT_EPOCHS,
    SYMMETRIES,
    PredictSettings,
    TrainSettings,
    format_duration,
    split_augment,
    to_toml,
)
from unetseg.devices import describe_device, pick_device
from unetseg.distributed import world
from unetseg.errors import DivergenceError, InputError, Interrupted, show
from unetseg.evaluation import score_held_out
from unetseg.events import Events
from unetseg.interrupts import Caught
from unetseg.losses import build_loss, class_weights
from unetseg.metrics import Scores
from unetseg.networks import build_network, can_be_seamless, count_parameters
from unetseg.optimization import (
    DEFAULT_LR,
    DEFAULT_WEIGHT_DECAY,
    average_weights,
    build_optimizer,
    match_layouts,
    rate_at,
)
from unetseg.pixels import scaled_size
from unetseg.progress import EpochDone, Note, OnProgress, Plan, Progress
from unetseg.runs import RunFolder, write_history
from unetseg.segmentation import Segmenter, computed_pixels
from unetseg.store import Store

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


def resolve(settings: TrainSettings, size: int) -> TrainSettings:
    """Return the settings with what follows from others, and from the patch size, filled in.

    Raises:
        InputError: A batch too small for the processes that share it.
    """
    ranks = world().size
    if settings.epochs is None and settings.budget is None:
        settings = dataclasses.replace(settings, epochs=DEFAULT_EPOCHS)
    if settings.batch_size is None:
        # Many small steps learn more in the same time than few large ones, down to about 8 patches
        # of 96 x 96 on a CPU; a GPU needs more work at once to be busy.
        batch = max(2, round(8 * 96**2 / size**2))
        if pick_device(settings.device).type == "cuda":
            batch *= 8
        settings = dataclasses.replace(settings, batch_size=max(batch, ranks))
    elif settings.batch_size < ranks:
        text = f"{settings.batch_size} patches a step for {ranks} processes"
        raise InputError("--batch-size", text, "give at least one for each")
    lr, decay = settings.lr, settings.weight_decay
    return dataclasses.replace(
        settings,
        lr=DEFAULT_LR[settings.optimizer] if lr is None else lr,
        weight_decay=DEFAULT_WEIGHT_DECAY[settings.optimizer] if decay is None else decay,
    )


class _Step(NamedTuple):
    """A step done: what it gave, still on its device."""

    number: int
    lr: float
    loss: Tensor
    norm: Tensor  # of the gradient
    pixels: Tensor  # that the loss was taken over, by all ranks


class Trainer:
    """The state of a run while it trains: network, averages, optimizer, position, history.

    Each of several processes has one; their states are the same after every step. The patches of a
    step and their augmentation are drawn for all of them, and each learns from its part.
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
        self.on_progress = self.ranks.heard(on_progress)
        info = opened.info
        self.classes: ClassTable = info.classes
        self.device = pick_device(settings.device)
        self.data = Patches(
            opened.images, opened.masks, info.mean, info.std, self.device, self.ranks.local_size
        )
        assert settings.batch_size is not None  # `resolve` filled it in
        self.batch_size = min(settings.batch_size, len(self.data))
        # A last batch of one patch joins the one before: batch normalisation needs several values.
        alone = len(self.data) % self.batch_size == 1 < self.batch_size < len(self.data)
        self.steps_per_epoch = -(-len(self.data) // self.batch_size) - alone
        self.symmetries, self.augmentation = _choose_augmentation(settings, opened)
        own = split_augment(settings.augment)[1]
        self.change = augmentation.load_plugin(own) if own else None
        weights = torch.from_numpy(class_weights(np.array(info.class_pixels_train)))
        self.loss = build_loss(settings.loss, weights.to(self.device), self.ranks.total)
        self.network_settings = {"width": settings.width, "depth": settings.depth}
        self.network_settings = {k: v for k, v in self.network_settings.items() if v is not None}
        # Everything below is saved and restored.
        self.given: dict[str, str] = {}  # what was asked for beside the settings
        self.epoch = self.step_in_epoch = self.step = self.patches_seen = 0
        self.loss_sum = self.valid_sum = 0.0
        self.epoch_seconds = 0.0
        self.seconds_before = 0.0  # of sessions before this one
        self.history: list[dict[str, float | None]] = []
        self.last_scores: Scores | None = None
        self.best: dict[str, Any] | None = None  # under patience: epoch, score, weights
        # These are not.
        self.look_every, self.unseen = _LOOK_EVERY[self.device.type], list[_Step]()
        self.last_loss: float | None = None
        self.shown: dict[int, NDArray[np.uint8]] = {}  # what the last validation found
        self.temperature, self.calibration = 1.0, dict[str, float | None]()
        self._saved_at = time.monotonic()
        self._saving_seconds = 0.0

    # -- starting ---------------------------------------------------------------------------

    def start(self, start_from: str | None) -> None:
        """Make a new network (or take a model's), its optimizer and its averages."""
        torch.manual_seed(self.settings.seed)
        if start_from is None:
            self.network = self._build()
        else:
            self.network = self._from_model(start_from)
        if self.settings.patience and self.store.held_out_count == 0:
            raise InputError("--patience", "no image is held out to judge by", "leave it out")
        self._prepare()
        self.on_progress(Note(self._augmentation_text()))
        if self.ranks.is_writer:  # not sooner: what is wrong with the call shows first
            self.folder.clear(keep=self.store.path)
            self._write_config()
            pictures, masks = self.batch(self.indices(0))
            report.write_samples(self.folder.samples, pictures, masks, self.store.info)

    def _augmentation_text(self) -> str:
        if self.settings.augment == "none":
            return "no augmentation"
        name = " and ".join(filter(None, split_augment(self.settings.augment)))
        words = {"hflip": "left-right", "vflip": "up-down", "turn": "quarter turns"}
        kept = ", ".join(text for key, text in words.items() if key in self.symmetries)
        why = " (by where the classes lie)" if self.settings.symmetries == "auto" else ""
        return f"augmentation: {name}; symmetries{why}: {kept or 'none'}"

    def _build(self) -> nn.Module:
        info = self.store.info
        return build_network(
            self.settings.network, info.channels, len(self.classes.classes), **self.network_settings
        )

    def _from_model(self, name: str) -> nn.Module:
        """Return a network with the weights of the model ``name``; what does not fit is new."""
        paths = checkpoints.resolve_model(name)
        old, card = checkpoints.load_model(paths[0])
        if card.channels != self.store.info.channels:
            text = f"trained on {card.channels} channels, the store has {self.store.info.channels}"
            raise InputError(paths[0], text, "choose another --from")
        network = self._build()
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

    def _prepare(self) -> None:
        """Move the network to its device, measure its speed, make optimizer and averages."""
        settings = self.settings
        assert settings.lr is not None
        assert settings.weight_decay is not None
        self.network = self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(
            self.network, settings.optimizer, settings.lr, settings.weight_decay
        )
        self.validate_every = settings.validate or self._validation_interval()
        self.parallel = self._in_parallel(self.network)
        rate = self._measure_rate()
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
                raise InputError("--budget", text, f"give more than {need}")
            self.expected_steps = max(1, int(self.available * self.rate / self.batch_size))
            if self.expected_steps < self.steps_per_epoch:
                share = self.expected_steps / self.steps_per_epoch
                text = f"there is time for {100 * share:.0f} % of the patches only: give more, or "
                self.on_progress(Note(f"{text}train on smaller images (--scale 0.5)", warning=True))
        else:
            assert settings.epochs is not None
            self.expected_steps = settings.epochs * self.steps_per_epoch
        self.average = average_weights(self.network, settings.ema * self.expected_steps)

    def _in_parallel(self, network: nn.Module) -> nn.Module:
        """Return what gives a network's logits, and the mean of all ranks' gradients, in training.

        Batch normalisation takes the statistics of the whole batch on CUDA; on a CPU, for which
        torch has none such, those of a rank's own part.
        """
        if self.ranks.size == 1:
            return network
        if self.device.type == "cuda":
            # Other modules with the same tensors: what is saved and predicted with stays plain.
            tensors = {id(t): t for t in itertools.chain(network.parameters(), network.buffers())}
            network = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                deepcopy(network, tensors)
            )
        parallel = DistributedDataParallel(network)
        parallel.broadcast_buffers = False  # `learn` averages them
        return parallel

    def _measure_rate(self) -> float:
        """Return the patches a second of real steps, taken on copies that are then thrown away."""
        kept = self.network, self.parallel, self.optimizer
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            # How many steps there is time for must not show in a run.
            with torch.random.fork_rng(devices):
                self.network = deepcopy(self.network)
                self.parallel = self._in_parallel(self.network)
                self.optimizer = build_optimizer(self.network, self.settings.optimizer, 1e-6, 0.0)
                self._read([self.learn(self.indices(0), 0.0)])  # the first step also allocates
                begin, steps, seconds = time.monotonic(), 0, 0.0
                while steps < 5 and seconds < 1.5:
                    self.learn(self.indices(0), 0.0)
                    steps += 1
                    (seconds,) = self.ranks.maximum(time.monotonic() - begin)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                return steps * self.batch_size / (time.monotonic() - begin)
        finally:
            self.network, self.parallel, self.optimizer = kept

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train until the epochs or the budget are used up, then write the final model."""
        self.on_progress(self._plan())
        self.events = Events(
            self.folder.path / "events" if self.ranks.is_writer else None, self.epoch
        )
        try:
            return self._run()
        finally:
            self.events.close()

    def _run(self) -> TrainResult:
        while True:
            self.progress = self.ranks.first(self._progress)
            if not self.step_in_epoch and (self._patience_ended() or self.progress >= 1):
                return self._finish()
            self._run_epoch()
            if self.step_in_epoch:
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
            return self.step / self.expected_steps
        step_time = self.batch_size / self.rate
        whole = max(self.seconds_before + self.available, 1e-6)
        return (self.seconds() + step_time / 2) / whole

    def seconds(self) -> float:
        """Return the time trained so far, sessions before a resume included."""
        return self.seconds_before + time.monotonic() - self.training_started

    def _run_epoch(self) -> None:
        while self.step_in_epoch < self.steps_per_epoch and self.progress < 1:
            begin = time.monotonic()
            indices = self.indices(self.step_in_epoch)
            assert self.settings.lr is not None
            lr = self.settings.lr * rate_at(self.settings.schedule, self.progress)
            self.unseen.append(self.learn(indices, lr))
            self.average.update_parameters(self.network)
            self.step += 1
            self.step_in_epoch += 1
            self.patches_seen += len(indices)
            whole = self.step_in_epoch == self.steps_per_epoch
            if whole or len(self.unseen) >= self.look_every:
                self.look()
            self.epoch_seconds += time.monotonic() - begin
            self._report_step()
            self._agree()
            if self.save_due:
                self.save(finished=False)

    def indices(self, step_in_epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the patches of a step of this epoch."""
        if getattr(self, "_order_epoch", None) != self.epoch:
            self._order = epoch_order(len(self.data), self.settings.seed, self.epoch)
            self._order_epoch = self.epoch
        begin = step_in_epoch * self.batch_size
        last = step_in_epoch == self.steps_per_epoch - 1
        return self._order[begin : None if last else begin + self.batch_size]

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return this rank's part of the augmented batch.

        Args:
            indices: Of all patches of the step. A rank for which there is none takes the first and
                ignores all its pixels, as no rank may miss a step.

        Returns:
            Images (n, C, S, S) float32, masks (n, S, S) int64.
        """
        seed = np.random.SeedSequence([self.settings.seed, self.epoch, self.step_in_epoch])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        drawn = augmentation.draw(len(indices), self.augmentation, generator)
        spare = self.ranks.rank >= len(indices)
        part = slice(1) if spare else self.ranks.part
        drawn = drawn[part]
        batch = augmentation.apply(*self.data.batch(indices[part]), drawn, self.store.info.size)
        pictures, masks = self.change(*batch, drawn) if self.change else batch
        return pictures, masks.fill_(IGNORED) if spare else masks

    def learn(self, indices: NDArray[np.int64], lr: float) -> _Step:
        """Do one step of the optimizer, without waiting for what it gives."""
        pictures, masks = self.batch(indices)
        pixels = self.ranks.sum_((masks != IGNORED).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("share", 1.0)
        self.parallel.train()
        several = self.ranks.size > 1
        if several:
            self._reseed()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.parallel(pictures)
        # The mean over ranks, which is what gradients are, is then that over all their pixels.
        count = pixels.clamp_min(1) / self.ranks.size if several else None
        loss = self.loss(logits.float(), masks, count)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.ranks.average_([b for b in self.network.buffers() if b.is_floating_point()])
        return _Step(self.step + 1, lr, loss.detach(), norm, pixels)

    def _reseed(self) -> None:
        """Give this rank random numbers of its own for a step, for networks that draw some.

        They follow from the position alone: with several ranks none has a state to be saved.
        """
        place = [self.settings.seed, self.epoch, self.step_in_epoch, self.ranks.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

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

    def _read(self, steps: Sequence[_Step]) -> list[tuple[float, int]]:
        """Return loss and pixels of steps, in their order; see `look`."""
        if not steps:
            return []
        means = self.ranks.sum_(torch.stack([step.loss for step in steps])) / self.ranks.size
        losses: list[float] = means.tolist()
        norms: list[float] = torch.stack([step.norm for step in steps]).tolist()
        pixels: list[int] = torch.stack([step.pixels for step in steps]).tolist()
        for step, loss, norm in zip(steps, losses, norms, strict=True):
            if not np.isfinite([loss, norm]).all():
                self._diverged(step.number, loss, step.lr)
        return list(zip(losses, pixels, strict=True))

    def _diverged(self, number: int, value: float, lr: float) -> NoReturn:
        good = self.folder.model if self.folder.model.exists() else "none"
        last = f"{self.history[-1]['train_loss']:.4g}" if self.history else "none yet"
        raise DivergenceError(
            self.folder.path,
            f"the loss is not finite ({value}) at step {number}, learning rate {lr:.3g}; "
            f"last epoch's loss {last}; last good model: {show(good)}",
            "try a smaller --lr",
        )

    def _report_step(self) -> None:
        if self.settings.budget is None:
            total = self.expected_steps * len(self.data) / self.steps_per_epoch
        else:
            total = self.patches_seen / max(self.progress, 1e-6)
        text = f"epoch {self.epoch + 1}"
        text += "" if self.last_loss is None else f", loss {self.last_loss:.3f}"
        done = min(self.patches_seen, total)
        self.on_progress(Progress("training", done, total, "patches", text))

    def _end_epoch(self) -> None:
        """Close an epoch: validate where due, add its row, save."""
        self.look()
        whole = self.step_in_epoch == self.steps_per_epoch
        over = self.progress >= 1
        scored = (self.epoch + 1) % self.validate_every == 0 and whole and not over
        found, val_loss = self.validate() if scored else (None, None)
        self.epoch += 1  # after validation: a run stopped in it closes this epoch once more
        patches = len(self.data) if whole else self.step_in_epoch * self.batch_size
        self._add_row(patches / max(self.epoch_seconds, 1e-9), found, val_loss)
        self.step_in_epoch, self.loss_sum, self.valid_sum, self.epoch_seconds = 0, 0.0, 0.0, 0.0
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
            "epoch": self.epoch,
            "step": self.step,
            "seconds": round(self.seconds(), 3),
            "patches": self.patches_seen,
            "lr": self.optimizer.param_groups[0]["lr"],
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
            weights = {k: v.clone() for k, v in self._averaged().state_dict().items()}
            self.best = {"epoch": self.epoch, "score": score, "weights": weights, "worse": 0}
        else:
            self.best["worse"] += 1

    def _patience_ended(self) -> bool:
        patience = self.settings.patience
        return bool(patience and self.best and self.best["worse"] >= patience)

    # -- validation -------------------------------------------------------------------------

    def _validation_windows(self) -> float:
        """Return what a validation computes, in patches."""
        info = self.store.info
        stride = PredictSettings().stride_for(info.size, can_be_seamless(self.network))
        computed = (
            computed_pixels(
                scaled_size(source.height, source.width, info.scale),
                [self.network],
                info.size,
                stride,
                self.device,
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
        return max(1, int(np.ceil(cost / (_VALIDATION_SHARE * len(self.data)))))

    def _averaged(self) -> nn.Module:
        module: nn.Module = self.average.module if self.settings.ema else self.network
        return module

    def segmenter(self) -> Segmenter:
        """Return the averaged network as ``predict`` would use it by default."""
        info, defaults = self.store.info, PredictSettings()
        return Segmenter(
            [self._averaged()],
            size=info.size,
            means=[info.mean],
            stds=[info.std],
            stride=defaults.stride_for(info.size, can_be_seamless(self.network)),
            weights=defaults.weights,
            device=self.device,
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
            self.events.add_pictures(self.epoch, self._pictures(), self.classes)

    def _pictures(self) -> list[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]]:
        """Return image, truth and labels of the images that the last validation remembers."""
        return [(*self.store.held_out(k)[:2], labels) for k, labels in self.shown.items()]

    # -- ending and saving ------------------------------------------------------------------

    def _finish(self) -> TrainResult:
        kept = "final"
        if self.best is not None:
            self._averaged().load_state_dict(self.best["weights"])
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
            report.write_validation(self.folder.validation, self._pictures(), self.classes)
        self.save(finished=True, kept=kept)
        self.ranks.gather(None)  # nobody looks for the model before it is there
        if late:  # not sooner: a run resumed until here would write them twice
            self.events.add_row({"epoch": self.epoch, **late})
            self._show()
        names = tuple(s.name for s in self.store.info.sources if s.split == "val")
        return TrainResult(self.folder, found, names, self.seconds(), self.patches_seen, kept)

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
        return Interrupted(
            signum,
            self.folder.path,
            f"stopped after step {self.step} (epoch {self.epoch + 1}); everything is saved",
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
        checkpoints.write_checkpoint(self.folder.checkpoint, self._state(finished))
        if self.history:
            write_history(self.folder.history, self.history)
        checkpoints.write_model(self.folder.model, self._averaged().state_dict(), card)
        self._saved_at = time.monotonic()
        self._saving_seconds += self._saved_at - begin

    def _card(self, finished: bool, kept: str) -> ModelCard:
        info = self.store.info
        scored: dict[str, Any] = self.last_scores.to_dict() if self.last_scores else {}
        if self.calibration:
            scored["calibration"] = self.calibration
        return ModelCard(
            network=self.settings.network,
            settings=self.network_settings,
            channels=info.channels,
            classes=self.classes,
            mean=info.mean,
            std=info.std,
            dtype=info.dtype,
            scale=info.scale,
            patch_size=info.size,
            symmetries=tuple(sorted(self.symmetries)),
            scores=scored,
            name=self.folder.name,
            store=str(self.store.path),
            store_hash=self.store.content_hash,
            sources=tuple(ModelSource(s.name, s.sha256, s.split) for s in info.sources),
            trained=datetime.now(UTC).isoformat(timespec="seconds"),
            patches_seen=self.patches_seen,
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
        found = likeness.looks_of_patches(opened.images, opened.source, opened.info.size)
        return found.to_dict() if found else {}

    def _state(self, finished: bool) -> dict[str, Any]:
        return {
            "finished": finished,
            "settings": dataclasses.asdict(self.settings),
            "network_settings": self.network_settings,
            "given": self.given,
            "store": str(self.store.path),
            "store_hash": self.store.content_hash,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device)
            if self.device.type == "cuda"
            else None,
            "history": self.history,
            "best": self.best,
            "position": {name: getattr(self, name) for name in _POSITION},
            "seconds": self.seconds(),
            "expected_steps": self.expected_steps,
            "machine": _machine(self.device),
        }

    def restore(self, saved: Mapping[str, Any], path: Path) -> None:
        """Take over the state of a checkpoint read from ``path``."""
        if saved["store_hash"] != self.store.content_hash:
            text = f"has changed since {show(path)} was saved"
            raise InputError(self.store.path, text, "train a new --run on it")
        torch.set_num_threads(saved["machine"]["threads"])
        self.network_settings = dict(saved["network_settings"])
        self.given = dict(saved["given"])
        self.network = self._build()
        self.seconds_before = float(saved["seconds"])
        self._prepare()
        self.network.load_state_dict(saved["network"])
        self.expected_steps = int(saved["expected_steps"])  # of the whole run, not of what is left
        self.average = average_weights(self.network, self.settings.ema * self.expected_steps)
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        match_layouts(self.optimizer)
        torch.set_rng_state(saved["torch_random"])
        if self.device.type == "cuda" and (state := saved.get("cuda_random")) is not None:
            torch.cuda.set_rng_state(state, self.device)
        self.history = [dict(row) for row in saved["history"]]
        self.best = saved["best"]
        for name in _POSITION:
            setattr(self, name, saved["position"][name])
        for key, now in _machine(self.device).items():
            if (before := saved["machine"].get(key, now)) != now:
                text = f"not bit-exact: {key} {before} -> {now}"
                self.on_progress(Note(text, warning=True))

    # -- what people look at ----------------------------------------------------------------

    def _plan(self) -> Plan:
        several = self.ranks.size
        if self.settings.budget is None:
            left = (self.expected_steps - self.step) * self.batch_size / self.rate
            share = self._validation_windows() * _FORWARD_SHARE / self.validate_every
            seconds = left * (1 + share / len(self.data))
            epochs = self.settings.epochs or 1
        else:
            seconds = max(0.0, self.available)
            epochs = -(-self.expected_steps // self.steps_per_epoch)
        return Plan(
            self.settings.network,
            count_parameters(self.network),
            len(self.data),
            epochs,
            self.rate,
            seconds,
            self.store.images.nbytes + self.store.masks.nbytes if self.data.in_memory else 0,
            describe_device(self.device) + (f" x {several}" if several > 1 else ""),
            self.step,
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
        atomic.write_bytes(self.folder.config, text.encode())


_POSITION = (
    "epoch",
    "step_in_epoch",
    "step",
    "patches_seen",
    "loss_sum",
    "valid_sum",
    "epoch_seconds",
    "validate_every",
)


def _choose_augmentation(
    settings: TrainSettings, opened: Store
) -> tuple[frozenset[str], augmentation.Augmentation]:
    """Return the symmetries and the augmentation that the settings stand for with this store."""
    name, _ = split_augment(settings.augment)
    if name == "none" or settings.symmetries == "none":
        symmetries: frozenset[str] = frozenset()
    elif settings.symmetries == "auto":
        found = opened.info.settings.get("symmetries", ())
        symmetries = frozenset(name for name in SYMMETRIES if name in found)
    else:
        symmetries = frozenset(settings.symmetries.split(","))
    return symmetries, augmentation.preset(name, symmetries)


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": device.type,
        "ranks": world().size,
    }
