import json
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter

from tests.dataset.test_label_traps import COLOURS, objects
from unetseg.classes import read_classes
from unetseg.dataset.conversion import mask_files
from unetseg.dataset.conversion.copying import convert_folder
from unetseg.dataset.cutting import build_store
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.dataset.synthesis import synthesize
from unetseg.errors import Code, InputError, as_option
from unetseg.objects.separation import find_objects, object_classes
from unetseg.pictures import reading
from unetseg.pictures.masks import NoClassError
from unetseg.progress import Note
from unetseg.settings import SynthSettings

COUNT, HEIGHT, WIDTH = 3, 120, 140


def truth(k):
    """Return (120, 140): 0 ground, 1 a block, 2 a stripe."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[90:110] = 2
    mask[10 + 5 * k : 60, 20:80] = 1
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def write(root, mask, images="images", ending=".png"):
    """Write grey images, and masks as ``mask(root, k)`` does."""
    for k in range(COUNT):
        save(root / images / f"im{k}{ending}", truth(k) * 90 + np.uint8(20))
        mask(root, k)
    return root


def masks_of(folder):
    files = sorted((folder / "masks").iterdir())
    return {p.stem: np.asarray(Image.open(p)) for p in files}


def names_of(folder):
    text = (folder / "classes.toml").read_text()
    return [line.split('"')[1] for line in text.splitlines() if line.startswith("name")]


def smooth(mask):
    """Blend the edges of colours, as a program that resizes masks smoothly does."""
    large = Image.fromarray(COLOURS[mask]).resize((2 * WIDTH + 1, 2 * HEIGHT + 1))
    return np.asarray(large.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


NOISY = {
    "smoothed": lambda r, k: save(r / f"masks/im{k}.png", smooth(truth(k))),
    "JPEG": lambda r, k: save(r / f"masks/im{k}.jpg", COLOURS[truth(k)], quality=90),
    "strong JPEG": lambda r, k: save(r / f"masks/im{k}.jpg", COLOURS[truth(k)], quality=60),
}


@pytest.mark.parametrize("how", NOISY)
def test_blended_and_noisy_colours_go_to_the_nearest_class(tmp_path, how):
    root = write(tmp_path / "set", NOISY[how])
    done = convert_folder(root, tmp_path / "out", limit=0.1)
    assert names_of(tmp_path / "out") == ["#000000", "#00ff00", "#ff0000"]
    assert 0 < done.blended <= done.snapped < done.pixels
    for k, mask in enumerate(masks_of(tmp_path / "out").values()):
        wrong = np.array([0, 2, 1])[mask] != truth(k)  # sorted by colour, green comes first
        assert wrong.mean() < 0.01
        for y, x in np.argwhere(wrong):  # only along edges
            patch = truth(k)[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            assert patch.min() < patch.max()
    build_store(tmp_path / "out", tmp_path / "store.h5")  # trains as it is


def grey_levels(root, k):
    levels = np.array([0, 255, 128], np.uint8)[truth(k)]
    large = Image.fromarray(levels).resize((2 * WIDTH + 1, 2 * HEIGHT + 1))
    save(root / f"masks/im{k}.png", np.asarray(large.resize((WIDTH, HEIGHT))))


def forgotten(root, k):
    save(root / f"masks/im{k}.png", truth(k) + (truth(k) == 2) * np.uint8(5))


def patch_of_blue(root, k):
    picture = smooth(truth(k)).copy()
    picture[2:8, 100:106] = (0, 0, 255)
    save(root / f"masks/im{k}.png", picture)


def thin_lines(root, k):
    picture = smooth(truth(k)).copy()
    picture[:, 100::8] = (0, 0, 255)
    save(root / f"masks/im{k}.png", picture)


RGB_TOML = "".join(
    f'[[class]]\nname = "{n}"\ncolour = "{c}"\n'
    for n, c in [("ground", "#000000"), ("block", "#ff0000"), ("stripe", "#00ff00")]
)
VALUES_TOML = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in (0, 1, 2))
UNSAFE = {
    "a class between two others": (grey_levels, "", {}, "blends of"),
    "a value no class has": (forgotten, VALUES_TOML, {}, "7 in"),
    "a colour no class has": (patch_of_blue, RGB_TOML, {}, "no class: #0000ff in"),
    "too many blends": (NOISY["smoothed"], "", {"limit": 0.01}, "over the limit of 1 %"),
    "a class of thin lines": (thin_lines, "", {}, "thin lines or noise"),
}


@pytest.mark.parametrize("trap", UNSAFE)
def test_what_cannot_be_snapped_safely_is_refused(tmp_path, trap):
    how, toml, options, text = UNSAFE[trap]
    root = write(tmp_path / "set", how)
    if toml:
        (root / "classes.toml").write_text(toml)
    with pytest.raises(InputError, match=text):
        convert_folder(root, tmp_path / "out", **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def lossy(ending, quality):
    return lambda r, k: save(r / f"masks/im{k}{ending}", truth(k), quality=quality)


@pytest.mark.parametrize("toml", ["", VALUES_TOML])
@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@pytest.mark.parametrize("quality", [50, 90, 100])
def test_small_numbers_in_a_lossy_format_are_refused_by_check_and_convert(
    tmp_path, toml, ending, quality
):
    root = write(tmp_path / "set", lossy(ending, quality))
    if toml:
        (root / "classes.toml").write_text(toml)
    with pytest.raises(InputError, match="lie too close for a lossy format") as caught:
        convert_folder(root, tmp_path / "out")
    assert caught.value.code is Code.CLOSE_VALUES
    found = inspect_folder(root)
    assert {f.code for f in found.errors} == {Code.CLOSE_VALUES}
    assert all(not f.line for f in found.findings)


def test_small_numbers_beside_large_ones_in_a_jpeg_are_refused(tmp_path):
    values = np.array([0, 2, 255], np.uint8)
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.jpg", values[truth(k)]))
    with pytest.raises(InputError, match="lie too close for a lossy format"):
        convert_folder(root, tmp_path / "out")


def test_classes_that_lie_close_are_no_classes_of_a_jpeg(tmp_path):
    levels = np.array([0, 255, 0], np.uint8)
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.jpg", levels[truth(k)]))
    (root / "classes.toml").write_text(VALUES_TOML.replace("value = 2", "value = 255"))
    with pytest.raises(InputError, match="the values of classes lie too close"):
        convert_folder(root, tmp_path / "out")


def test_a_jpeg_of_two_far_values_is_read(tmp_path):
    levels = np.array([0, 255, 0], np.uint8)
    root = write(
        tmp_path / "set",
        lambda r, k: save(r / f"masks/im{k}.jpg", levels[truth(k)], quality=100),
    )
    (error,) = inspect_folder(root).errors
    assert "unetseg convert" in error.line
    convert_folder(root, tmp_path / "out")
    for k, mask in enumerate(masks_of(tmp_path / "out").values()):
        assert ((mask == 1) == (truth(k) == 1)).mean() > 0.99


def test_all_colours_of_no_class_are_listed_with_their_images_and_can_be_ignored(tmp_path):
    def patched(root, k):
        picture = smooth(truth(k)).copy()
        if k > 0:
            picture[2:8, 100:106] = (255, 255, 0)
        if k > 1:
            picture[20:26, 100:106] = (0, 255, 255)
        save(root / f"masks/im{k}.png", picture)

    root = write(tmp_path / "set", patched)
    (root / "cl.toml").write_text(RGB_TOML)
    with pytest.raises(NoClassError) as caught:
        convert_folder(root, tmp_path / "out", classes=root / "cl.toml", limit=0.1)
    text = str(caught.value)
    assert "#ffff00 in 16 pixels, first at (x 101, y 3) of im1.png and 16 pixels" in text
    assert "#00ffff in 16 pixels, first at (x 101, y 21) of im2.png" in text
    assert as_option(*caught.value.give) == "--ignore '#ffff00,#00ffff'"
    ignored = ["#ffff00", "#00ffff"]
    convert_folder(root, tmp_path / "out", classes=root / "cl.toml", ignore=ignored, limit=0.1)
    for mask, holes in zip(masks_of(tmp_path / "out").values(), (0, 1, 2), strict=True):
        assert (mask == 255).sum() == 36 * holes


def test_transparent_pixels_of_numbered_objects_are_ignored(tmp_path):
    def erased(root, k):
        numbers = np.repeat(objects(9)[..., None], 3, 2).astype(np.uint8)
        alpha = np.full((40, 48, 1), 255, np.uint8)
        alpha[20:] = 0
        save(root / f"masks/im{k}.png", np.dstack([numbers, alpha]))
        save(root / f"images/im{k}.png", numbers * np.uint8(9))

    root = write(tmp_path / "set", erased)
    assert convert_folder(root, tmp_path / "out", instances=True).ignored == COUNT * 20 * 48
    for mask in masks_of(tmp_path / "out").values():
        assert (mask[20:] == 255).all()
        assert set(np.unique(mask[:20])) == {0, 1, 2}


def test_a_grey_value_of_no_class_is_called_a_value(tmp_path):
    def grey(root, k):
        levels = np.array([0, 120, 240], np.uint8)[truth(k)]
        save(root / f"masks/im{k}.jpg", levels, quality=95)

    root = write(tmp_path / "set", grey)
    toml = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in (0, 240))
    (root / "cl.toml").write_text(toml)
    with pytest.raises(InputError, match="no class: value 120 in") as caught:
        convert_folder(root, tmp_path / "no", classes=root / "cl.toml")
    assert as_option(*caught.value.give) == "--ignore 120"
    convert_folder(root, tmp_path / "out")  # the values are found without a file
    assert names_of(tmp_path / "out") == ["0", "120", "240"]
    for k, mask in enumerate(masks_of(tmp_path / "out").values()):
        np.testing.assert_array_equal(mask, truth(k))


def folders_of_classes(root, k):
    for value, name in ((1, "block"), (2, "stripe")):
        save(root / f"masks/{name}/im{k}.png", (truth(k) == value) * np.uint8(255))


def suffixes(root, k):
    for value, name in ((1, "block"), (2, "stripe")):
        save(root / f"im{k}_{name}.png", (truth(k) == value).astype(np.uint8))


def labelme(root, k):
    blocks = [
        {"label": "block", "points": [[20, 10 + 5 * k], [79, 10 + 5 * k], [79, 59], [20, 59]]},
        {"label": "stripe", "points": [[139, 90], [0, 109]], "shape_type": "rectangle"},
    ]
    data = {"shapes": blocks, "imagePath": f"im{k}.png"}
    (root / f"im{k}.json").write_text(json.dumps(data))


def cvat(root, k):
    save(
        root / f"SegmentationClass/im{k}.png",
        np.array([(0, 0, 0), (9, 9, 200), (8, 200, 8)], np.uint8)[truth(k)],
    )
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nblock:9,9,200::\nstripe:8,200,8::\n"
    )


SETS = {
    "a folder a class": (folders_of_classes, "images"),
    "a file a class": (suffixes, "."),
    "LabelMe": (labelme, "."),
    "CVAT": (cvat, "JPEGImages"),
}


@pytest.mark.parametrize("kind", SETS)
def test_other_ways_to_keep_labels_give_the_same_masks(tmp_path, kind):
    how, images = SETS[kind]
    root = write(tmp_path / "set", how, images)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    convert_folder(root, tmp_path / "out")
    assert names_of(tmp_path / "out") == ["background", "block", "stripe"]
    for k, mask in enumerate(masks_of(tmp_path / "out").values()):
        np.testing.assert_array_equal(mask, truth(k))
        assert (tmp_path / f"out/images/im{k}.png").read_bytes() == (
            root / images / f"im{k}.png"
        ).read_bytes()
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_overlapping_masks_of_one_class_each_are_asked_about(tmp_path):
    def overlapping(root, k):
        save(root / f"im{k}_a.png", (truth(k) > 0) * np.uint8(255))
        save(root / f"im{k}_b.png", (truth(k) == 1) * np.uint8(255))

    root = write(tmp_path / "set", overlapping, ".")
    with pytest.raises(InputError, match=r"order=\['a', 'b'\]"):
        convert_folder(root, tmp_path / "no")
    convert_folder(root, tmp_path / "out", order=["a", "b"])
    due = np.array([0, 2, 1])[truth(0)]
    np.testing.assert_array_equal(masks_of(tmp_path / "out")["im0"], due)


def test_an_image_without_a_mask_of_any_class_is_no_image_of_background(tmp_path):
    root = write(tmp_path / "set", folders_of_classes)
    (root / "masks/block/im0.png").unlink()
    convert_folder(root, tmp_path / "out")  # no block in that image
    (root / "masks/stripe/im0.png").unlink()
    with pytest.raises(InputError, match=r"set: 1 image without mask: im0\.png"):
        convert_folder(root, tmp_path / "no")
    rest = sorted(path.stem for path in (root / "images").iterdir() if path.stem != "im0")
    (root / "train.txt").write_text("\n".join(rest[:-1]))
    (root / "val.txt").write_text(rest[-1])
    convert_folder(root, tmp_path / "listed")
    assert not list((tmp_path / "listed").rglob("im0.png"))


def test_one_based_and_black_and_white_masks_are_numbered_from_zero(tmp_path):
    root = write(tmp_path / "one", lambda r, k: save(r / f"masks/im{k}.png", truth(k) + 1))
    convert_folder(root, tmp_path / "out")
    np.testing.assert_array_equal(masks_of(tmp_path / "out")["im0"], truth(0))
    assert names_of(tmp_path / "out") == ["1", "2", "3"]
    both = lambda r, k: save(r / f"masks/im{k}.png", (truth(k) > 0) * np.uint8(255))  # noqa: E731
    convert_folder(write(tmp_path / "two", both), tmp_path / "out2")
    np.testing.assert_array_equal(masks_of(tmp_path / "out2")["im0"], truth(0) > 0)


def test_numbered_objects_become_foreground_and_border(tmp_path):
    def numbered(root, k):
        mask = np.zeros((HEIGHT, WIDTH), np.uint16)
        mask[2:6, 2:6], mask[2:6, 6:9] = 1, 300  # two that touch
        save(root / f"masks/im{k}.png", mask)

    convert_folder(write(tmp_path / "set", numbered), tmp_path / "out", instances=True)
    assert names_of(tmp_path / "out") == ["background", "foreground", "border"]
    numbers = tifffile.imread(tmp_path / "out/objects/im0.tif")
    assert numbers[3, 2:9].tolist() == [1, 1, 1, 1, 2, 2, 2]  # without gaps
    due = ["2222222", "2112212", "2112212", "2222222"]
    found = masks_of(tmp_path / "out")["im0"]
    assert ["".join(map(str, row)) for row in found[2:6, 2:9]] == due
    assert (found > 0).sum() == 28


@pytest.mark.parametrize(
    ("declared", "due"),
    [
        (["background", "cell"], ["background", "cell", "cell border"]),
        (["background", "cell", "border"], ["background", "cell", "border"]),
        (["background", "cell", "dust"], ["background", "foreground", "border"]),
    ],
)
def test_numbered_objects_keep_the_name_of_the_only_declared_class(tmp_path, declared, due):
    def numbered(root, k):
        mask = np.zeros((HEIGHT, WIDTH), np.uint16)
        mask[2:6, 2:6], mask[2:6, 6:9] = 1, 300
        save(root / f"masks/im{k}.png", mask)

    root = write(tmp_path / "set", numbered)
    entries = enumerate(declared)
    text = "\n".join(f'[[class]]\nname = "{name}"\nvalue = {value}' for value, name in entries)
    (root / "classes.toml").write_text(text)
    said = []
    done = convert_folder(root, tmp_path / "out", instances=True, on_progress=said.append)
    assert names_of(tmp_path / "out") == due
    assert done.objects == 2 * done.images[0]
    lost = [str(note) for note in said if "numbers do not tell the classes cell, dust" in str(note)]
    assert len(lost) == ("dust" in declared)


@pytest.mark.parametrize("place", ["masks", "masks/cell"])
def test_masks_that_hold_classes_are_not_taken_for_numbers(tmp_path, place):
    root = tmp_path / "set"
    for k in range(3):
        save(root / f"images/im{k}.png", np.zeros((9, 11), np.uint8))
        save(root / place / f"im{k}.png", np.pad([[255, 0, 255]], 4).astype(np.uint8))
    with pytest.raises(InputError) as caught:
        convert_folder(root, tmp_path / "out", instances=True)
    assert caught.value.what == str(root / place / "im0.png")
    assert not (tmp_path / "out").exists()


def test_a_set_of_touching_ellipses_converts_to_itself_by_its_label_images(tmp_path):
    settings = SynthSettings(height=120, width=120, touching=True)
    train, _ = synthesize(tmp_path / "set", n=2, n_test=0, settings=settings)
    hidden = masks_of(train)["0000"].copy()
    hidden[:9] = 255
    save(train / "masks/0000.png", hidden)
    toml = train / "classes.toml"
    toml.write_text("ignore = [255]\n" + toml.read_text())
    done = convert_folder(train, tmp_path / "out", instances=True)
    for stem, mask in masks_of(train).items():
        np.testing.assert_array_equal(masks_of(tmp_path / "out")[stem], mask)
    numbers = [tifffile.imread(file).max() for file in train.glob("objects/*.tif")]
    assert done.objects == sum(numbers) > 20
    assert done.classes == read_classes(toml)


def two_classes_of_objects(root, form):
    """Write 20 x 30 pixels with two cells that touch, and dust on the second one."""
    save(root / "images/a.png", np.zeros((20, 30), np.uint8))
    boxes = [(0, (2, 2, 10, 12)), (0, (10, 2, 18, 12)), (1, (14, 8, 22, 16))]  # x, y, x, y
    if form == "YOLO":
        lines = [
            f"{kind} {x / 30} {y / 20} {u / 30} {y / 20} {u / 30} {v / 20} {x / 30} {v / 20}"
            for kind, (x, y, u, v) in boxes
        ]
        (root / "labels").mkdir()
        (root / "labels/a.txt").write_text("\n".join(lines))
        (root / "classes.txt").write_text("cell\ndust\n")
        return
    if form == "COCO":
        shapes = [
            {"image_id": 7, "category_id": kind, "segmentation": [[x, y, u, y, u, v, x, v]]}
            for kind, (x, y, u, v) in boxes
        ]
        data = {
            "images": [{"id": 7, "file_name": "a.png"}],
            "annotations": shapes,
            "categories": [{"id": 0, "name": "cell"}, {"id": 1, "name": "dust"}],
        }
        (root / "coco.json").write_text(json.dumps(data))
        return
    for kind, name in enumerate(("cell", "dust")):
        numbers = np.zeros((20, 30), np.uint16)
        own = [box for k, box in boxes if k == kind]
        for number, (x, y, u, v) in enumerate(own, 500):
            numbers[y:v, x:u] = number
        save(root / f"masks/{name}/a.png", numbers)


@pytest.mark.parametrize("form", ["YOLO", "COCO", "a folder of numbers a class"])
def test_objects_of_several_classes_keep_class_and_border(tmp_path, form):
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    two_classes_of_objects(root, form)
    order = ["cell", "dust"] if form.startswith("a folder") else []
    done = convert_folder(root, tmp_path / "out", instances=True, order=order)
    assert done.objects == 3
    names = ["background", "cell", "cell border", "dust", "dust border"]
    assert names_of(tmp_path / "out") == names
    assert len({c.colour for c in done.classes}) == len(names)
    assert object_classes(done.classes, ["all"]) == {1: 2, 3: 4}
    numbers = tifffile.imread(tmp_path / "out/objects/a.tif")
    due = np.zeros((20, 30), int)
    due[2:12, 2:10], due[2:12, 10:18], due[8:16, 14:22] = 1, 2, 3
    np.testing.assert_array_equal(numbers, due)
    mask = masks_of(tmp_path / "out")["a"]
    assert mask[5].tolist()[1:19] == [0, 2, *[1] * 6, 2, 2, *[1] * 6, 2, 0]
    assert mask[10].tolist()[9:23] == [2, 2, 1, 1, 2, 4, *[3] * 6, 4, 0]
    # Predicted so, the objects and their classes are found again.
    found = find_objects(mask, {1: 2, 3: 4})
    assert found.kinds.tolist() == [1, 1, 3]
    np.testing.assert_array_equal(found.numbers, due)


def test_outside_the_field_of_view_is_ignored_on_request(tmp_path):
    def drive(root, k):
        save(root / f"1st_manual/im{k}_manual1.gif", (truth(k) > 0) * np.uint8(255))
        view = np.zeros((HEIGHT, WIDTH), np.uint8)
        view[5:-5] = 255
        save(root / f"mask/im{k}_mask.gif", view)

    root = write(tmp_path / "set", drive)
    with pytest.raises(InputError, match="fov='mask'"):
        convert_folder(root, tmp_path / "no")
    done = convert_folder(root, tmp_path / "out", fov="mask")
    assert done.ignored == COUNT * 10 * WIDTH
    due = (truth(0) > 0).astype(np.uint8)
    due[:5], due[-5:] = 255, 255
    np.testing.assert_array_equal(masks_of(tmp_path / "out")["im0"], due)


def voc(root, k):
    mask = truth(k)
    mask[0] = 255
    picture = Image.fromarray(mask)
    picture.putpalette(bytes([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192]))
    (root / "SegmentationClass").mkdir(exist_ok=True)
    picture.save(root / f"SegmentationClass/im{k}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    (root / "Annotations").mkdir(exist_ok=True)


def lists(root, train, val):
    for name, text in (("train", train), ("val", val)):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text(text)


def test_lists_become_folders_and_outlines_of_pascal_voc_are_ignored(tmp_path):
    root = write(tmp_path / "set", voc, "JPEGImages", ".jpg")
    save(root / "JPEGImages/unlabelled.jpg", truth(0))
    lists(root, "im0\n\n", "JPEGImages/im2.jpg SegmentationClass/im2.png\n")
    done = convert_folder(root, tmp_path / "out")
    assert [(p.name, n) for p, n in zip(done.folders, done.images, strict=True)] == [
        ("train", 1),
        ("val", 1),
    ]
    assert done.left_out == ("im1",)
    due = truth(2)
    due[0] = 255
    np.testing.assert_array_equal(masks_of(tmp_path / "out/val")["im2"], due)


@pytest.mark.parametrize(
    ("train", "val", "text"),
    [
        ("im0\nim1", "im1", "val.txt: names im1, which train.txt names, too"),
        ("im0", "im9", "val.txt: names im9, which has no image"),
    ],
)
def test_lists_that_overlap_or_name_nothing_are_refused(tmp_path, train, val, text):
    root = write(tmp_path / "set", voc, "JPEGImages", ".jpg")
    lists(root, train, val)
    with pytest.raises(InputError) as caught:
        convert_folder(root, tmp_path / "out")
    assert text in str(caught.value)


def test_a_turned_image_is_written_upright_beside_its_mask(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    root = tmp_path / "set"
    save(root / "images/a.jpg", truth(0), exif=exif, quality=95)
    save(root / "masks/a.png", np.rot90(truth(0), 2).copy())
    convert_folder(root, tmp_path / "out")
    upright = np.asarray(Image.open(tmp_path / "out/images/a.png")).astype(int)
    assert np.abs(upright - np.rot90(truth(0), 2)).max() < 10
    np.testing.assert_array_equal(masks_of(tmp_path / "out")["a"], np.rot90(truth(0), 2))


@pytest.mark.parametrize("target", ["set", "set/new", "."])
def test_a_target_in_or_around_the_source_is_refused(tmp_path, target):
    root = write(tmp_path / "set", NOISY["JPEG"])
    with pytest.raises(InputError, match="or around it"):
        convert_folder(root, tmp_path / target, overwrite=True)


def test_a_folder_that_holds_something_is_left_alone_without_a_word(tmp_path):
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.png", truth(k)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        convert_folder(root, tmp_path / "out")
    save(tmp_path / "out/images/old.png", truth(0))
    convert_folder(root, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/mine.txt").read_text() == "mine"
    assert not (tmp_path / "out/images/old.png").exists()


def test_over_64_objects_are_no_classes_but_convert_as_objects(tmp_path):
    root = tmp_path / "set"
    save(root / "images/a.png", np.zeros((40, 48), np.uint8))
    save(root / "masks/a.png", objects(100))
    with pytest.raises(InputError, match="for each object"):
        convert_folder(root, tmp_path / "no")
    convert_folder(root, tmp_path / "out", instances=True)
    found = masks_of(tmp_path / "out")["a"]
    # A block of 3 x 3 has one inner pixel, two where it touches the image's edge, four in a corner.
    assert [(found == i).sum() for i in (1, 2)] == [122, 778]


@pytest.mark.parametrize(
    ("kind", "options", "useless"),
    [
        ("LabelMe", {"instances": True, "limit": 0.2}, "limit"),
        ("LabelMe", {"order": ["block", "stripe"]}, "order"),
        ("a folder a class", {"ignore": [255], "instances": True}, "ignore"),
        ("a folder a class", {"limit": 0.2, "instances": True}, "limit"),
        ("CVAT", {"order": ["a"]}, "order"),
        ("CVAT", {"instances": True, "limit": 0.2}, "limit"),
    ],
)
def test_options_that_do_nothing_for_a_set_are_refused(tmp_path, kind, options, useless):
    how, images = SETS[kind]
    root = write(tmp_path / "set", how, images)
    with pytest.raises(InputError, match="does nothing here: the set holds") as caught:
        convert_folder(root, tmp_path / "out", **options)
    assert str(caught.value).startswith(f"{useless}: does nothing here")
    assert not (tmp_path / "out").exists()


def test_the_limit_holds_for_one_mask_a_class_too(tmp_path):
    def blended(root, k):
        for value, name in ((1, "block"), (2, "stripe")):
            mask = (truth(k) == value) * np.uint8(200)
            mask[:, 70:72] //= 2  # half of the class along two columns
            save(root / f"masks/{name}/im{k}.png", mask)

    root = write(tmp_path / "set", blended)
    with pytest.raises(InputError, match="larger limit"):
        convert_folder(root, tmp_path / "no", limit=0.001)
    convert_folder(root, tmp_path / "out")


def test_a_file_of_classes_wins_over_a_labelmap(tmp_path):
    root = write(tmp_path / "set", cvat, "JPEGImages")
    toml = RGB_TOML.replace("#ff0000", "#0909c8").replace("#00ff00", "#08c808")
    (tmp_path / "mine.toml").write_text(toml)
    convert_folder(root, tmp_path / "out", classes=tmp_path / "mine.toml")
    assert names_of(tmp_path / "out") == ["ground", "block", "stripe"]


def test_ignoring_all_that_masks_hold_is_said(tmp_path):
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.png", truth(k)))
    with pytest.raises(InputError, match="ignore: leaves no class: masks hold 0, 1, 2 only"):
        convert_folder(root, tmp_path / "out", ignore=(0, 1, 2))


def test_accents_of_macos_stand_for_the_same_letter(tmp_path):
    def accents(root, k):
        save(root / f"masks/pr\u00fcfung {k}.png", truth(k))
        save(root / f"images/pru\u0308fung {k}.png", truth(k) * np.uint8(90))
        (root / f"images/im{k}.png").unlink()

    root = write(tmp_path / "set", accents)
    (root / "train.txt").write_text("pru\u0308fung 0\npr\u00fcfung 1\n")
    (root / "val.txt").write_text("pru\u0308fung 2\n")
    assert convert_folder(root, tmp_path / "out").images == (2, 1)


def test_black_and_white_masks_get_names_and_convert_never_names_itself(tmp_path):
    def two(root, k):
        save(root / f"masks/im{k}.png", (truth(k) > 0) * np.uint8(255))

    convert_folder(write(tmp_path / "set", two), tmp_path / "out")
    assert names_of(tmp_path / "out") == ["background", "foreground"]
    write(tmp_path / "bare", lambda r, k: None, images=".")
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "bare", tmp_path / "no")
    assert "unetseg convert" not in str(caught.value)


def test_a_folder_of_views_that_is_missing_is_named_with_those_that_are_there(tmp_path):
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.png", truth(k)))
    with pytest.raises(InputError, match=r"set/fov: not found; folders there are: images, masks"):
        convert_folder(root, tmp_path / "out", fov="fov")
    (root / "masks").rename(root / "1st_manual")  # two folders of masks would be asked about
    write(root, lambda r, k: save(r / f"mask/im{k}.png", truth(k)))
    with pytest.raises(InputError, match=r"set/maks: not found; folders there are: 1st_manual, im"):
        convert_folder(root, tmp_path / "out", fov="maks")


def count_masks_read(monkeypatch):
    """Return the counts of how often each mask is decoded from now on, by its file name."""
    seen, read_mask = Counter(), reading.read_mask

    def counted(path, *more):
        seen[path.name] += 1
        return read_mask(path, *more)

    monkeypatch.setattr(reading, "read_mask", counted)
    return seen


@pytest.mark.parametrize("place", ["masks", "masks/cell"])
def test_each_mask_that_numbers_objects_is_decoded_once(tmp_path, monkeypatch, place):
    numbered = lambda r, k: save(r / place / f"im{k}.png", truth(k))  # noqa: E731
    root, seen = write(tmp_path / "set", numbered), count_masks_read(monkeypatch)
    assert convert_folder(root, tmp_path / "out", instances=True).objects == 2 * COUNT
    assert seen == {f"im{k}.png": 1 for k in range(COUNT)}


@pytest.mark.parametrize(("room", "reads"), [(2**28, 1), (0, 3)])
def test_each_mask_is_decoded_once_where_masks_fit_into_memory(tmp_path, monkeypatch, room, reads):
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for k in range(3):
        mask = Image.fromarray(np.array([(0, 0, 0), (9, 9, 200), (8, 200, 8)], np.uint8)[truth(k)])
        save(root / f"masks/im{k}.png", np.asarray(mask.filter(ImageFilter.GaussianBlur(1))))
        save(root / f"images/im{k}.png", rng.integers(0, 255, truth(k).shape, np.uint8))
    seen = count_masks_read(monkeypatch)
    monkeypatch.setattr(mask_files, "_KEPT_BYTES", room)
    convert_folder(root, tmp_path / "out", limit=0.5)
    for k in range(3):
        assert seen[f"im{k}.png"] == reads + (k == 0 and room == 0)  # the first is looked at alone
        indices = np.asarray(Image.open(tmp_path / f"out/masks/im{k}.png"))
        assert (np.array([0, 2, 1])[indices] == truth(k)).mean() > 0.9  # classes stand by colour


def test_a_folder_that_holds_no_fields_of_view_is_refused_or_doubted(tmp_path):
    def views_of(view):
        def drive(root, k):
            save(root / f"1st_manual/im{k}.png", (truth(k) > 0) * np.uint8(255))
            save(root / f"mask/im{k}.png", view(k))

        return drive

    y, x = np.indices((HEIGHT, WIDTH))
    rim = (y - HEIGHT / 2) ** 2 + (x - WIDTH / 2) ** 2 > 70**2
    root = write(tmp_path / "empty", views_of(lambda k: np.zeros((HEIGHT, WIDTH), np.uint8)))
    with pytest.raises(InputError, match=r"mask/im0\.png: has no pixel in the field of view"):
        convert_folder(root, tmp_path / "no", fov="mask")
    root = write(tmp_path / "inverted", views_of(lambda k: rim * np.uint8(255)))
    with pytest.raises(InputError, match=r"mask/im0\.png: holds the surround .* exchange black"):
        convert_folder(root, tmp_path / "no", fov="mask")
    root, said = write(tmp_path / "small", views_of(lambda k: (truth(k) > 0) * np.uint8(1))), []
    convert_folder(root, tmp_path / "out", fov="mask", on_progress=said.append)
    (doubt,) = [str(one) for one in said if isinstance(one, Note) and one.warning]
    assert "mask/im0.png has only 35 % of the pixels in the field of view; pixels outside" in doubt
    assert not (tmp_path / "no").exists()


def test_the_limit_that_is_advised_for_soft_fields_of_view_is_taken(tmp_path):
    y, x = np.indices((HEIGHT, WIDTH))
    view = ((y - HEIGHT / 2) ** 2 + (x - WIDTH / 2) ** 2 < 55**2) * np.uint8(255)
    soft = np.asarray(Image.fromarray(view).filter(ImageFilter.GaussianBlur(5)))

    def drive(root, k):
        save(root / f"1st_manual/im{k}.png", (truth(k) > 0) * np.uint8(255))
        save(root / f"mask/im{k}.png", soft)

    root = write(tmp_path / "set", drive)
    with pytest.raises(InputError, match="pass a larger limit") as caught:
        convert_folder(root, tmp_path / "no", fov="mask")
    share = float(caught.value.problem.split()[0]) / 100
    assert 0.05 < share < 0.3
    done = convert_folder(root, tmp_path / "out", fov="mask", limit=0.3)
    assert done.ignored == COUNT * int((soft < 128).sum())


def test_label_images_of_some_images_alone_are_refused(tmp_path):
    root = write(tmp_path / "set", lambda r, k: save(r / f"masks/im{k}.png", truth(k)))
    text = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in range(3))
    (root / "classes.toml").write_text(text)
    for k in range(COUNT):
        save(root / f"objects/im{k}.png", truth(k).astype(np.uint16))
    assert convert_folder(root, tmp_path / "all", instances=True).objects == 2 * COUNT
    (root / "objects/im1.png").unlink()
    with pytest.raises(InputError, match="objects: no label image of im1; add it, or leave out"):
        convert_folder(root, tmp_path / "no", instances=True)


def test_floats_without_data_are_converted_as_they_are_trained_on(tmp_path):
    root = write(tmp_path / "set", lambda root, k: save(root / f"masks/im{k}.png", truth(k)))
    for k, path in enumerate(sorted((root / "images").iterdir())):
        pixels = np.asarray(Image.open(path).convert("L"), np.float32)
        pixels[:3] = np.nan
        path.unlink()
        tags = [(42113, "s", 0, "nan", True)]
        tifffile.imwrite(path.with_suffix(".tif"), pixels + k, extratags=tags)
    convert_folder(root, tmp_path / "out")
    assert masks_of(tmp_path / "out").keys() == masks_of(root).keys()
