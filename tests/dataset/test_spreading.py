"""Labels spread over training images from strokes, and over nothing else."""

import dataclasses
import sys
from subprocess import run

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import VALUES_TOML, draw, read, scribble, write_set
from unetseg.classes import IGNORED
from unetseg.dataset import spreading

SETTINGS = unetseg.PatchSettings(size=32, val=0.25, seed=3)
TOML = f"ignore = [255]\n{VALUES_TOML}"


def write_strokes(folder, count=8, whole=()):
    """Write a set of strokes of three classes; the masks of ``whole`` stay as they are."""
    write_set(folder, count, toml=TOML)
    for number in set(range(count)) - set(whole):
        path = folder / "masks" / f"im{number}.png"
        Image.fromarray(scribble(read(path), number)).save(path)
    return folder


def patches_of(store):
    """Yield the mask of each patch without the margin, its image's number, and its place there."""
    info = store.info
    for mask, source, (row, column) in zip(store.masks, store.source, store.corner, strict=True):
        core = mask[info.margin : -info.margin, info.margin : -info.margin]
        number = int(info.sources[source].name.removeprefix("im").partition(".")[0])
        yield core, number, (slice(row, row + info.size), slice(column, column + info.size))


def test_labels_spread_in_training_images_and_are_true(empty):
    folder = write_strokes(empty / "set")
    summary = unetseg.build_store(folder, "p.h5", SETTINGS)
    store = unetseg.open_store("p.h5")
    right = labelled = seen = 0
    for core, number, place in patches_of(store):
        truth, strokes = draw(number)[1][place], read(folder / "masks" / f"im{number}.png")[place]
        painted, known = strokes != IGNORED, core != IGNORED
        assert (core[painted] == strokes[painted]).all()
        seen, labelled = seen + core.size, labelled + known.sum()
        right += (core[known] == truth[known]).sum()
    assert labelled > 0.9 * seen
    assert right > 0.98 * labelled
    assert summary.labelled_share < 0.1
    assert store.info.settings["spread_share"] == pytest.approx(0.9, abs=0.09)
    assert "labels were spread. These are never scored" in summary.tables()[0].note


def test_held_out_images_keep_their_strokes_alone(empty):
    folder = write_strokes(empty / "set")
    unetseg.build_store(folder, "p.h5", SETTINGS)
    store = unetseg.open_store("p.h5")
    assert store.held_out_count == 2
    for k in range(2):
        _, mask, source = store.held_out(k)
        assert (mask == read(folder / "masks" / source.name)).all()
    painted = sum((store.held_out(k)[1] != IGNORED).sum() for k in range(2))
    assert sum(store.info.class_pixels_val) == painted


def test_nothing_is_spread_where_that_is_not_wanted(empty):
    folder = write_strokes(empty / "set")
    settings = dataclasses.replace(SETTINGS, spread=False)
    summary = unetseg.build_store(folder, "p.h5", settings)
    for core, number, place in patches_of(unetseg.open_store("p.h5")):
        assert (core == read(folder / "masks" / f"im{number}.png")[place]).all()
    assert "spread" not in summary.tables()[0].note
    train = [s.name for s in summary.info.sources if s.split == "train"]
    painted = sum((read(folder / "masks" / name) != IGNORED).sum() for name in train)
    assert sum(summary.info.class_pixels_train) == painted


def test_the_header_counts_the_pixels_that_training_learns_from(empty, monkeypatch):
    found = {}

    def spread(*arguments):
        (masks,) = spread_labels(*arguments)
        found.update(masks)
        return [masks]

    spread_labels = spreading.spread_labels
    monkeypatch.setattr(spreading, "spread_labels", spread)
    folder = write_strokes(empty / "set")
    info = unetseg.build_store(folder, "p.h5", SETTINGS).info
    masks = np.stack([mask.read() for mask in found.values()])
    counts = np.bincount(masks.ravel(), minlength=256)
    assert len(masks) == 6
    assert info.class_pixels_train == tuple(counts[:3])


def test_the_store_of_the_same_strokes_is_the_same(empty):
    folder = write_strokes(empty / "set")
    for name in ("a.h5", "b.h5"):
        unetseg.build_store(folder, name, SETTINGS)
    assert unetseg.open_store("a.h5").content_hash == unetseg.open_store("b.h5").content_hash


def test_features_that_memory_does_not_hold_are_computed_again(empty, monkeypatch):
    folder = write_strokes(empty / "set")
    unetseg.build_store(folder, "a.h5", SETTINGS)
    monkeypatch.setattr(spreading, "_KEPT", 0)
    unetseg.build_store(folder, "b.h5", SETTINGS)
    assert unetseg.open_store("a.h5").content_hash == unetseg.open_store("b.h5").content_hash


