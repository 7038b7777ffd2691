"""Repairing a set of labelled images into ``images/``, ``masks/`` and ``classes.toml``.

Every source is read into class indices first. The copy always has one form. The images are
unchanged. The masks hold the values 0, 1, 2, ... with a palette, and 255 where a pixel is ignored.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.arguments import Reports, public, several
from unetseg.classes import IGNORED, ClassTable, SegmentationClass
from unetseg.dataset import naming, pairing
from unetseg.dataset.conversion.annotations import Annotations, ConvertedMask
from unetseg.dataset.conversion.class_masks import read_class_masks
from unetseg.dataset.conversion.drawn_shapes import read_drawn
from unetseg.dataset.conversion.image_masks import read_pairs
from unetseg.dataset.conversion.lists import LISTS, divide
from unetseg.dataset.conversion.mask_files import refuse_pages
from unetseg.dataset.conversion.object_masks import read_objects
from unetseg.dataset.conversion.views import find_views, read_view
from unetseg.dataset.findings.contents import ask_kinds
from unetseg.dataset.shapes import describe_hidden
from unetseg.errors import InputError, arg
from unetseg.objects.files import OBJECTS
from unetseg.pictures import bands, reading, writing
from unetseg.pictures.masks import NoClassError, join_no_class
from unetseg.pictures.snapping import LIMIT
from unetseg.progress import Note, OnProgress, steps, warn
from unetseg.settings import check_line_width, check_share
from unetseg.signals import catching


@dataclass(frozen=True)
class Conversion:
    """The folder that `convert_folder` wrote.

    Attributes:
        folders: The folders of labelled images: one, or one for each list (``train``, ``val``).
        images: How many labelled images are in each folder.
        left_out: The images that no list names.
        classes: The classes as written.
        pixels: The number of pixels of all masks.
        snapped: The number of pixels that were moved to the nearest class.
        blended: The number of those that were farther from that class than noise.
        ignored: The number of ignored pixels.
        objects: The number of objects; None where the source does not tell them apart.
    """

    folders: tuple[Path, ...]
    images: tuple[int, ...]
    left_out: tuple[str, ...]
    classes: ClassTable
    pixels: int
    snapped: int
    blended: int
    ignored: int
    objects: int | None = None


@public()
def convert_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    instances: bool = False,
    fov: str | None = None,
    order: str | Sequence[str] = (),
    limit: float = LIMIT,
    line_width: float | None = None,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> Conversion:
    """Write a repaired copy of a set of labelled images; the original is not touched.

    The set may hold one mask for each class (``x_line.png`` or ``masks/line/x.png``), or all that
    `find_pairs` reads, exports of annotation tools among them. Masks may be blended, noisy or saved
    as JPEG.
    The copy appears whole or not at all.
    ``train.txt``, ``val.txt`` and ``test.txt`` become folders of these names, and so do the parts
    of a divided set.

    Args:
        source: The set.
        out: A new or empty folder outside of it.
        classes: A ``classes.toml`` that says what the masks hold; None takes the set's own, or
            the values and colours found.
        ignore: Mask values or colours that are no class and no object.
        instances: Whether masks number objects, or each drawn shape is one. Where a set declares
            its classes and has label images in ``objects/``, those number the objects. So do the
            masks in ``SegmentationObject/``, as CVAT and Pascal VOC have them. The class
            of objects is followed by the class of their border, which is one pixel wide, inside
            each object. Numbered objects are "foreground" unless the classes are one beside the
            background, whose value may be another than 0. Their numbers are written to
            ``objects/``.
        fov: Folder (in ``source``, or a path) of masks of the field of view; outside is ignored.
        order: All classes, the topmost last; it decides where masks of one class each overlap.
        limit: Share of a mask's pixels, 0 to 1, that may lie farther from the nearest class than
            noise.
        line_width: The width in pixels at which lines and points of LabelMe, VIA and QuPath are
            drawn; None leaves them out.
        overwrite: Replace the files of an earlier conversion.
        on_progress: Receives `Progress`.

    Raises:
        InputError: A set that cannot be read safely in one way, or an option that does nothing for
            a set of its kind.
        MachineError: The disk is full, or writing is not permitted.
        Interrupted: A signal came.
    """
    check_line_width(line_width)
    check_share("limit", limit)
    root, target = Path(source), Path(out)
    _check_places(root, target, overwrite)
    home = _view_folder(root, fov) if fov else None
    labelled = _read_labels(
        root,
        classes=None if classes is None else Path(classes),
        ignored=several(ignore),
        instances=instances,
        home=home,
        order=several(order),
        limit=limit,
        line_width=line_width,
    )
    for path in labelled.images.values():
        refuse_pages(path)
    for text in labelled.warnings:
        on_progress(Note(f"{root}: {text}", warning=True))
    if home:
        labelled = _inside_views(labelled, home, on_progress, limit)
    parts, left_out = divide(root, labelled)
    # Keep the colours: predictions then look like the masks that people know.
    written = tuple(SegmentationClass(c.name, i, c.colour) for i, c in enumerate(labelled.classes))
    table = ClassTable(written, (IGNORED,))
    tally = _write_copy(target, labelled, parts, table, on_progress)
    if labelled.are_found and (asked := ask_kinds(np.array(tally.present), table.names)):
        on_progress(Note(f"{root}: {'; '.join(asked)}", warning=True))
    if tally.hidden:
        on_progress(Note(f"{root}: {describe_hidden(tally.hidden)}", warning=True))
    counts = {key: tally.counts[key] for key in ("pixels", "snapped", "blended", "ignored")}
    folders, images = tuple(target / part for part in parts), tuple(map(len, parts.values()))
    counted = tally.counts["objects"] if instances else None
    return Conversion(folders, images, left_out, table, **counts, objects=counted)


def _read_labels(
    root: Path,
    *,
    classes: Path | None,
    ignored: tuple[int | str, ...],
    instances: bool,
    home: Path | None,
    order: tuple[str, ...],
    limit: float,
    line_width: float | None,
) -> Annotations:
    """Read the labels in the way in which the set keeps them; refuse options that do nothing there.

    The options are those of `convert_folder`. ``home`` is the folder of the fields of view.
    """
    given = {
        arg("classes"): classes is not None,
        arg("ignore"): bool(ignored),
        arg("instances"): instances,
        arg("order"): bool(order),
        arg("limit"): limit != LIMIT,
        arg("line_width"): line_width is not None,
    }
    without = home.name if home else ""
    of_view = (arg("limit"),) if home else ()  # `limit` holds for masks of the field of view, too
    if drawn := read_drawn(root, classes, instances, line_width):
        tool, labelled = drawn
        used = (arg("instances" if instances else "classes"), arg("line_width"), *of_view)
        _refuse_unused(given, f"shapes of {tool}", used)
        return labelled
    if by_class := read_class_masks(root, order, limit, instances):
        used = (arg("order"), *((arg("instances"), *of_view) if instances else (arg("limit"),)))
        _refuse_unused(given, "one mask a class", used)
        return by_class
    if instances:
        used = (arg("instances"), arg("classes"), arg("ignore"), *of_view)
        _refuse_unused(given, "masks that number objects", used)
        return read_objects(root, classes, ignored, without)
    _refuse_unused(given, "one mask an image", (arg("classes"), arg("ignore"), arg("limit")))
    return read_pairs(root, classes, ignored, without, limit)


def _refuse_unused(given: Mapping[str, bool], kind: str, used: Sequence[str]) -> None:
    """Refuse options that would do nothing for a set of this kind."""
    useless = ", ".join(o for o, is_given in given.items() if is_given and o not in used)
    if useless:
        raise InputError(useless, f"does nothing here: the set holds {kind}", "leave it out")


def _check_places(root: Path, target: Path, overwrite: bool) -> None:
    """Refuse a target that is, holds or lies in the source, or holds other things."""
    if not root.is_dir():
        raise InputError(
            root, "not found" if not root.exists() else "is no folder", "name a folder"
        )
    ours, theirs = target.resolve(), root.resolve()
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        raise InputError(target, f"lies in {root} or around it", "name a folder elsewhere")
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(target, "is a file; a folder is due here", "choose another")
    if any(target.iterdir()) and not overwrite:
        raise InputError(target, "is not empty", f"choose another, or {arg('overwrite', True)}")


def _clear(target: Path) -> None:
    """Remove the files of an earlier conversion."""
    for part in ("", *LISTS):
        for pattern in ("images/*", "masks/*.png", f"{OBJECTS}/*.tif", "classes.toml"):
            for old in (target / part).glob(pattern):
                if old.is_file():
                    old.unlink()


@dataclass
class _Tally:
    """Facts of all masks that were written.

    Attributes:
        counts: ``pixels``, ``ignored``, ``snapped``, ``blended`` and ``objects``, in numbers.
        present: ``(C,)`` of each mask: whether it shows each class.
        hidden: The `ConvertedMask.hidden` of each mask that has hidden shapes.
    """

    counts: Counter[str] = field(default_factory=Counter)
    present: list[NDArray[np.bool_]] = field(default_factory=list)
    hidden: list[Sequence[str]] = field(default_factory=list)

    def add(self, converted: ConvertedMask, classes: int) -> None:
        """Count a mask of so many classes."""
        pixels = np.bincount(converted.mask.ravel(), minlength=IGNORED + 1)
        self.counts.update(pixels=converted.mask.size, ignored=int(pixels[IGNORED]))
        self.counts.update(snapped=converted.moved, blended=converted.blended)
        if converted.numbers is not None:
            self.counts["objects"] += int(converted.numbers.max(initial=0))
        self.present.append(pixels[:classes] > 0)
        self.hidden += [converted.hidden] if converted.hidden else []


def _write_copy(
    target: Path,
    labelled: Annotations,
    parts: Mapping[str, Sequence[str]],
    table: ClassTable,
    on_progress: OnProgress,
) -> _Tally:
    """Write all images and masks, in place of those of an earlier conversion.

    Raises:
        NoClassError: It names all that masks hold and that is no class; nothing is written then.
    """
    items = [(part, name) for part, names in parts.items() for name in names]
    file_names = {name: file for names in parts.values() for name, file in _files(labelled, names)}
    tally, strange = _Tally(), list[NoClassError]()
    with catching() as caught, files.building(target) as building:
        for part, name in steps(
            items,
            "converting",
            "images",
            on_progress,
            name=lambda item: item[1],
            check=lambda: caught.check(target, "run the same line again"),
        ):
            image = labelled.images[name]
            info = reading.read_info(image)
            try:
                converted = labelled.read(name, (info.height, info.width))
            except NoClassError as error:
                strange.append(error)  # the other masks may hold further values
                continue
            _write(building / part, file_names[name], image, converted, table)
            tally.add(converted, len(table))
        if strange:
            raise join_no_class(strange)
        for part in parts:
            pairing.write_classes(building / part, table)
        _clear(target)
    return tally


def _files(labelled: Annotations, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the images of a part with the names of their files there.

    A file keeps its name. Where several have the same stem, it bears the name of its image.
    """
    stems = Counter(naming.stem_of(labelled.images[name]) for name in names)
    for name in names:
        image = labelled.images[name]
        yield name, image.name if stems[naming.stem_of(image)] == 1 else name + image.suffix


