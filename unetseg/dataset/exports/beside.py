"""Pictures of a set of shapes that the shapes do not label: further images, and masks."""

from pathlib import Path

from unetseg.dataset.exports.export import Export
from unetseg.dataset.exports.values import visible_files
from unetseg.dataset.naming import MASK_FOLDERS, MASK_SUFFIXES, is_picture, list_folder, natural_key
from unetseg.text import few, plural, show

_WRITTEN = ("objects", "predictions", "runs")  # folders that hold results, no images


def find_beside(folder: Path, export: Export) -> list[Path]:
    """Return the pictures under a folder that an export does not label, in natural order."""
    labelled = {pair.image for pair in export.pairs}
    found = (
        path
        for path in visible_files(folder, _WRITTEN)
        if is_picture(path.name) and path not in labelled
    )
    return sorted(found, key=lambda path: natural_key(str(path)))


def is_mask(path: Path, folder: Path) -> bool:
    """Return whether a picture under a folder is a mask by its name or that of its folder."""
    homes = [home.lower() for home in path.relative_to(folder).parts[:-1]]
    of_masks = any(h in MASK_FOLDERS or h.startswith(("masks_", "segmentation")) for h in homes)
    return of_masks or path.stem.lower().endswith(MASK_SUFFIXES)


def describe_beside(folder: Path, export: Export, beside: list[Path]) -> list[str]:
    """Say which images have no labels, and which masks are not read."""
    sources = {pair.mask for pair in export.pairs}
    texts = []
    if names := [show(path.name) for path in beside if not is_mask(path, folder)]:
        where = show(next(iter(sources)).name) if len(sources) == 1 else export.tool
        have, are = ("have", "are") if len(names) > 1 else ("has", "is")
        text = f"{plural(len(names), 'image')} {have} no labels in {where} and {are} left out"
        texts.append(f"{text}: {few(names)}")
    homes = {path.parent for path in sources}
    rivals = [d for d in list_folder(folder)[1] if d.name.lower() in MASK_FOLDERS]
    for rival in rivals:
        count = sum(path.parent == rival for path in beside)
        if count and rival not in homes:
            label = f"{show(next(iter(homes)).name)}/" if folder not in homes else "the labels"
            text = f"{show(rival.name)}/ holds {plural(count, 'mask')} that are not read"
            texts.append(f"{text}; move {label} away to use them")
    return texts