def test_the_head_learns_from_some_of_many_images(empty, monkeypatch):
    monkeypatch.setattr(spreading, "_LEARNED", 2)
    folder, learned = write_strokes(empty / "set"), []

    def draw_sample(*arguments):
        learned.append(arguments)
        return drawn(*arguments)

    drawn = spreading.draw_sample
    monkeypatch.setattr(spreading, "draw_sample", draw_sample)
    info = unetseg.build_store(folder, "p.h5", SETTINGS).info
    assert len(learned) == 2
    assert info.settings["spread_share"] > 0.5


def test_networks_share_features_and_each_has_a_head_of_its_own(monkeypatch):
    extracted, extract = [], spreading.Extractor.extract

    def counted(self, image, finely):
        extracted.append(image[0, 0, 0])
        return extract(self, image, finely=finely)

    def read_one(number):
        image, mask = draw(number)
        image[0, 0] = number
        return image, scribble(mask, number), np.ones(mask.shape, bool)

    def spread(works):
        return spreading.spread_labels(works, 3, read_one, lambda steps, _: iter(steps), False)

    monkeypatch.setattr(spreading.Extractor, "extract", counted)
    folds = [[1, 2, 4, 5], [0, 2, 3, 5], [0, 1, 3, 4]]  # image 0 normalises two of them
    together = spread([(fold, fold) for fold in folds])
    assert extracted == [1, 2, 4, 5, 0, 1, 2, 3, 4, 5]
    alone = [spread([(fold, fold)])[0] for fold in folds]
    assert [list(masks) for masks in together] == folds
    for ours, theirs in zip(together, alone, strict=True):
        assert all((ours[n].read() == theirs[n].read()).all() for n in ours)
    assert (together[1][3].read() != together[2][3].read()).any()


def test_a_head_does_not_depend_on_another_that_learns_from_fewer_images(monkeypatch):
    biases, adapt_head = [], spreading.adapt_head

    def adapt(head, samples, features):
        found = adapt_head(head, samples, features)
        biases.append(found.bias.tolist())
        return found

    def read_one(number):
        image, mask = draw(number)
        return image, scribble(mask, number), np.ones(mask.shape, bool)

    monkeypatch.setattr(spreading, "adapt_head", adapt)
    monkeypatch.setattr(spreading, "_SEEN", 600)
    many, few = ([0, 1, 2, 3, 4, 5],) * 2, ([0, 2, 3],) * 2
    for works in ([many, few], [many], [few]):
        spreading.spread_labels(works, 3, read_one, lambda steps, _: iter(steps), False)
    assert biases[:2] == biases[2:]


def test_heads_see_how_large_the_classes_are_where_nobody_painted(monkeypatch):
    seen, adapt_head, images = [], spreading.adapt_head, [draw(n) for n in range(3)]
    strokes = [scribble(mask, n) for n, (_, mask) in enumerate(images)]
    is_open = [np.ones(mask.shape, bool) for mask in strokes]
    is_open[2][:40] = False

    def adapt(head, samples, features):
        seen.append(len(features))
        return adapt_head(head, samples, features)

    def spread():
        return spreading.spread_labels(
            [([0, 1, 2], [1, 2]), ([0, 2], [2])],
            3,
            lambda n: (images[n][0], strokes[n], is_open[n]),
            lambda steps, _: iter(steps),
            False,
        )

    monkeypatch.setattr(spreading, "adapt_head", adapt)
    spread()
    free = [((m == IGNORED) & o).sum() for m, o in zip(strokes, is_open, strict=True)]
    assert seen == [sum(free), free[0] + free[2]]
    # Of 3,584 pixels, three images show 66 each, and two show 100: every eighth or sixth row.
    monkeypatch.setattr(spreading, "_SEEN", 200)
    spread()
    assert all(100 < count < 200 for count in seen[2:])


@pytest.mark.parametrize(("limit", "finely"), [(64 * 56, True), (64 * 56 - 1, False)])
def test_images_are_described_finely_where_all_are_small(empty, monkeypatch, limit, finely):
    asked, extract = set(), spreading.Extractor.extract

    def seen(self, image, finely):
        asked.add(finely)
        return extract(self, image, finely=finely)

    monkeypatch.setattr(spreading, "_FINE", limit)
    monkeypatch.setattr(spreading.Extractor, "extract", seen)
    unetseg.build_store(write_strokes(empty / "set"), "p.h5", SETTINGS)
    assert asked == {finely}


