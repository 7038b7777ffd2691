import numpy as np
import pytest

from unetseg.dataset.splits import group_of, has_parts, split_folds, split_groups, split_parts
from unetseg.errors import InputError
from unetseg.settings import PatchSettings


def test_a_group_is_what_the_brackets_catch_else_the_match():
    assert group_of("0006R0_f01050", r"^(.*)\d{3}$") == "0006R0_f01"
    assert group_of("0006R0_f01050", r"^[^_]+") == "0006R0"
    assert group_of("a7", r"b(\d)|a\d") == "a7"
    with pytest.raises(InputError, match=r"^cat: group"):
        group_of("cat", r"\d+")
    with pytest.raises(InputError, match=r"no regular expression .*; quote it"):
        group_of("cat", "(")


@pytest.mark.parametrize(
    ("parts", "settings", "decides"),
    [
        (["train", "val"], {}, True),
        (["train", "test", "val"], {"size": 96}, True),
        (["train", "train"], {}, False),
        (["val", "test"], {}, False),
        (["", ""], {}, False),
        (["train", "val"], {"val": 0.2}, False),
        (["train", "val"], {"val": 0}, False),
        (["train", "val"], {"group": "a"}, False),
    ],
)
def test_parts_decide_where_both_sides_have_images_and_nothing_else_is_asked(
    parts, settings, decides
):
    assert has_parts(parts, PatchSettings(**settings)) == decides


def test_a_copy_of_a_held_out_image_is_held_out_too():
    parts, hashes = ["train", "val", "train", "test"], ["a", "b", "b", "c"]
    assert split_parts(parts, hashes) == ["train", "val", "val", "val"]


def split(groups, share=0.2, seed=0, presence=None, hashes=None, is_sparse=None):
    n = len(groups)
    presence = np.ones((n, 1), bool) if presence is None else presence
    hashes = hashes or [str(i) for i in range(n)]
    return split_groups(groups, presence, hashes, share, seed, is_sparse)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(2, 0.2, 1), (9, 0.2, 2), (10, 0.2, 3), (10, 0.05, 3), (100, 0.2, 20)],
)
def test_the_share_is_held_out_but_three_images_where_there_are_ten(count, share, held):
    assert split([str(i) for i in range(count)], share).count("val") == held


@pytest.mark.parametrize(
    ("sizes", "share", "held"),
    [([30, 2], 0.2, 2), ([20, 1, 1], 0.2, 2), ([9, 1], 0.2, 1), ([5, 5], 0.2, 5), ([3, 9], 0.8, 9)],
)
def test_a_group_of_most_images_is_trained_on_unless_so_many_are_to_be_held_out(sizes, share, held):
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    assert [split(groups, share, seed).count("val") for seed in range(5)] == [held] * 5


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


def test_images_with_strokes_alone_are_held_out_only_where_too_few_have_whole_masks():
    names = [str(i) for i in range(30)]
    for whole, held, among in ((10, 3, 10), (5, 1, 5), (4, 6, 30), (0, 6, 30)):
        sides = split(names, is_sparse=np.arange(30) >= whole)
        assert sides.count("val") == held
        assert sides[:among].count("val") == held


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
