import json
import re
import shlex
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import unetseg
from tests.dataset.test_cutting import DATA
from tests.dataset.test_label_traps import (
    COLOURS,
    COUNT,
    TRAPS,
    grey_of,
    mask_of,
    paletted,
    png,
    smooth,
    tif,
    wide,
    with_255,
    write,
    write_with_line,
)
from tests.objects.test_numbering import cells, cut_in_two
from tests.support import NAMES, QUICK, VALUES_TOML, write_set
from unetseg.cli.app import main
from unetseg.dataset.conversion.copying import convert_folder
from unetseg.dataset.cutting import build_store
from unetseg.dataset.findings import neighbours
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.dataset.findings.neighbours import _tiles, suggest_group
from unetseg.errors import InputError, as_option, worded
from unetseg.prediction import model_file
from unetseg.progress import Progress
from unetseg.settings import PatchSettings


def severities(found, text):
    return [f.severity for f in found.findings if text in str(f)]


def saved(save):
    """Return a writer of images that changes number 1."""
    return lambda p, k: save(p) if k == 1 else png(p, grey_of(k))


def test_a_clean_folder_has_its_facts_and_no_findings(tmp_path):
    found = inspect_folder(write(tmp_path / "set"))
    assert found.findings == ()
    data = found.to_dict()
    assert data["images"] == COUNT
    assert data["sizes"] == [[40, 48]]
    assert (data["channels"], data["dtypes"], data["formats"]) == ([1], ["uint8"], {"PNG": COUNT})
    block = 12 * 14
    stripe = 4 * 48
    assert [c["pixels"] for c in data["classes"]] == [
        COUNT * (40 * 48 - block - stripe),
        COUNT * block,
        COUNT * stripe,
    ]
    assert [c["images"] for c in data["classes"]] == [COUNT] * 3
    assert data["suggested"] == {"size": 64, "scale": 1.0, "group": None}
    assert not data["stops_training"]


def test_every_problem_is_found_at_once_and_equal_ones_stand_together(tmp_path):
    root = write(tmp_path / "set", mask=lambda p, k: png(p, with_255(k)))
    (root / "images/im0.png").write_bytes(b"no picture")
    png(root / "images/im1", grey_of(1)[:, :-1])
    png(root / "images/extra", grey_of(9))
    found = inspect_folder(root)
    texts = "\n".join(map(str, found.errors))
    assert len(found.errors) == 4
    for part in ("extra.png", "im0.png: not a PNG", "image has 40 x 47", "value 255 stands beside"):
        assert part in texts
    line = next(f.line for f in found.errors if "255" in f.problem)
    assert line == f"unetseg check {root} --ignore 255"
    two = inspect_folder(root, ignore=[255])
    assert not any("255" in f.problem for f in two.errors)


def test_equal_images_are_named_and_their_other_masks(tmp_path):
    same = lambda p: png(p, grey_of(0))  # noqa: E731
    found = inspect_folder(write(tmp_path / "set", image=saved(same)))
    assert severities(found, "im1.png: the same picture as im0.png, with another mask") == [
        "warning"
    ]