def test_images_without_a_pixel_to_see_still_learn():
    image, mask = draw(0)
    numbers, closed = [0, 1], np.zeros(mask.shape, bool)
    (masks,) = spreading.spread_labels(
        [(numbers, numbers)],
        3,
        lambda n: (image, scribble(mask, n), closed),
        lambda steps, _: iter(steps),
        False,
    )
    assert all((masks[n].read() == scribble(mask, n)).all() for n in numbers)


def test_the_pixels_of_the_work_are_those_that_are_computed_at_least():
    works = [([0, 1], [1]), ([1, 2], [1, 2]), ([0, 2], [2]), ([], [])]
    shapes = [(10, 10), (3, 5), (4096, 4097)]  # the last of them is halved twice
    computed, classified = spreading.pixels_of_work(works, shapes)
    last = 1024 * 1025
    assert computed == (100 + 15 + last) + (15 + last)
    assert classified == 15 + (15 + last) + last


def test_whole_masks_are_never_changed_even_beside_strokes(empty):
    folder = write_strokes(empty / "set", 6, whole=(0, 1))
    whole = draw(0)[1]
    whole[:8] = IGNORED  # a part that nobody knows
    Image.fromarray(whole).save(folder / "masks" / "im0.png")
    unetseg.build_store(folder, "p.h5", unetseg.PatchSettings(size=32, val=0, seed=3))
    store = unetseg.open_store("p.h5")
    seen = set()
    for core, number, place in patches_of(store):
        if number < 2:
            assert (core == (whole if number == 0 else draw(1)[1])[place]).all()
        seen.add(number)
    assert seen == set(range(6))
    assert store.info.settings["spread_share"] > 0.4


def test_strokes_beside_whole_masks_of_half_the_images_are_not_spread(empty):
    folder = write_strokes(empty / "set", 6, whole=(0, 1, 2))
    info = unetseg.build_store(folder, "p.h5", unetseg.PatchSettings(size=32, val=0)).info
    assert "spread_share" not in info.settings
    for core, number, place in patches_of(unetseg.open_store("p.h5")):
        assert (core == read(folder / "masks" / f"im{number}.png")[place]).all()


def test_one_class_alone_is_not_spread():
    image, mask = draw(0)
    strokes = np.where(scribble(mask) == 1, np.uint8(1), np.uint8(IGNORED))
    numbers, every = range(2), np.ones(mask.shape, bool)
    spread = spreading.spread_labels(
        [(numbers, numbers)],
        3,
        lambda _: (image, strokes, every),
        lambda steps, _: iter(steps),
        False,
    )
    assert spread == [{}]


def test_edges_that_are_cropped_take_no_label(empty):
    folder = write_strokes(empty / "set", 4)
    settings = unetseg.PatchSettings(size=32, val=0, crop="bottom=20")
    unetseg.build_store(folder, "p.h5", settings)
    store = unetseg.open_store("p.h5")
    for core, _, (rows, _) in patches_of(store):
        edge = np.arange(64)[rows] >= 44
        assert (core[edge] == IGNORED).all()
        assert (core[~edge] != IGNORED).any()


def test_an_area_that_all_masks_ignore_takes_no_label(empty):
    folder = write_set(empty / "set", 6, toml=TOML)
    for path in (folder / "masks").iterdir():
        mask = read(path)
        mask[:40] = IGNORED  # the rest is labelled whole
        Image.fromarray(mask).save(path)
    unetseg.build_store(folder, "p.h5", unetseg.PatchSettings(size=32, val=0))
    store = unetseg.open_store("p.h5")
    assert store.info.ignored_area is not None
    assert "spread_share" not in store.info.settings
    for core, _, (rows, _) in patches_of(store):
        assert (core[np.arange(64)[rows] < 40] == IGNORED).all()


def test_images_that_are_reduced_are_spread_at_their_reduced_size(empty):
    folder = write_strokes(empty / "set")
    settings = unetseg.PatchSettings(size=16, val=0, scale=0.5)
    info = unetseg.build_store(folder, "p.h5", settings).info
    assert 0.7 * 8 * 64 * 56 < sum(info.class_pixels_train) <= 8 * 64 * 56


def test_whole_masks_are_cut_without_torch(empty):
    write_set(empty / "set", 6)
    code = "import sys, unetseg; unetseg.build_store('set', 'p.h5', unetseg.PatchSettings(size=32))"
    code += "; assert 'torch' not in sys.modules"
    assert run([sys.executable, "-c", code], cwd=empty, check=False).returncode == 0
