import numpy as np
import pytest
from PIL import Image

from unetseg.classes import ClassTable, SegmentationClass, table_of
from unetseg.dataset import pairing
from unetseg.dataset.pairing import (
    find_pairs,
    group_of,
    list_images,
    natural_key,
    split_folds,
    split_groups,
)
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
        (["a.png", "b.png"], ["no folders images/ and masks/"]),
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


def test_a_group_is_what_the_brackets_catch_else_the_match():
    assert group_of("0006R0_f01050", r"^(.*)\d{3}$") == "0006R0_f01"
    assert group_of("0006R0_f01050", r"^[^_]+") == "0006R0"
    assert group_of("a7", r"b(\d)|a\d") == "a7"
    with pytest.raises(InputError, match=r"^cat: group"):
        group_of("cat", r"\d+")
    with pytest.raises(InputError, match=r"no regular expression .*; quote it"):
        group_of("cat", "(")


def split(groups, share=0.2, seed=0, presence=None, hashes=None):
    n = len(groups)
    presence = np.ones((n, 1), bool) if presence is None else presence
    return split_groups(groups, presence, hashes or [str(i) for i in range(n)], share, seed)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(2, 0.2, 1), (9, 0.2, 2), (10, 0.2, 3), (10, 0.05, 3), (100, 0.2, 20)],
)
def test_the_share_is_held_out_but_three_images_where_there_are_ten(count, share, held):
    assert split([str(i) for i in range(count)], share).count("val") == held


def test_a_share_of_nothing_trains_on_everything():
    assert split(["a", "a"], 0) == ["train"] * 2


def test_equal_seeds_split_alike_and_others_otherwise():
    groups = [str(i) for i in range(40)]
    assert split(groups, seed=1) == split(groups, seed=1)
    assert split(groups, seed=1) != split(groups, seed=2)


def test_groups_and_equal_pictures_stand_on_one_side():
    """Groups a and b share a picture, so they, and c beside them, are three units of two."""
    groups = [g for g in "abcdefgh" for _ in range(5)]
    hashes = [str(i) for i in range(40)]
    hashes[7] = hashes[2]
    for seed in range(20):
        sides = split(groups, 0.3, seed, hashes=hashes)
        by_group = {g: {s for s, h in zip(sides, groups, strict=True) if h == g} for g in groups}
        assert all(len(s) == 1 for s in by_group.values())
        assert by_group["a"] == by_group["b"]
        assert sides.count("val") in (10, 15)  # 12 are due


def test_chains_of_groups_and_equal_pictures_hold_together():
    """a-b by picture 0, b-c by picture 1: one unit, and d the other."""
    sides = split(list("aabbccd"), 0.2, hashes=["x", "0", "0", "1", "1", "y", "z"])
    assert sides == ["train"] * 6 + ["val"]


def test_a_rare_class_stands_on_both_sides():
    presence = np.zeros((100, 3), bool)
    presence[:, 0] = presence[[3, 50], 1] = presence[[7, 8, 90], 2] = True
    for seed in range(10):
        sides = np.array(split([str(i) for i in range(100)], 0.1, seed, presence))
        assert (sides == "val").sum() == 10
        for side in ("train", "val"):
            assert presence[sides == side].any(0).all()


def test_a_class_of_one_image_is_trained_on():
    presence = np.zeros((10, 2), bool)
    presence[:, 0] = presence[4, 1] = True
    assert all(split(list("abcdefghij"), 0.3, seed, presence)[4] == "train" for seed in range(10))


def deal(groups, folds, seed=0, presence=None, hashes=None):
    n = len(groups)
    presence = np.ones((n, 1), bool) if presence is None else presence
    return split_folds(groups, presence, hashes or [str(i) for i in range(n)], folds, seed)


@pytest.mark.parametrize(
    ("count", "folds", "sizes"),
    [(10, 5, [2] * 5), (11, 5, [2, 2, 2, 2, 3]), (14, 5, [2, 3, 3, 3, 3]), (3, 3, [1] * 3)],
)
def test_folds_are_of_equal_number_but_one(count, folds, sizes):
    for seed in range(5):
        dealt = deal([str(i) for i in range(count)], folds, seed)
        assert sorted(np.bincount(dealt, minlength=folds)) == sizes


def test_equal_seeds_give_equal_folds_and_others_others():
    groups = [str(i) for i in range(40)]
    np.testing.assert_array_equal(deal(groups, 5, 1), deal(groups, 5, 1))
    assert (deal(groups, 5, 1) != deal(groups, 5, 2)).any()
    assert len(np.unique(deal(groups, 5)[:8])) > 1  # not simply one after the other


def test_groups_and_equal_pictures_stand_in_one_fold():
    """Groups a and b share a picture; with c to h they are seven units."""
    groups = [g for g in "abcdefgh" for _ in range(5)]
    hashes = [str(i) for i in range(40)]
    hashes[7] = hashes[2]
    for seed in range(10):
        dealt = deal(groups, 3, seed, hashes=hashes)
        by_group = {g: {f for f, h in zip(dealt, groups, strict=True) if h == g} for g in groups}
        assert all(len(f) == 1 for f in by_group.values())
        assert by_group["a"] == by_group["b"]
        # 10 + 5 + ... + 5 images: one fold of 10, two of 15
        assert sorted(np.bincount(dealt)) == [10, 15, 15]


def test_groups_of_any_size_leave_no_fold_empty():
    groups = ["big"] * 96 + list("abcd")
    assert sorted(np.bincount(deal(groups, 5))) == [1, 1, 1, 1, 96]


def test_each_class_is_in_each_fold_where_it_can_be():
    """Ten classes in 5 or 6 of 100 images each: chance alone would not do it."""
    rng = np.random.default_rng(0)
    presence = np.zeros((100, 11), bool)
    presence[:, 0] = True
    for c in range(1, 11):
        presence[rng.choice(100, 5 + c % 2, replace=False), c] = True
    for seed in range(3):
        dealt = deal([str(i) for i in range(100)], 5, seed, presence)
        assert np.bincount(dealt).tolist() == [20] * 5
        assert all(presence[dealt == f].any(0).all() for f in range(5))


def test_a_class_of_two_images_is_in_two_folds():
    presence = np.zeros((10, 2), bool)
    presence[:, 0] = presence[[3, 4], 1] = True
    for seed in range(10):
        dealt = deal(list("abcdefghij"), 5, seed, presence)
        assert dealt[3] != dealt[4]


@pytest.mark.parametrize(
    ("groups", "folds", "said"),
    [
        ("abc", 4, "4, but there are only 3 different images; give folds=3 or fewer"),
        ("aabb", 3, "3, but there are only 2 groups; give folds=2 or fewer"),
        ("aaaa", 2, "2, but there is only 1 group; label more"),
        ("a", 2, "2, but there is only 1 different image; label more"),
    ],
)
def test_more_folds_than_groups_say_what_would_work(groups, folds, said):
    with pytest.raises(InputError, match=f"folds: {said}"):
        deal(list(groups), folds)


def test_one_group_cannot_be_divided():
    with pytest.raises(InputError, match="nothing to hold out"):
        split(["a"] * 5)


def test_composed_and_decomposed_letters_pair(tmp_path):
    fill(tmp_path, "images/\u00e9.png", "masks/e\u0301.png")
    (pair,) = find_pairs(tmp_path)
    assert (pair.name, pair.mask.name) == ("\u00e9", "e\u0301.png")
    fill(tmp_path, "images/e\u0301.png")
    with pytest.raises(InputError, match="has the same stem"):
        find_pairs(tmp_path)