def frame(k, length):
    """Return (40, 48) number k of scenes of so many frames; each frame has noise of its own."""
    scene = np.random.default_rng(k // length).integers(20, 230, (10, 12)).astype(np.uint8)
    noise = np.random.default_rng(100 + k).integers(0, 20, (40, 48)).astype(np.uint8)
    return np.kron(scene, np.ones((4, 4), np.uint8)) + noise


@pytest.mark.parametrize("rows", [4, 512])
def test_neighbours_in_a_video_are_found_and_a_group_is_suggested(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(neighbours, "_ROWS", rows)  # thumbnails that are compared at once

    root = tmp_path / "set"
    for k in range(9):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        png(root / f"images/scene{k // 3}_{k:03d}", frame(k, 3))
        png(root / f"masks/scene{k // 3}_{k:03d}", mask_of(k))
    found = inspect_folder(root)
    assert severities(found, "9 pairs of images are nearly equal") == ["warning"]
    assert found.group == "^(.+)[-_ .]"
    grouped = inspect_folder(root, unetseg.PatchSettings(group=found.group))
    assert not severities(grouped, "nearly equal")
    assert not severities(inspect_folder(write(tmp_path / "other")), "nearly equal")


def test_frames_of_one_place_are_compared_with_a_bounded_number_of_others(tmp_path, monkeypatch):
    root, compared = tmp_path / "set", []
    agree = neighbours._agree
    monkeypatch.setattr(neighbours, "_agree", lambda *two: compared.append(1) or agree(*two))
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for k in range(12):  # eight frames of one place, and four of others
        png(root / f"images/{k}", frame(k if k < 8 else 8 * k, 8))
        png(root / f"masks/{k}", mask_of(k))
    assert severities(inspect_folder(root), "28 pairs of images are nearly equal") == ["warning"]
    assert len(compared) == 28
    compared.clear()
    monkeypatch.setattr(neighbours, "_MOST_PAIRS", 2)
    said = "at least 13 pairs of images are nearly equal"  # the last two have one later and none
    assert severities(inspect_folder(root), said) == ["warning"]
    assert len(compared) == 13


def test_each_image_of_a_folder_is_reported_while_it_is_looked_at(tmp_path):
    seen = []
    inspect_folder(write(tmp_path / "set"), on_progress=seen.append)
    steps = [(r.stage, r.done, r.total, r.unit) for r in seen if isinstance(r, Progress)]
    for stage, unit in (("looking at", "images"), ("reading", "masks")):
        expected = [(stage, k, COUNT, unit) for k in range(1, COUNT + 1)]
        assert [step for step in steps if step[0] == stage] == expected


@pytest.mark.parametrize("times", [1, 8])
def test_the_facts_of_an_image_take_as_much_memory_whatever_its_size(tmp_path, times):
    root = tmp_path / "set"
    for folder, pixels in (("images", frame(0, 1)), ("masks", mask_of(0))):
        (root / folder).mkdir(parents=True)
        png(root / f"{folder}/0", np.kron(pixels, np.ones((times, times), np.uint8)))
    (survey,) = inspect_folder(root).surveys
    arrays = [value for value in vars(survey).values() if isinstance(value, np.ndarray)]
    held = [array if array.base is None else array.base for array in arrays]
    assert sum(array.nbytes for array in held) < 40_000


def eye(number, left, vessels=None):
    """Return a bright round field with a disc at one side, and thin dark lines of its own."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    rng = np.random.default_rng(number if vessels is None else vessels)
    disc = np.exp(-(rows**2 + (columns + (0.5 if left else -0.5)) ** 2) / 0.1)
    picture = 100 + 120 * disc
    for _ in range(12):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.7, 0.7)
        picture[np.abs(rows * np.cos(angle) + columns * np.sin(angle) - offset) < 0.02] -= 35
    picture[rows**2 + columns**2 > 0.9] = 5
    return (picture + np.random.default_rng(number).normal(0, 2, rows.shape)).clip(0, 255)


@pytest.mark.parametrize("same", [False, True])
def test_eyes_of_one_side_are_nearly_equal_only_where_their_vessels_are(tmp_path, same):
    eyes = [eye(i, left=i in (2, 5)) for i in range(8)]
    if same:  # the same eye again, another noise, a little brighter, moved by two pixels
        eyes[5] = np.roll(eye(50, left=True, vessels=2) * 1.1, (2, 1), (0, 1))
    root = tmp_path / "set"
    for i, pixels in enumerate(eyes):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        png(root / f"images/eye{i}", pixels.clip(0, 255).astype(np.uint8))
        png(root / f"masks/eye{i}", (pixels < 100).astype(np.uint8))
    found = severities(inspect_folder(root), "eye2 and eye5")
    assert found == ["warning"] * same


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data")
def test_eyes_of_drive_differ_and_frames_of_camvid_do_not(tmp_path):
    (tmp_path / "drive").mkdir()
    for name in ("images", "1st_manual"):
        (tmp_path / "drive" / name).symlink_to(DATA / "drive-20" / name)
    assert not severities(inspect_folder(tmp_path / "drive"), "nearly equal")
    assert not severities(inspect_folder(tmp_path / "drive"), COPY)
    frames = inspect_folder(DATA / "camvid-100", ignore=[11])
    assert not severities(frames, COPY)
    assert severities(frames, "32 pairs of images are nearly equal") == ["warning"]


COPY = "stored anew, such as a JPEG copy"


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_copies_of_images_are_named_in_sets_of_any_size(tmp_path, quality):
    for name, count in (("two", 2), ("six", 6)):
        root = tmp_path / name
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = eye(max(i, 1), left=False).astype(np.uint8)  # 0 and 1 are one eye
            if i:
                png(root / f"images/eye{i}", pixels)
            else:
                Image.fromarray(pixels).save(root / "images/eye0.jpg", quality=quality)
            png(root / f"masks/eye{i}", (pixels < 100).astype(np.uint8))
        found = inspect_folder(root)
        (finding,) = [f for f in found.findings if COPY in f.problem]
        assert finding.severity == "warning"
        assert finding.files[0].endswith("eye1.png")
        assert "looks like eye0.jpg" in finding.problem
        assert not severities(found, "nearly equal")


def test_different_eyes_and_flat_images_are_no_copies(tmp_path):
    root = tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(8):
        pixels = eye(i, left=False) if i < 5 else np.full((128, 128), 20 * i)
        png(root / f"images/eye{i}", pixels.astype(np.uint8))
        png(root / f"masks/eye{i}", (eye(i, True) < 100) * np.uint8(1))
    assert not severities(inspect_folder(root), COPY)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["a_1", "a_2", "b_1", "b_2", "c_1", "c_2"], "^(.+)[-_ .]"),
        (["a1", "a2", "b1", "b2", "c1", "c2"], r"^(.*\D)\d+$"),
        (["100", "101", "110", "111", "120", "121"], r"^(.*)\d$"),
        (["one", "two", "three", "four", "five", "six"], ""),
    ],
)
def test_a_group_is_suggested_only_where_names_show_one(names, pattern):
    near = [tuple(names[:2]), tuple(names[2:4])]
    assert suggest_group(names, near) == pattern


def test_masks_without_labels_and_classes_without_pixels_are_warned_of(tmp_path):
    blank = np.zeros((40, 48), np.uint8)
    root = write(tmp_path / "set", mask=lambda p, k: png(p, blank if k == 1 else mask_of(k)))
    found = inspect_folder(root)
    assert severities(found, "im1.png: nothing but 0 in these masks (1 of 4)") == ["warning"]
    toml = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in range(4))
    (root / "classes.toml").write_text(toml)
    assert severities(inspect_folder(root), "no mask shows c3") == ["warning"]
    empty = inspect_folder(write(tmp_path / "empty", mask=lambda p, k: png(p, blank)))
    assert severities(empty, "all masks hold one class only, 0") == ["error"]


def test_names_that_differ_in_blanks_or_capitals_alone_are_no_classes_of_their_own(tmp_path):
    root = write(tmp_path / "set")
    named = '[[class]]\nname = "{}"\nvalue = {}\n'
    toml = named.format(" ground", 0) + named.format("Cell ", 1) + named.format("cell", 2)
    (root / "classes.toml").write_text(toml)
    found = inspect_folder(root)
    assert found.table.names == ("ground", "Cell", "cell")
    assert severities(found, "Cell and cell differ in capitals alone") == ["warning"]
    (root / "classes.toml").write_text(toml.replace('"cell"', '"Cell"'))
    with pytest.raises(InputError, match="name 'Cell' stands twice"):
        inspect_folder(root)


@pytest.mark.parametrize("name", ["ignore", "Void", "unlabelled", "cell"])
def test_a_class_that_is_called_ignored_is_said_with_the_option_that_ignores_it(tmp_path, name):
    root = write(tmp_path / "set")
    (root / "classes.toml").write_text(VALUES_TOML.replace("square", name))
    found = inspect_folder(root)
    said = [f for f in found.findings if "is a class, learnt and scored" in f.problem]
    if name == "cell":
        assert not said
        return
    assert [f.severity for f in said] == ["note"]
    assert said[0].line.endswith("--ignore 1")
    ignored = inspect_folder(root, ignore=1)
    assert not severities(ignored, "is a class, learnt and scored")
    assert ignored.table.ignore == (1,)


def test_masks_of_values_beside_masks_of_colours_are_one_error(tmp_path):
    def mask(path, k):
        png(path, mask_of(k) if k else COLOURS[mask_of(k)])

    found = inspect_folder(write(tmp_path / "set", mask=mask))
    (finding,) = found.findings
    assert "3 masks of values and 1 of colours in one set; store all masks in one way" in str(
        finding
    )
    grey = np.array([0, 255], np.uint8)

    def two(path, k):
        picture = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], np.uint8)[mask_of(k)]
        png(path, picture if k == 0 else grey[(mask_of(k) > 1) * 1])

    found = inspect_folder(write(tmp_path / "grey", mask=two))
    (finding,) = found.findings
    assert "list the classes' colours in classes.toml" in str(finding)


def test_equal_pages_are_named_by_their_number(tmp_path):
    stack = np.stack([grey_of(0), grey_of(1), grey_of(0)])
    masks = np.stack([mask_of(0), mask_of(1), mask_of(0)])
    for place, pages in (("images", stack), ("masks", masks)):
        (tmp_path / place).mkdir()
        tifffile.imwrite(tmp_path / place / "s.tif", pages, photometric="minisblack")
    found = inspect_folder(tmp_path, PatchSettings(page="all"))
    (same,) = [f for f in found.findings if "the same picture as" in f.problem]
    assert same.subject.endswith("s.tif, page 2")
    assert "the same picture as s.tif, page 0" in same.problem


@pytest.mark.parametrize(("axes", "named"), [("ZYX", "ZYX"), (None, "no axes")])
def test_a_stack_says_which_axes_its_file_names(tmp_path, axes, named):
    stack = np.stack([grey_of(0), grey_of(1)])
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        about = {"metadata": {"axes": axes}} if axes else {}
        tifffile.imwrite(tmp_path / place / "s.tif", stack, **about)
    (error,) = inspect_folder(tmp_path).errors
    assert "pass page=0 for the first; also page='middle', page='max', page='all'" in str(error)
    assert str(error).endswith(f"save it with the axes CYX: it names {named}")


def areas(k, shape=(160, 200)):
    """Return discs of the values 1, 2 and 3 on a ground of 0, and a line of 3."""
    rng = np.random.default_rng(k)
    mask, (rows, columns) = np.zeros(shape, np.uint8), np.indices(shape)
    for value in (1, 2, 3, 1, 2):
        row, column, radius = *(rng.integers(30, n - 30) for n in shape), rng.integers(12, 28)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = value
    mask[np.abs(rows - columns / 2 - 10 * k) < 2] = 3
    return mask


def write_masks(root, masks, toml=""):
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for k, mask in enumerate(masks):
        png(root / f"masks/im{k}.png", mask)
        noise = np.random.default_rng(k).normal(0, 8, mask.shape)
        png(root / f"images/im{k}.png", (mask * 40.0 + 60 + noise).clip(0, 255).astype(np.uint8))
    if toml:
        (root / "classes.toml").write_text(toml)
    return root


RIM = "a rim one pixel wide in"


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("factor", [0.5, 0.8, 2])
def test_rims_of_values_between_two_others_are_warned_of(tmp_path, factor, method):
    size = int(200 * factor), int(160 * factor)
    small = [np.asarray(Image.fromarray(areas(k)).resize(size, method)) for k in range(4)]
    found = inspect_folder(write_masks(tmp_path / "set", small, four_classes()))
    (finding,) = [f for f in found.findings if RIM in f.problem]
    assert finding.severity == "warning"
    assert finding.problem.startswith("c1, c2: ")


def four_classes(order=(0, 1, 2, 3)):
    return "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in order)


def test_rims_are_found_in_whatever_order_classes_are_listed(tmp_path):
    small = [np.asarray(Image.fromarray(areas(k)).resize((100, 80), 2)) for k in range(4)]
    root = write_masks(tmp_path / "set", small, four_classes((3, 1, 0, 2)))
    assert severities(inspect_folder(root), f"c1, c2: {RIM}") == ["warning"]


def walls(k, width):
    """Return the discs of `areas`, 2 inside and 1 along their edge, on a ground of 0."""
    inside = areas(k) > 0
    core = ndimage.binary_erosion(inside, iterations=width)
    return inside.astype(np.uint8) + core


def test_drawn_masks_and_walls_are_no_rims(tmp_path):
    clean = inspect_folder(write_masks(tmp_path / "clean", [areas(k) for k in range(4)]))
    assert not severities(clean, RIM)
    nearest = [np.asarray(Image.fromarray(areas(k)).resize((100, 80), 0)) for k in range(4)]
    assert not severities(inspect_folder(write_masks(tmp_path / "nearest", nearest)), RIM)
    for width in (2, 3):
        root = write_masks(tmp_path / f"wall{width}", [walls(k, width) for k in range(4)])
        assert not severities(inspect_folder(root), RIM)
    thin = write_masks(tmp_path / "thin", [walls(k, 1) for k in range(4)])
    assert severities(inspect_folder(thin), RIM) == ["warning"]
    (thin / "classes.toml").write_text(four_classes((0, 1, 2)))  # somebody says that it is a class
    assert not severities(inspect_folder(thin), RIM)


SWAPPED = "look exchanged in"


def test_masks_in_which_foreground_and_background_are_exchanged_are_warned_of(tmp_path):
    masks = [(areas(k) > 0) * np.uint8(255) for k in range(6)]
    root = write_set_of(tmp_path / "set", masks, swapped=(1, 4))
    (finding,) = [f for f in inspect_folder(root).findings if SWAPPED in f.problem]
    assert finding.severity == "warning"
    assert [name.rpartition("/")[2] for name in finding.files] == ["im1.png", "im4.png"]
    assert "0 and 255 look exchanged in 2 of 6 masks" in finding.problem


@pytest.mark.parametrize("count", [4, 5])
def test_up_to_half_of_the_masks_may_be_exchanged_and_an_empty_one_hides_none(tmp_path, count):
    masks = [(areas(k) > 0) * np.uint8(255) for k in range(10)]
    masks.append(np.zeros_like(masks[0]))
    root = write_set_of(tmp_path / "set", masks, swapped=range(count))
    (finding,) = [f for f in inspect_folder(root).findings if SWAPPED in f.problem]
    assert finding.severity == "warning"
    assert f"0 and 255 look exchanged in {count} of 10 masks" in finding.problem
    assert len(finding.files) == count


def write_set_of(root, masks, swapped=(), dark=()):
    """Write masks whose foreground is bright, or dark in some images; some masks are inverted."""
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for k, mask in enumerate(masks):
        noise = np.random.default_rng(k).normal(0, 8, mask.shape)
        image = 60 + 0.4 * (255 - mask if k in dark else mask) + noise
        png(root / f"images/im{k}.png", image.clip(0, 255).astype(np.uint8))
        png(root / f"masks/im{k}.png", 255 - mask if k in swapped else mask)
    return root


@pytest.mark.parametrize("kind", ["none", "one sign", "one share"])
def test_nothing_is_said_of_an_exchange_that_is_not_clear(tmp_path, kind):
    masks = [(areas(k) > 0) * np.uint8(255) for k in range(6)]
    if kind == "one share":
        masks[2] = 255 - masks[2]  # bright foreground covers most of this image
    swapped, dark = {
        "none": ((), ()),
        "one sign": ((), (1,)),
        "one share": ((), ()),
    }[kind]
    found = inspect_folder(write_set_of(tmp_path / "set", masks, swapped, dark))
    assert not severities(found, SWAPPED)


def test_a_constant_channel_is_warned_of(tmp_path):
    def image(path, k):
        png(path, np.dstack([grey_of(k), np.full((40, 48), 7, np.uint8), 255 - grey_of(k)]))

    found = inspect_folder(write(tmp_path / "set", image=image))
    assert severities(found, "channel 2 holds 7 in every pixel") == ["warning"]


@pytest.mark.parametrize(("side", "scale"), [(600, 0.25), (300, 0.5), (200, 1.0), (50, 1.0)])
def test_objects_far_larger_than_a_patch_suggest_a_scale(tmp_path, side, scale):
    root = tmp_path / "set"
    mask = np.zeros((1000, 1000), np.uint8)
    mask[100 : 100 + side, 200 : 200 + side] = 1
    for folder, factor in (("images", 99), ("masks", 1)):
        (root / folder).mkdir(parents=True)
        png(root / folder / "a", mask * np.uint8(factor))
    found = inspect_folder(root, unetseg.PatchSettings(size=128, val=0))  # up to 1.5 patches pass
    assert found.scale == scale
    assert severities(found, f"scale={scale:g} lets") == (["note"] if scale < 1 else [])


def test_a_blend_as_thin_as_a_line_is_asked_about(tmp_path):
    found = inspect_folder(write_with_line(tmp_path / "set"))
    assert severities(found, "#640000 is nowhere wider than two pixels") == ["error"]
    # index values 0, 1, 2 are never taken for blends
    values = inspect_folder(write(tmp_path / "two", mask=lambda p, k: png(p, mask_of(k))))
    assert not values.errors


@pytest.mark.parametrize("width", [2, 3])
def test_a_line_of_three_pixels_is_no_blend_in_large_masks_that_are_thinned_out(tmp_path, width):
    def lined(path, k):
        mask = np.kron(mask_of(k) == 1, np.ones((16, 16), np.uint8)) * np.uint8(200)  # 640 x 768
        mask[600 : 600 + width, 100:400] = 100
        png(path, mask)

    large = lambda p, k: png(p, np.kron(grey_of(k), np.ones((16, 16), np.uint8)))  # noqa: E731
    root = write(tmp_path / "set", large, lined)
    due = ["error"] if width == 2 else []
    assert severities(inspect_folder(root), "100 is nowhere wider than two pixels") == due
    if width == 3:
        assert len(convert_folder(root, tmp_path / "out").classes) == 3


CELLS = {
    "varied": [cells(i, 9 + i) for i in range(4)],
    "two pieces": [cut_in_two(cells(i, 9 + i)) for i in range(4)],
    "few": [cells(i, 3 + i % 3) for i in range(6)],
}


def write_cells(root, masks, name="im{}"):
    for i, mask in enumerate(masks):
        for folder, pixels in (("images", mask * 9 + np.uint8(i)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            png(root / folder / name.format(i), pixels)
    return root


@pytest.mark.parametrize("kind", CELLS)
def test_numbered_objects_are_refused_by_check_and_convert_in_the_same_words(tmp_path, kind):
    root = write_cells(tmp_path / "set", CELLS[kind])
    found = inspect_folder(root)
    (error,) = found.errors
    assert error.line == f"unetseg convert {root} {root}-converted --instances"
    assert (found.to_dict()["classes"], len(found.halves)) == ([], 0)
    with pytest.raises(InputError) as caught:
        convert_folder(root, tmp_path / "out")
    assert (caught.value.problem, caught.value.remedy) == (error.problem, error.remedy)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="for each object"):
        build_store(root, tmp_path / "store.h5")
    convert_folder(root, tmp_path / "out", instances=True)
    assert inspect_folder(tmp_path / "out").errors == ()


def test_a_file_of_classes_settles_whether_values_are_classes(tmp_path):
    root = write_cells(tmp_path / "set", CELLS["few"])
    found = inspect_folder(root)
    (root / "classes.toml").write_text(found.to_dict()["classes_toml"])
    assert inspect_folder(root).errors == ()


@pytest.mark.parametrize(("here", "root"), [("", "."), ("images", "..")])
def test_the_line_that_converts_the_folder_one_is_in_writes_beside_it(
    tmp_path, monkeypatch, here, root
):
    folder = write_cells(tmp_path / "my set", CELLS["varied"])
    monkeypatch.chdir(folder / here)
    (error,) = inspect_folder(root).errors
    words = shlex.split(error.line)
    assert words == ["unetseg", "convert", root, f"{folder}-converted", "--instances"]
    assert main(words[1:]) == 0
    assert inspect_folder(f"{folder}-converted").errors == ()


def test_no_ready_classes_are_printed_for_objects_and_the_error_stands_last(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_cells(tmp_path / "set", CELLS["varied"])
    assert main(["check", "set"]) == 2
    shown = capsys.readouterr()
    assert "class = [" not in shown.out
    assert shown.out.splitlines()[-1].strip() == "unetseg convert set set-converted --instances"
    assert "for each object" in shown.out.splitlines()[-2]
    write_cells(tmp_path / "few", CELLS["few"])
    assert main(["check", "few"]) == 2  # both readings: the classes are printed, then the question
    shown = capsys.readouterr()
    assert shown.out.index("class = [") < shown.out.index("classes, or one for each object?")


@pytest.mark.parametrize("other", [cells(1, 9), (cells(1, 9) > 0).astype(np.uint8)])
def test_black_and_white_masks_beside_others_are_two_kinds_and_255_is_never_ignored(
    tmp_path, other
):
    binary = (cells(0, 9) > 0) * np.uint8(255)
    root = write_cells(tmp_path / "set", [binary, other, binary.T.copy(), other.T.copy()])
    (error,) = inspect_folder(root).errors
    assert "im0.png: holds 0 and 255 alone" in str(error)
    assert "im1.png holds" in str(error)
    assert "ignore" not in f"{error}{error.line}"
    for ignore in ((), (255,)):
        with pytest.raises(InputError, match="two kinds of masks"):
            convert_folder(root, tmp_path / "out", ignore=ignore)
        with pytest.raises(InputError, match="two kinds of masks"):
            build_store(root, tmp_path / "store.h5", ignore=ignore)
    assert "two kinds of masks" in str(inspect_folder(root, ignore=255).errors[0])


def test_masks_that_are_the_images_are_one_error(tmp_path):
    root = write(tmp_path / "set", image=lambda p, k: png(p, mask_of(k)))
    (error,) = inspect_folder(root).errors
    assert "is the same picture as its image" in str(error)
    assert len(error.files) == COUNT
    with pytest.raises(InputError, match="the same picture"):
        convert_folder(root, tmp_path / "out")


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_swapped_images_and_masks_are_one_error(tmp_path, ending):
    def photograph(path, k):
        ground = np.random.default_rng(k).integers(0, 256, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(ground).save(path.with_suffix(f".{ending}"))

    root = write(tmp_path / "set", image=lambda p, k: png(p, mask_of(k)), mask=photograph)
    (error,) = inspect_folder(root).errors
    assert "swapped?" in str(error)
    assert len(error.files) == COUNT
    with pytest.raises(InputError, match=r"swapped\?"):
        convert_folder(root, tmp_path / "out")


def erased(k, half=0):
    """Return a mask in colours with an alpha channel, the first three rows erased."""
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[:3] = 0
    alpha[3, :half] = 128  # the soft edge of an eraser
    return np.dstack([COLOURS[mask_of(k)], alpha])


def keyed(path, k):
    """Save colours of which one stands for transparency."""
    colours = np.where(np.arange(40)[:, None, None] < 3, (9, 9, 9), COLOURS[mask_of(k)])
    picture = Image.fromarray(colours.astype(np.uint8))
    picture.save(path.with_suffix(".png"), transparency=(9, 9, 9))


def holed(path, k, missing, dtype, first=3):
    """Save a GeoTIFF whose first rows hold its value of no data."""
    values = mask_of(k).astype(dtype)
    values[:first] = missing
    tif(path, values, extratags=[(42113, "s", 0, str(missing), True)])


UNLABELLED = {
    "erased": lambda p, k: png(p, erased(k)),
    "erased softly": lambda p, k: png(p, erased(k, half=40 * (k == 1))),
    "a transparent colour": keyed,
    "no data is 255": lambda p, k: holed(p, k, 255, np.uint8),
    "no data is 99": lambda p, k: holed(p, k, 99, np.uint16),
    "no data is -9999": lambda p, k: holed(p, k, -9999, np.int16),
    "no data is NaN": lambda p, k: holed(p, k, np.nan, np.float32),
}


@pytest.mark.parametrize("kind", UNLABELLED)
def test_what_is_transparent_or_without_data_is_ignored_and_said_once(tmp_path, kind):
    root = write(tmp_path / "set", mask=UNLABELLED[kind])
    found = inspect_folder(root)
    assert not found.errors
    assert [f.severity for f in found.findings] == ["note"]
    assert re.search("ignored", str(found.findings[0]))
    counted = 3 * 48 * COUNT + 40 * (kind == "erased softly")
    assert found.counts.sum() == COUNT * 40 * 48 - counted
    assert len(found.table.classes) == 3
    assert build_store(root, tmp_path / "store.h5").info.classes.names == found.table.names
    assert convert_folder(root, tmp_path / "out").ignored == counted
    for k in range(COUNT):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/im{k}.png"))
        assert (mask[:3] == 255).all()
        order = np.array([0, 2, 1] if found.table.encoding == "colours" else [0, 1, 2])
        np.testing.assert_array_equal(order[mask[4:]], mask_of(k)[4:])  # sorted: green, red


def test_masks_that_are_half_transparent_all_over_are_refused(tmp_path):
    def overlay(path, k):
        png(path, np.dstack([COLOURS[mask_of(k)], np.full((40, 48), 128, np.uint8)]))

    (error,) = inspect_folder(write(tmp_path / "set", mask=overlay)).errors
    assert "half transparent" in str(error)


def test_no_data_of_zero_is_asked_about(tmp_path):
    root = write(tmp_path / "set", mask=lambda p, k: holed(p, k, 0, np.uint8))
    found = inspect_folder(root)
    (error,) = found.errors
    assert "0 is its value of no data" in str(error)
    assert not [f for f in found.findings if "of no data of GeoTIFF masks" in f.problem]
    assert error.line == f"unetseg check {root} --ignore 0"
    assert inspect_folder(root, ignore=[0]).table.names == ("1", "2")
    toml = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in range(3))
    (root / "classes.toml").write_text(toml)
    assert inspect_folder(root).counts.sum() == COUNT * 40 * 48


def test_a_value_of_no_data_that_no_class_has_is_ignored_and_said_so(tmp_path):
    root = write(tmp_path / "set", mask=UNLABELLED["no data is 255"])
    toml = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in range(3))
    (root / "classes.toml").write_text(toml)
    found = inspect_folder(root)
    (note,) = [f.problem for f in found.findings if "of no data of GeoTIFF masks" in f.problem]
    assert note == "255 is the value of no data of GeoTIFF masks: it is ignored"
    assert found.counts.sum() == COUNT * 37 * 48


def test_inverted_tables_of_fiji_are_one_question_with_both_ways_on(tmp_path):
    def inverted(path, k):
        tif(path, mask_of(k), photometric="miniswhite")

    (error,) = inspect_folder(write(tmp_path / "set", mask=inverted)).errors
    assert len(error.files) == COUNT
    for part in ("stored values", "Image > Lookup Tables > Invert LUT", "Edit > Invert"):
        assert part in str(error)


def test_blended_masks_are_one_problem_and_its_line_carries_the_classes_given(tmp_path):
    root = write(tmp_path / "set", image=wide, mask=lambda p, k: png(p, smooth(k)))
    toml = "".join(
        f'[[class]]\nname = "{c}"\ncolour = "{c}"\n' for c in ("#000000", "#ff0000", "#00ff00")
    )
    (tmp_path / "cl.toml").write_text(toml)
    (error,) = inspect_folder(root, classes=tmp_path / "cl.toml").errors
    assert len(error.files) == COUNT
    assert error.line == f"unetseg convert {root} {root}-converted --classes {tmp_path / 'cl.toml'}"


def test_values_of_no_class_are_one_problem_with_all_images(tmp_path):
    def forgotten(path, k):
        mask = mask_of(k)
        mask[0, : k + 1] = 7
        png(path, mask)

    root = write(tmp_path / "set", mask=forgotten)
    (tmp_path / "cl.toml").write_text(VALUES_TOML)
    (error,) = inspect_folder(root, classes=tmp_path / "cl.toml").errors
    for k in range(COUNT):
        assert f"of im{k}.png" in str(error)
    line = f"unetseg check {root} --classes {tmp_path / 'cl.toml'} --ignore 7"
    assert error.line == line


def test_two_images_and_images_too_small_to_see_are_warned_of(tmp_path):
    root = write(tmp_path / "set")
    for k in (2, 3):
        for folder in ("images", "masks"):
            (root / folder / f"im{k}.png").unlink()
    assert severities(inspect_folder(root), "2 images: one is trained on") == ["warning"]
    png(root / "images/im7", grey_of(7)[:1])
    png(root / "masks/im7", mask_of(7)[33:34])
    assert severities(inspect_folder(root), "im7.png: 1 x 48 pixels show nothing") == ["warning"]


def test_one_image_is_told_to_get_company_without_a_word_of_groups(tmp_path):
    root = write(tmp_path / "set")
    for k in (1, 2, 3):
        for folder in ("images", "masks"):
            (root / folder / f"im{k}.png").unlink()
    (error,) = inspect_folder(root).errors
    assert "1 image, nothing to hold out" in str(error)
    assert "group" not in str(error)


# --- the commands ----------------------------------------------------------------------------


def test_check_prints_everything_and_ends_with_2_where_training_would_stop(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", mask=lambda p, k: png(p, with_255(k)))
    assert main(["check", "set"]) == 2
    shown = capsys.readouterr()
    assert "4 labelled images" in shown.out
    assert "    unetseg check set --ignore 255\n" in shown.out
    assert shown.err.splitlines()[-1].startswith("unetseg: error: set: 1 problem stops training")
    assert main(["check", "set", "--ignore", "255"]) == 0
    shown = capsys.readouterr()
    assert "unetseg train set --budget 10m --ignore 255" in shown.out
    assert 'name = "2"' in shown.out


def test_check_writes_a_page_that_needs_nothing_else_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "set")
    toml = '[[class]]\nname = "<script>"\nvalue = 0\n[[class]]\nname = "b"\nvalue = 1\n'
    (root / "classes.toml").write_text(toml + '[[class]]\nname = "c"\nvalue = 2\n')
    before = sorted(p.name for p in root.rglob("*"))
    assert main(["check", "set", "--html", "s.html", "--json", "s.json"]) == 0
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * COUNT
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=.https?:", page)
    data = json.loads((tmp_path / "s.json").read_text())
    assert data["images"] == COUNT
    assert sorted(p.name for p in root.rglob("*")) == before
    assert main(["check", "set", "--html", "s.html"]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("trap", TRAPS)
def test_check_survives_every_trap_and_still_draws_a_page(tmp_path, monkeypatch, capsys, trap):
    monkeypatch.chdir(tmp_path)
    how, texts = TRAPS[trap]
    write(tmp_path / "set", **how)
    assert main(["check", "set", "--html", "s.html"]) == 2
    shown = capsys.readouterr()
    assert any(text in shown.out for text in texts)
    assert "stops training" in shown.err or "stop training" in shown.err
    assert (tmp_path / "s.html").exists()


@pytest.mark.parametrize("folder", ["images", "masks/line"])
def test_what_only_convert_reads_is_said_by_check(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", where=("set" if folder == "images" else "images", folder))
    assert main(["check", "set"]) == 2
    assert "unetseg convert SOURCE FOLDER" in capsys.readouterr().err


def test_convert_says_what_was_moved_and_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    how, _ = TRAPS["few objects"]
    write(tmp_path / "set", **how)
    assert main(["convert", "set", "out", "--instances"]) == 0
    shown = capsys.readouterr()
    assert "Wrote 4 labelled images to out." in shown.out
    assert "unetseg check out\n" in shown.out
    assert main(["check", "out"]) == 0


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set("data/train", 4)
    unetseg.train("data/train", patches=unetseg.PatchSettings(size=32, per_image=2), **QUICK)
    return tmp_path


def test_info_shows_a_store_a_model_and_a_run(trained, capsys):
    for name in ("runs/default/patches.h5", "default", "runs/default/model.safetensors"):
        assert main(["info", name]) == 0
        shown = capsys.readouterr().out
        assert all(n in shown for n in NAMES)
        assert "32 x 32 pixels" in shown
    assert main(["info", "data/train/classes.toml"]) == 2
    assert main(["info", "runs/default/patches.h5", "--rename", "ground=x"]) == 2
    assert "keeps the names" in capsys.readouterr().err


def test_names_and_colours_change_and_weights_stay(trained, capsys):
    path = trained / "runs/default/model.safetensors"
    before, card = model_file.load_model(path)
    assert main(["info", "default", "--rename", "ground=a=b", "--recolour", "stripe=#FF0000"]) == 0
    after, changed = model_file.load_model(path)
    assert changed.classes.names == ("a=b", "square", "stripe")
    assert changed.classes.classes[2].colour == "#ff0000"
    assert changed.sha256 != card.sha256
    assert set(changed.scores["iou"]) == set(changed.classes.names)
    for name, tensor in before.state_dict().items():
        assert tensor.equal(after.state_dict()[name])
    assert main(["predict", "data/train/images/im0.png"]) == 0
    for change in (
        ["--rename", "nobody=x"],
        ["--recolour", "square=red"],
        ["--rename", "a=b=square"],
    ):
        assert main(["info", "default", *change]) == 2
    assert model_file.read_card(path) == changed


def test_predict_takes_the_page_that_is_asked_for(trained, capsys):
    page = np.asarray(Image.open("data/train/images/im0.png"))
    tifffile.imwrite("stack.tif", np.stack([page[::-1], page]), photometric="minisblack")
    assert main(["predict", "stack.tif"]) == 2
    assert "--page 0" in capsys.readouterr().err
    assert main(["predict", "stack.tif", "data/train/images/im0.png", "--page", "1"]) == 5
    assert "no page 1, there is one" in capsys.readouterr().err
    assert main(["predict", "data/train/images/im0.png"]) == 0
    masks = [np.asarray(Image.open(f"predictions/{name}.png")) for name in ("stack", "im0")]
    np.testing.assert_array_equal(*masks)


def test_an_unfinished_model_keeps_its_names(trained, capsys):
    path = trained / "runs/default/model.safetensors"
    network, card = model_file.load_model(path)
    model_file.write_model(path, network.state_dict(), replace(card, finished=False))
    assert main(["info", "default", "--rename", "ground=x"]) == 2
    assert "not finished" in capsys.readouterr().err


def test_runs_lists_every_run_with_its_state(trained, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"default\s+finished\s+\d{4}-\d\d-\d\d\s+compact\s+3", shown)
    (trained / "runs/default/model.safetensors").unlink()
    (trained / "runs/notes").mkdir()
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"default\s+interrupted", shown)
    assert "notes" not in shown


def test_runs_of_an_empty_folder_say_how_to_start_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "unetseg train" in capsys.readouterr().out


def test_grey_images_among_colour_ones_are_said(tmp_path):
    root = write(tmp_path / "set", image=saved(lambda p: png(p, wide_grey())))
    (one,) = inspect_folder(root).findings
    assert (one.severity, len(one.files)) == ("note", COUNT - 1)
    assert one.problem == (
        f"grey among colour images ({COUNT - 1} of {COUNT}): their red, green and blue are taken "
        "as equal"
    )


def wide_grey():
    """Return the second image of `write` in three channels that differ."""
    grey = grey_of(1)
    return np.stack([grey, grey // 2, grey // 3], -1)


def photographs(folder, *, ignored=False, count=4):
    """Write lit discs on a dark ground, with a dark vessel each; masks may ignore the ground."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    y, x = np.ogrid[:96, :96]
    outside = (y - 48) ** 2 + (x - 48) ** 2 > 44**2
    for k in range(count):
        rng = np.random.default_rng(k)
        mask = np.zeros((96, 96), np.uint8)
        mask[20 + 9 * k : 24 + 9 * k] = 1
        image = np.where(outside, rng.uniform(0, 4, (96, 96)), rng.normal(150, 20, (96, 96)))
        image[~outside & (mask == 1)] -= 60
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"images/im{k}.png")
        mask[outside] = 255 if ignored else 0
        Image.fromarray(mask).save(folder / f"masks/im{k}.png")
    return folder


def test_a_dark_surround_that_masks_give_a_class_is_said_with_the_option_that_ignores_it(tmp_path):
    root = photographs(tmp_path / "set")
    (one,) = [f for f in inspect_folder(root).findings if "surround" in f.problem]
    assert one.severity == "warning"
    assert one.problem == (
        "32 % of each image is the dark surround of a field of view, and the masks give it "
        "a class: predictions may show a false rim"
    )
    assert one.line == f"unetseg convert {root} {root}-converted --fov FOLDER"


@pytest.mark.parametrize("is_inverted", [False, True])
def test_masks_of_the_field_of_view_are_no_labels_unless_classes_are_listed(tmp_path, is_inverted):
    root = photographs(tmp_path / "set")
    y, x = np.ogrid[:96, :96]
    inside = (y - 48) ** 2 + (x - 48) ** 2 <= 44**2
    for path in (root / "masks").iterdir():
        png(path, (inside != is_inverted) * np.uint8(255))
    (error,) = inspect_folder(root).errors
    assert str(error) == (
        f"{root / 'masks'}: holds the field of view, not labels; put labels into masks/; where it "
        "is to be learnt, list its classes in classes.toml"
    )
    with pytest.raises(InputError, match="holds the field of view, not labels"):
        build_store(root, tmp_path / "store.h5")
    (root / "classes.toml").write_text(inspect_folder(root).to_dict()["classes_toml"])
    assert not inspect_folder(root).errors


def test_objects_on_a_dark_ground_are_no_field_of_view(tmp_path):
    y, x = np.ogrid[:96, :96]
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for k in range(3):
        rows, columns = (28, 46) if k % 2 else (46, 28)
        object_ = ((y - 48) / rows) ** 2 + ((x - 48) / columns) ** 2 <= 1
        noise = np.random.default_rng(k).integers(90, 200, (96, 96), np.uint8)
        png(tmp_path / f"set/images/im{k}.png", noise * object_)
        png(tmp_path / f"set/masks/im{k}.png", object_ * np.uint8(255))
    assert not inspect_folder(tmp_path / "set").errors


def test_a_dark_surround_that_masks_ignore_already_is_not_spoken_of(tmp_path):
    found = inspect_folder(photographs(tmp_path / "set", ignored=True), ignore=255)
    assert severities(found, "surround") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("drive-20", True), ("camvid-100", False), ("membranes-20", False), ("lines-ellipses", False)],
)
def test_of_real_images_those_of_the_retina_alone_have_a_dark_surround(tmp_path, name, said):
    if not (DATA / name).is_dir():
        pytest.skip("the real images are not there")
    for kind in ("images", "1st_manual" if name == "drive-20" else "masks"):
        (tmp_path / "real" / kind).mkdir(parents=True)
        for path in sorted((DATA / name / kind).iterdir())[:6]:
            shutil.copy(path, tmp_path / "real" / kind)
    assert severities(inspect_folder(tmp_path / "real"), "surround") == ["warning"] * said


