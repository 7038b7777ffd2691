"""What a person looks at after a run: pictures of what went in and what came out."""

from pathlib import Path

import torch
from torch import Tensor

from unetseg import drawing, images, pixels
from unetseg.segmentation import Segmenter
from unetseg.store import Store, StoreInfo

_SAMPLES = 16
_ROWS = 4  # held-out images in validation.png


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
    images.write_picture(path, drawing.sample_sheet(raw, labels, info.classes))


def write_validation(path: Path, opened: Store, segmenter: Segmenter) -> None:
    """Write the first held-out images with their truth and their prediction; nothing without."""
    rows = []
    for k in range(min(_ROWS, opened.held_out_count)):
        image, mask, _ = opened.held_out(k)
        shape = (mask.shape[0], mask.shape[1])
        scaled = pixels.rescale_image(image, pixels.scaled_size(*shape, opened.info.scale))
        rows.append((image, mask, segmenter.labels(scaled, shape)))
    if rows:
        images.write_picture(path, drawing.validation_sheet(rows, opened.info.classes))
