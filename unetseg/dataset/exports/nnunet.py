"""nnU-Net: folders of images and masks, and a JSON file with the classes."""

import json
from pathlib import Path

from unetseg.classes import ClassTable, named_classes
from unetseg.dataset import naming
from unetseg.dataset.exports.export import Export, NotReadError, Reading
from unetseg.errors import InputError


def read_nnunet(folder: Path) -> Export | None:
    """Read nnU-Net's raw folders: ``imagesTr/x_0000.png``, ``labelsTr/x.png``, dataset.json."""
    images, masks = folder / "imagesTr", folder / "labelsTr"
    if not images.is_dir() or not masks.is_dir():
        return None
    file = folder / "dataset.json"
    if any(masks.glob("*.nii*")):
        raise InputError(masks, "NIfTI volumes", "export each slice as PNG or TIFF")
    with Reading(file, "nnU-Net"):
        data = json.loads(file.read_text("utf-8-sig"))
        channels = data.get("channel_names") or data.get("modality")
        if len(channels) > 1 and any(images.glob("*_0001.*")):
            text = f"{len(channels)} files an image, one a channel"
            raise NotReadError(text, "save one TIFF with all channels as x_0000.tif")
        values = {
            str(name): int(value)
            for key, item in data["labels"].items()
            for name, value in [(item, key) if str(key).isdigit() else (key, item)]
        }
    names = sorted((n for n in values if n != "ignore"), key=lambda n: values[n])
    table = ClassTable(
        named_classes(names, values=[values[n] for n in names]),
        (values["ignore"],) if "ignore" in values else (),
    )
    pairs, problem = naming.match_files(
        folder, naming.list_images(images), naming.list_images(masks)
    )
    if problem:
        raise problem
    return Export("nnU-Net", pairs, table)