def on_map(path, pixels, west=500_000.0, north=4_600_000.0, epsg=32631, point=False):
    """Write a GeoTIFF of pixels of half a metre; the corner of the first one is west and north."""
    keys = (1, 1, 0, 2, 3072, 0, 1, epsg, 1025, 0, 1, 2 if point else 1)
    half = 0.25 if point else 0.0  # then the tie is the centre of the first pixel
    tags = [
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, west + half, north - half, 0.0), True),
        (34735, 3, 12, keys, True),
    ]
    tifffile.imwrite(path.with_suffix(".tif"), pixels, extratags=tags)


@pytest.mark.parametrize(
    ("mask", "due"),
    [
        ({}, ""),
        ({"point": True}, ""),
        ({"west": 500_000.2}, ""),
        ({"west": 500_000.25, "north": 4_600_000.25}, ""),  # a pixel's centre as its corner
        ({"epsg": 32767}, ""),  # a system that no number names may be the same
        ({"west": 500_006.0}, "masks/im1.tif: lies up to 12 pixels from its image on the map"),
        ({"north": 4_600_000.4}, "masks/im1.tif: lies up to 0.8 pixels from its image"),
        ({"epsg": 32632}, "masks/im1.tif: has another coordinate system than its image"),
    ],
)
def test_masks_that_lie_elsewhere_on_the_map_are_refused(tmp_path, mask, due):
    root = write(
        tmp_path / "set",
        lambda p, k: on_map(p, grey_of(k)),
        lambda p, k: on_map(p, mask_of(k), **(mask if k == 1 else {})),
    )
    found = inspect_folder(root).errors
    assert [due in str(one) for one in found] == ([True] if due else [])
    if due:
        with pytest.raises(InputError, match="on the grid of their images"):
            build_store(root, tmp_path / "p.h5")
        with pytest.raises(InputError) as caught:
            convert_folder(root, tmp_path / "out")
        assert f"{root}/{due}" in str(caught.value)
        assert not (tmp_path / "out").exists()
    else:
        assert convert_folder(root, tmp_path / "out").images == (COUNT,)


