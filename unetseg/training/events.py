"""Events for TensorBoard, where it is installed: curves and pictures of a run while it trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.pictures.drawing import validation_sheet

_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/held-out",
    "lr": "lr",
    "val_mean_iou": "IoU/mean",
    "patches_per_second": "patches a second",
}


class Events:
    """The events of one run, by epoch. Without TensorBoard nothing is written, and nothing said.

    Args:
        path: The folder of the event files; None for no events.
        epoch: Epochs done so far. What the folder holds of later ones, from a run that was stopped
            before it saved them or from another one, is not shown any more.
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

    @property
    def active(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def add_row(self, row: Mapping[str, float | None]) -> None:
        """Write what a row of the history holds: losses, rate, mean IoU and the classes' IoU."""
        if self._writer is None:
            return
        for key, value in row.items():
            tag = f"IoU/class {key[4:]}" if key.startswith("iou_") else _TAGS.get(key)
            if tag and value is not None:
                self._writer.add_scalar(tag, value, row["epoch"])

    def add_pictures(
        self,
        epoch: int,
        rows: Sequence[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]],
        classes: ClassTable,
    ) -> None:
        """Write images with their truth and prediction; see `drawing.validation_sheet`."""
        if self._writer is not None and rows:
            sheet = validation_sheet(rows, classes)
            self._writer.add_image("held out", sheet, epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
