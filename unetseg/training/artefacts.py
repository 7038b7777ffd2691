"""The files of a run: model, checkpoint, history, settings, pictures, TensorBoard."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unetseg import __version__, files
from unetseg.dataset.store import Store, StoreInfo
from unetseg.pictures import drawing, writing
from unetseg.prediction import likeness, model_file
from unetseg.prediction.model_file import ModelCard, ModelSource
from unetseg.prediction.run_folder import RunFolder, write_history
from unetseg.records import to_plain
from unetseg.scoring.metrics import Scores
from unetseg.settings import TrainSettings
from unetseg.text import to_toml
from unetseg.training.checkpoint import TrainState, write_state
from unetseg.training.recipe import Recipe, choose_symmetries
from unetseg.training.validation import Validation

_SAMPLES = 16
_SAVE_SECONDS = 60.0  # a killed run loses at most about this much
_SAVE_SHARE = 0.02  # of the time, at most, is spent on saving after short epochs
_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/held-out",
    "lr": "lr",
    "val_mean_iou": "IoU/mean",
    "patches_per_second": "patches a second",
}


class Artefacts:
    """The files of one run. One process of several writes them.

    Args:
        opened: The store that is trained on.
        folder: The folder of the run.
        recipe: The settings of the training.
        learned_before: See `ModelCard`.

    Attributes:
        opened, folder, recipe, learned_before: The arguments of these names.
    """

    def __init__(
        self,
        opened: Store,
        folder: RunFolder,
        recipe: Recipe,
        learned_before: tuple[str, ...] = (),
    ) -> None:
        self.opened, self.folder, self.recipe = opened, folder, recipe
        self.learned_before = learned_before
        self._saved_at = time.monotonic()
        self._saving_seconds = 0.0

    def begin(
        self, draw: Callable[[], tuple[Tensor, Tensor]], start_from: str | None = None
    ) -> None:
        """Remove the files of an earlier run, and write the settings and the first batch.

        Args:
            draw: Returns that batch; see `write_samples`.
            start_from: The model whose weights are the start, if any.
        """
        self.folder.clear(keep=self.opened.path)
        place = {"source": str(self.opened.path), "run": str(self.folder.path)}
        place |= {"from": start_from} if start_from else {}
        write_config(self.folder.config, self.recipe, place)
        write_samples(self.folder.samples, *draw(), self.opened.info)

    @property
    def is_save_due(self) -> bool:
        """Whether the last save was long ago."""
        return time.monotonic() - self._saved_at > _SAVE_SECONDS

    def may_save(self, seconds: float) -> bool:
        """Whether little of a training of so many seconds was spent on saving."""
        return self._saving_seconds <= _SAVE_SHARE * seconds

    def save(self, state: TrainState, weights: Mapping[str, Tensor], card: ModelCard) -> None:
        """Write checkpoint, history and model; each is the old file or the new one, whole.

        The model comes last: once it says that the run is finished, all the rest is there. A run
        killed before that goes on from the checkpoint.
        """
        begin = time.monotonic()
        write_state(self.folder.checkpoint, state)
        if state.history:
            write_history(self.folder.history, state.history)
        model_file.write_model(self.folder.model, weights, card)
        self._saved_at = time.monotonic()
        self._saving_seconds += self._saved_at - begin

    def show(self, found: Validation) -> None:
        """Write ``validation.png``: held-out images with their truth and their prediction."""
        sheet = drawing.validation_sheet(found.pictures(self.opened), self.opened.info.classes)
        writing.write_picture(self.folder.validation, sheet)

    def card(
        self,
        patches_seen: int,
        scores: Scores | None,
        calibration: Mapping[str, Any] | None,
        *,
        finished: bool,
        kept: str,
    ) -> ModelCard:
        """Return the card of the model as it stands. The first call may take a second.

        Args:
            patches_seen: Patches learned from.
            scores: The scores of the last validation, if there was one in this session.
            calibration: The result of `unetseg.training.validation.calibrate`, at the end.
            finished: Whether nothing is left to train.
            kept: Which weights these are; see `ModelCard`.
        """
        info = self.opened.info
        found: dict[str, Any] = scores.to_dict() if scores else {}
        if calibration:
            found["calibration"] = dict(calibration)
        return ModelCard(
            network=self.recipe.network,
            settings=self.recipe.network_settings,
            channels=info.channels,
            classes=info.classes,
            mean=info.mean,
            std=info.std,
            dtype=info.dtype,
            scale=info.scale,
            patch_size=info.size,
            symmetries=tuple(sorted(choose_symmetries(self.recipe, info))),
            scores=found,
            name=self.folder.name,
            store=str(self.opened.path),
            store_hash=self.opened.content_hash,
            sources=tuple(ModelSource(s.name, s.sha256, s.split) for s in info.sources),
            trained=datetime.now(UTC).isoformat(timespec="seconds"),
            patches_seen=patches_seen,
            temperature=calibration["temperature"] if calibration else 1.0,
            finished=finished,
            kept=kept,
            versions={"unetseg": __version__, "torch": str(torch.__version__)},
            looks=self._appearance,
            class_pixels=info.class_pixels_train,
            ignored_area=info.ignored_area,
            takes_grey=bool(info.settings.get("grey", False)),
            selection=info.selection,
            line_width=info.settings.get("line_width"),
            learned_before=self.learned_before,
        )

    @cached_property
    def _appearance(self) -> dict[str, Any]:
        """The look of the training images; empty where they are too few to say."""
        opened = self.opened
        found = likeness.appearance_of_patches(opened.images, opened.source, opened.info.size)
        return to_plain(found) if found else {}


def write_config(path: Path, settings: TrainSettings, others: Mapping[str, Any]) -> None:
    """Write ``config.toml``: the settings of a run, as ``--config`` takes them.

    Args:
        path: The file.
        settings: The settings as resolved.
        others: Further options of ``unetseg train``, by name.
    """
    values = {**others, **dataclasses.asdict(settings), "validate": None}  # it is no option
    if settings.budget is not None:
        values["budget"] = f"{settings.budget:.12g}s"
    files.write_bytes(path, to_toml("train", values).encode())


def write_samples(path: Path, pictures: Tensor, masks: Tensor, info: StoreInfo) -> None:
    """Write the first images of an augmented batch, each above its mask.

    Args:
        path: The PNG.
        pictures: (N, C, S, S) float32, normalised.
        masks: (N, S, S) class indices, 255 ignored.
        info: Mean, standard deviation and classes of the store they come from.
    """
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (info.mean, info.std))
    raw = (pictures[:_SAMPLES].cpu() * std + mean).permute(0, 2, 3, 1).numpy()
    labels = masks[:_SAMPLES].cpu().numpy()
    writing.write_picture(path, drawing.sample_sheet(raw, labels, info.classes))


class TensorBoard:
    """The events of one run, by epoch. Where TensorBoard is not installed, nothing is written.

    Args:
        path: The folder of the event files; None for no events.
        epoch: Epochs done so far. Events of later epochs in the folder are hidden: the run was
            stopped before it saved these epochs, or they are of another run.
    """

    def __init__(self, path: Path | None, epoch: int) -> None:
        self._writer: Any = None
        if path is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the extra is not installed
            return
        self._writer = SummaryWriter(str(path), purge_step=epoch + 1)

    def add_row(self, row: Mapping[str, float | None]) -> None:
        """Write the losses, the rate and the IoUs of a row of the history."""
        if self._writer is None:
            return
        for key, value in row.items():
            tag = f"IoU/class {key[4:]}" if key.startswith("iou_") else _TAGS.get(key)
            if tag and value is not None:
                self._writer.add_scalar(tag, value, row["epoch"])

    def add_pictures(self, epoch: int, found: Validation, opened: Store) -> None:
        """Write the first held-out images with their truth and prediction."""
        if self._writer is not None:
            sheet = drawing.validation_sheet(found.pictures(opened), opened.info.classes)
            self._writer.add_image("held out", sheet, epoch, dataformats="HWC")

    def close(self) -> None:
        """Write the events that are still in memory."""
        if self._writer is not None:
            self._writer.close()