def test_masks_without_a_place_and_of_images_without_one_are_taken_as_they_are(tmp_path):
    placed, plain = (lambda p, k: on_map(p, grey_of(k))), (lambda p, k: png(p, grey_of(k)))
    assert not inspect_folder(write(tmp_path / "a", placed)).errors
    masks = lambda p, k: on_map(p, mask_of(k), west=7.0)  # noqa: E731
    assert not inspect_folder(write(tmp_path / "b", plain, masks)).errors


def ranged(tops):
    """Return a writer of 16-bit images; number k spans 0 to ``tops[k]``."""

    def save(path, k):
        grey = grey_of(k).astype(float)
        grey -= grey.min()
        tif(path, np.rint(grey / grey.max() * tops[k]).astype(np.uint16))

    return save


@pytest.mark.parametrize(
    ("tops", "due"),
    [
        ((4095, 4095, 65535, 60000), "values end at 4,095, as 12 bits do, and reach 65,535"),
        ((255, 255, 255, 4095), "values end at 255, as 8 bits do, and reach 4,095"),
        ((4095, 3000, 4095, 1200), ""),  # the usual 12 bits
        ((255, 190, 65535, 4095), ""),  # dark images, and one that ends there by chance
        ((300, 2000, 40000, 65535), ""),
        ((4095, 4095, 4200, 4095), ""),  # a camera of more bits
    ],
)
def test_images_of_several_ranges_are_told_from_dark_ones(tmp_path, tops, due):
    found = inspect_folder(write(tmp_path / "set", ranged(tops)))
    said = [f for f in found.findings if "values end at" in f.problem]
    assert [f.severity for f in said] == (["warning"] if due else [])
    assert all(due in f.problem and len(f.files) < 4 for f in said)


