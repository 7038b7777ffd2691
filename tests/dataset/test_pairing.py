import numpy as np
import pytest
from PIL import Image

from unetseg.classes import ClassTable, SegmentationClass, table_of
from unetseg.dataset import pairing
from unetseg.dataset.naming import list_images, natural_key
from unetseg.dataset.pairing import find_pairs
from unetseg.errors import InputError


def fill(root, *names):
    """Make empty files; pairing looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(pairs, root):
    return [tuple(str(p.relative_to(root)) for p in (q.image, q.mask)) for q in pairs]


def test_numbers_in_names_are_ordered_as_numbers():
    mixed = ["a10", "a9", "b1", "a1.10", "a1.9", "a", "10", "9x", "ä2", "a01", "a1"]
    due = ["9x", "10", "a", "a01", "a1", "a1.9", "a1.10", "a9", "a10", "b1", "ä2"]
    assert sorted(mixed, key=natural_key) == due


def test_pictures_are_listed_by_their_endings_hidden_ones_left_out(tmp_path):
    fill(tmp_path, "b2.PNG", "b10.Tiff", ".c.png", "notes.txt", "sub/d.png", "a.jpeg", "x.npy")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpeg", "b2.PNG", "b10.Tiff"]


@pytest.mark.parametrize(
    ("what", "text"),
    [("none", "not found"), ("file", "is a file; a folder is due"), ("empty", "no images (*.png")],
)
def test_a_folder_that_gives_no_pictures_is_named(tmp_path, what, text):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for read in (list_images, find_pairs) if what != "empty" else (list_images,):
        with pytest.raises(InputError) as caught:
            read(tmp_path / what)
        assert text in str(caught.value)
        assert str(tmp_path / what) in str(caught.value)


LAYOUTS = {
    "equal stems": [("images/a.JPG", "masks/a.png"), ("images/b.tif", "masks/b.png")],
    "another prefix": [
        ("images/Img_1.png", "masks/Mask_1.png"),
        ("images/Img_2.png", "masks/Mask_2.png"),
        ("images/Img_10.png", "masks/Mask_10.png"),
    ],
    "another suffix": [
        ("images/21_training.tif", "1st_manual/21_manual1.gif"),
        ("images/22_training.tif", "1st_manual/22_manual1.gif"),
    ],
    "prefix and suffix": [
        ("raw/img-1-of-set.png", "gt/seg-1.png"),
        ("raw/img-2-of-set.png", "gt/seg-2.png"),
    ],
    "names of words": [("Imgs/cat.png", "Labels/cat_L.png"), ("Imgs/dog.png", "Labels/dog_L.png")],
    "a number that all names share": [
        ("images/exp7_01.png", "masks/m_01.png"),
        ("images/exp7_02.png", "masks/m_02.png"),
    ],
    "one pair that shares its number": [("images/Img_3.png", "masks/Mask_3.png")],
    "dots, spaces, brackets, other letters": [
        ("images/plate 2.1 (α).png", "annotations/plate 2.1 (α)_gt.png"),
        ("images/plate 10.1 (ß).png", "annotations/plate 10.1 (ß)_gt.png"),
    ],
    "images beside the folder of masks": [("a.png", "label/a.png"), ("b.png", "label/b.png")],
    **{
        f"flat, {suffix}": [("a 1.png", f"a 1{suffix}.png"), ("b.png", f"b{suffix}.PNG")]
        for suffix in pairing.MASK_SUFFIXES
    },
    "an OME-TIFF alone": [("images/7.ome.tif", "masks/7.png")],
    "an OME-TIFF among others": [
        ("images/6.png", "masks/6.png"),
        ("images/7.ome.tif", "masks/7.png"),
        ("images/8.png", "masks/8.png"),
    ],
    "masks as OME-TIFF": [
        ("images/6.png", "masks/6.png"),
        ("images/7.png", "masks/7.ome.tif"),
        ("images/8.png", "masks/8.ome.tif"),
    ],
    "an OME-TIFF beside a file of its name": [
        ("images/7.ome.tif", "masks/7.ome.png"),
        ("images/7.png", "masks/7.png"),
    ],
    "flat, an OME-TIFF": [("6.png", "6_mask.png"), ("7.ome.tif", "7_mask.png")],
    "images and masks as OME-TIFF, another suffix": [
        ("images/7.ome.tif", "masks/7_mask.ome.tif"),
        ("images/8.ome.tif", "masks/8_mask.ome.tif"),
    ],
    "images and masks as OME-TIFF, two other suffixes": [
        ("images/21_training.ome.tif", "masks/21_manual1.ome.tif"),
        ("images/22_training.ome.tif", "masks/22_manual1.ome.tif"),
    ],
    "flat, images and masks as OME-TIFF": [("6.ome.tif", "6_mask.ome.tif")],
    "flat, in capitals": [("A.TIF", "A_MASK.TIF"), ("B.TIF", "B_MASK.TIF")],
    "flat, images with a suffix too": [
        ("a_1_img.png", "a_1_mask.png"),
        ("b_2_img.png", "b_2_mask.png"),
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_without_options(tmp_path, layout):
    due = LAYOUTS[layout]
    fill(tmp_path, "classes.toml", "README.txt", *(n for pair in reversed(due) for n in pair))
    pairs = find_pairs(tmp_path)
    assert names(pairs, tmp_path) == due
    assert [p.name for p in pairs] == [p.image.stem for p in pairs]


@pytest.mark.parametrize(
    ("files", "texts"),
    [
        (["images/a.png", "1st_manual/a.gif", "mask/a.gif"], ["1st_manual/ and mask/", "masks?"]),
        (["images/a.png", "imgs/a.png", "masks/a.png"], ["images/ and imgs/", "images?"]),
        (["a.png", "a_mask.png", "a_seg.png"], ["*_mask or *_seg"]),
        (["a.txt"], ["no folders images/ and masks/"]),
        (["a.png", "b.png"], ["holds 2 pictures and no masks", "unetseg label"]),
        (["images/a.png", "images/b.png"], ["holds 2 pictures and no masks", "unetseg label"]),
        (
            ["train/images/a.png", "val/images/b.png"],
            ["train: holds 1 picture and no masks", "/train or ", "/val"],
        ),
        (["images/a.czi", "masks/a.png"], ["a.czi: Zeiss CZI", "save as TIFF"]),
        (["images/a.png", "images/a.tif", "masks/a.png"], ["a.tif: a.png has the same stem"]),
        (["images/a.png", "masks/a.png", "masks/a.gif"], ["a.png: a.gif has the same stem"]),
        (
            [*(f"images/i{k}.png" for k in range(1, 9)), "masks/m1.png", "masks/m2.png"],
            ["6 images without mask: i3.png (expected: m3), i4.png", "i7.png (expected: m7), ..."],
        ),
        (
            ["images/a.png", "masks/a.png", "masks/b.png", "masks/c.png"],
            ["2 masks without image: b.png, c.png"],
        ),
        (
            ["images/7.tif", "images/7.ome.tif", "masks/7.png"],
            ["1 image without mask: 7.ome.tif (expected: 7.ome)"],
        ),
        (["images/cat.png", "masks/dog.png"], ["no mask fits an image: images cat; masks dog"]),
        (["images/img_1.png", "masks/img_2.png"], ["no mask fits"]),
        (["images/a.png", "masks/b.txt"], ["masks: no images"]),
        (["a_mask.png", "b_mask.png"], ["masks, but no images"]),
    ],
)
def test_what_cannot_be_paired_for_certain_is_asked_about(tmp_path, files, texts):
    fill(tmp_path, *files)
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


def test_classes_come_from_the_file_given_else_from_the_folder(tmp_path):
    assert pairing.load_classes(tmp_path) is None
    here, there = table_of([0, 1]), table_of(["#000000", "#ff0000"])
    pairing.write_classes(tmp_path, here)
    (tmp_path / "other.toml").write_text(there.to_toml(), "utf-8")
    assert pairing.load_classes(tmp_path) == here
    assert pairing.load_classes(tmp_path, tmp_path / "other.toml") == there
    with pytest.raises(InputError, match="not found"):
        pairing.load_classes(tmp_path, tmp_path / "gone.toml")


def test_a_written_pair_is_found_again_and_read_by_pillow(tmp_path):
    table = ClassTable((SegmentationClass("a", 3, "#ff0000"), SegmentationClass("b", 9, "#0000ff")))
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    mask = (image[..., 0] % 2).astype(np.uint8)
    pairing.write_labelled(tmp_path / "new", "x.1", image, mask, table)
    (pair,) = find_pairs(tmp_path / "new")
    assert pair.name == "x.1"
    np.testing.assert_array_equal(np.asarray(Image.open(pair.image)), image[..., 0])
    np.testing.assert_array_equal(np.asarray(Image.open(pair.mask)), np.where(mask, 9, 3))


# --- groups and splits -----------------------------------------------------------------------


def test_composed_and_decomposed_letters_pair(tmp_path):
    fill(tmp_path, "images/\u00e9.png", "masks/e\u0301.png")
    (pair,) = find_pairs(tmp_path)
    assert (pair.name, pair.mask.name) == ("\u00e9", "e\u0301.png")
    fill(tmp_path, "images/e\u0301.png")
    with pytest.raises(InputError, match="has the same stem"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("half", "other"), [("images", "masks"), ("masks", "images")])
def test_half_of_a_set_names_the_set(tmp_path, half, other):
    fill(tmp_path, "set/images/a.png", "set/masks/a.png")
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path / "set" / half)
    assert f"is half of a set; {tmp_path / 'set'} holds {other}/, too" in str(caught.value)