def _write(part: Path, file: str, image: Path, converted: ConvertedMask, table: ClassTable) -> None:
    """Write the mask, then the image: a copy of its file, or a PNG where EXIF turns it."""
    name = naming.stem_of(Path(file))
    writing.write_mask(part / "masks" / f"{name}.png", converted.mask, table)
    if converted.numbers is not None:
        bands.write_numbers(part / OBJECTS / f"{name}.tif", converted.numbers)
    if reading.read_info(image).orientation == 1:
        files.write_bytes(part / "images" / file, image.read_bytes())
        return
    pixels = reading.read_image(image)
    if pixels.shape[2] not in (1, 3) or pixels.dtype.kind == "f":
        text = "is turned by its EXIF orientation and holds more than a PNG can"
        raise InputError(image, text, "save it upright")
    writing.write_picture(part / "images" / f"{name}.png", pixels)


# --- fields of view --------------------------------------------------------------------------


def _view_folder(root: Path, fov: str) -> Path:
    """Return the folder of the fields of view, in the set or elsewhere; refuse a missing one."""
    home = root / fov if (root / fov).is_dir() else Path(fov)
    if not home.is_dir():
        there = ", ".join(d.name for d in naming.list_folder(root)[1]) or "none"
        raise InputError(root / fov, "not found", f"folders there are: {there}")
    return home


def _inside_views(
    labelled: Annotations, home: Path, on_progress: OnProgress, limit: float
) -> Annotations:
    """Return the labels, ignored outside the fields of view that a folder holds."""
    views = find_views(home, list(labelled.images.values()), on_progress, limit)

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        converted = labelled.read(name, shape)
        inside = read_view(views[labelled.images[name]], shape, limit)
        return replace(converted, mask=np.where(inside, converted.mask, np.uint8(IGNORED)))

    return replace(labelled, read=read)