def filled(value, share, tag=None, dtype=np.float32):
    """Return a writer of images of which the first columns hold ``value``."""
    tags = [] if tag is None else [(42113, "s", 0, str(tag), True)]

    def save(path, k):
        image = grey_of(k).astype(dtype)
        image[:, : round(share * image.shape[1])] = value
        tif(path, image, extratags=tags)

    return save


@pytest.mark.parametrize(
    ("save", "due"),
    [
        (filled(-9999, 0.2), "holds -9999 in many pixels"),
        (filled(-32768, 0.2, dtype=np.int16), "holds -32768 in many pixels"),
        (filled(-9999, 0.2, dtype=np.int32), "holds -9999 in many pixels"),
        (filled(-9999, 0.2, tag=-9999), ""),
        (filled(-9999, 0.2, tag="nan"), "holds -9999 in many pixels"),
        (filled(-9999, 0.0), ""),
        (filled(-1.0, 0.2), ""),
    ],
)
def test_a_value_that_usually_means_no_data_is_said_where_no_file_declares_it(tmp_path, save, due):
    found = inspect_folder(write(tmp_path / "set", save))
    said = [f for f in found.findings if "in many pixels" in f.problem]
    assert [f.severity for f in said] == (["warning"] if due else [])
    assert all(due in f.problem and len(f.files) == 4 for f in said)
    if due:
        value = float(due.split()[1])
        assert said[0].remedy == (
            f"where it is no data, declare it: gdal_edit.py -a_nodata {value} FILE"
        )


