"""What a person looks at after a run: pictures of what went in and what came out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import ClassTable
from unetseg.dataset.store import StoreInfo
from unetseg.pictures import drawing, writing

_SAMPLES = 16


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


def write_validation(
    path: Path,
    rows: Sequence[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]],
    classes: ClassTable,
) -> None:
    """Write held-out images with their truth and their prediction; nothing without any.

    Args:
        path: The PNG.
        rows: Image (H, W, C), truth and predicted labels (H, W) of each.
        classes: What labels mean.
    """
    if rows:
        writing.write_picture(path, drawing.validation_sheet(rows, classes))