@pytest.mark.parametrize("value", [-9999.0, -3.4028235e38])
def test_a_declared_value_that_one_channel_alone_holds_is_said(tmp_path, value):
    def save(path, k):
        image = np.stack([grey_of(k)] * 2, 2).astype(np.float32)
        image[:9, :, 1] = value
        tif(path, image, planarconfig="contig", extratags=[(42113, "s", 0, str(value), True)])

    found = inspect_folder(write(tmp_path / "set", save)).findings
    (said,) = [f for f in found if f.problem.startswith("holds")]
    assert said.severity == ("warning" if value == -9999 else "error")
    assert worded(said.remedy, as_option) == (
        "it is no data only where all channels hold it: fill the gaps of each channel, or choose "
        "--channels without gaps"
    )


@pytest.mark.parametrize(("value", "words"), [(-3.4028235e38, "-3.40282e+38"), (1e31, "1e+31")])
def test_a_value_beside_which_nothing_can_be_learnt_is_refused(tmp_path, value, words):
    found = inspect_folder(write(tmp_path / "set", filled(value, 0.2)))
    said = [str(one) for one in found.errors if len(one.files) == 4]
    assert len(said) == 1
    assert f"holds {words}, which stands for no data in many programs; where it is" in said[0]
    declared = write(tmp_path / "declared", filled(value, 0.2, tag=value))
    assert not inspect_folder(declared).errors


def write_tiles(root, step, picture=grey_of):
    """Write the set: two tiles of each of three scenes, so many of their widths apart on a map."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for k, scene in enumerate("aabbcc"):
        west = 500_000 + 10_000 * "abc".index(scene) + k % 2 * step * 24.0  # metres in 48 pixels
        on_map(root / f"images/{scene}_{k % 2}", picture(k), west=west)
        png(root / f"masks/{scene}_{k % 2}", mask_of(k))
    return root


@pytest.mark.parametrize(("step", "due"), [(0.0, "show common places"), (9.0, "are nearly equal")])
def test_pictures_of_one_place_at_two_times_are_one_finding(tmp_path, step, due):
    root = write_tiles(tmp_path / "set", step, lambda k: frame(k, 2))
    found = inspect_folder(root)
    (said,) = [f for f in found.findings if "on two sides of the split" in f.problem]
    assert said.problem.startswith(f"3 pairs of images {due}")
    assert said.line == f"unetseg check {root} --group '^(.+)[-_ .]'"


def test_all_pairs_of_pictures_of_one_place_are_counted_and_some_are_kept():
    place = SimpleNamespace(epsg=32631, extent=lambda *_: (0.0, 0.0, 24.0, 20.0))
    surveys = [SimpleNamespace(places=(place, place), shape=(40, 48))] * 1_000
    touching, overlapping = _tiles(surveys, list(map(str, range(1_000))))
    assert (touching.count, overlapping.count) == (0, 1_000 * 999 // 2)
    assert len(overlapping.some) == 900 * 100 + 99 * 100 // 2


@pytest.mark.parametrize(
    ("step", "severity", "words"),
    [
        (1.0, "note", "touch each other on the map: a_0 and a_1; b_0 and b_1; ...: on two"),
        (0.5, "warning", "show common places on the map: a_0 and a_1; b_0 and b_1; ...: on two"),
        (1.5, None, ""),
    ],
)
def test_tiles_of_one_scene_are_to_stay_together(tmp_path, step, severity, words):
    root = write_tiles(tmp_path / "set", step)
    found = inspect_folder(root)
    said = [f for f in found.findings if "on the map" in f.problem]
    assert [f.severity for f in said] == ([severity] if severity else [])
    assert found.group == (r"^(.+)[-_ .]" if severity else "")
    if severity:
        assert said[0].problem.startswith(f"3 pairs of images {words}")
        assert said[0].line == f"unetseg check {root} --group '^(.+)[-_ .]'"
        grouped = inspect_folder(root, PatchSettings(group=found.group))
        assert not [f for f in grouped.findings if "on the map" in f.problem]
        assert build_store(root, tmp_path / "p.h5", {"group": found.group}).info.held_out


def test_tiles_that_meet_at_a_corner_or_lie_on_other_maps_are_no_neighbours(tmp_path):
    places = [(0, 0, 32631), (24, 20, 32631), (500, 0, 32631), (524, 0, 32632)]

    def tile(path, k):
        east, south, epsg = places[k]
        on_map(path, grey_of(k), west=5e5 + east, north=46e5 - south, epsg=epsg)

    found = inspect_folder(write(tmp_path / "set", tile))
    assert not [f for f in found.findings if "on the map" in f.problem]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Messwerte.csv", "Name;Fläche µm²\n".encode("cp1252")),
        ("runs.csv", b"id,rle\n1," + b"3 4 " * 50_000),
        ("utf16.csv", "a,b\n1,2\n".encode("utf-16")),
        ("_classes.csv", "Größe,Klasse\n".encode("cp1252")),
        ("_classes.csv", b""),
        ("images/plots.geojson", b'{"type": "FeatureCollection", "features": []}'),
        ("table.csv/notes.txt", b"a folder"),
    ],
)
def test_strangers_tables_beside_a_set_change_nothing(tmp_path, name, content):
    root = write(tmp_path / "set")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(content)
    found = inspect_folder(root)
    assert not found.errors
    assert len(found.surveys) == COUNT


@pytest.mark.parametrize("copied", [COUNT, 1])
def test_copies_of_held_out_images_are_held_out_and_something_must_be_left(tmp_path, copied):
    write(tmp_path / "set/train")
    for part in ("images", "masks"):
        (tmp_path / "set/val" / part).mkdir(parents=True)
        for k in range(copied):
            shutil.copy(tmp_path / f"set/train/{part}/im{k}.png", tmp_path / "set/val" / part)
        png(tmp_path / f"set/val/{part}/other", grey_of(9) if part == "images" else mask_of(9))
    found = inspect_folder(tmp_path / "set")
    if copied == COUNT:
        assert ["every image of train/ is also in" in f.problem for f in found.errors] == [True]
        with pytest.raises(InputError, match=r"none is left to train on; .* val=0\.2"):
            build_store(tmp_path / "set", tmp_path / "p.h5")
    else:
        said = "the set is divided: 2 of val and 1 copy of these are held out, 3 are trained on"
        assert [f.problem for f in found.findings if "divided" in f.problem] == [said]
        info = build_store(tmp_path / "set", tmp_path / "p.h5").info
        assert sum(s.split == "train" for s in info.sources) == 3


def test_a_coloured_strip_that_is_cropped_away_does_not_make_two_kinds_of_images(tmp_path):
    def with_bar(path, k):
        image = np.stack([grey_of(k)] * 3, 2)
        image[-4:, :9] = 255, 200, 0
        png(path, image)

    root, settings = write(tmp_path / "set", image=with_bar), PatchSettings(crop="bottom=4")
    assert not inspect_folder(root, settings).errors
    assert build_store(root, tmp_path / "p.h5", settings).info.channels == 3


def test_a_value_beyond_palettes_may_be_ignored_beside_masks_with_palettes(tmp_path):
    root = write(tmp_path / "set", mask=lambda path, k: paletted(path, mask_of(k)))
    assert not inspect_folder(root, ignore=[65535]).errors
