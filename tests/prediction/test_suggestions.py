"""Suggestions: which images come first or are left out, and files written or never replaced."""

import csv
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import read, with_card, write_image, write_set
from unetseg.classes import ClassTable, SegmentationClass, table_of
from unetseg.cli import app
from unetseg.dataset import pairing
from unetseg.errors import InputError
from unetseg.pictures import discovery, masks, reading
from unetseg.prediction.suggestions import _write_mask, rank_images

ON_POSIX = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
TWO = math.exp(-2)  # likeness of two images at the usual distance: a Gaussian half as wide


def test_a_copy_of_a_chosen_image_teaches_nothing_more():
    features = np.array([[0.0], [0.0], [5.0]])
    ranks = rank_images(features, np.ones(3), np.empty((0, 1)), 3)
    assert [r.index for r in ranks] == [0, 2, 1]
    # The first stands for itself, its copy, and a little for the third.
    expected = [(2 + TWO) / 3, (1 - TWO) / 3, 0]
    assert [r.score for r in ranks] == pytest.approx(expected)
    assert [r.difference for r in ranks] == [None, pytest.approx(1), 0]
    assert [r.stands_for for r in ranks] == [1, 0, 0]


def test_of_equally_different_images_the_most_uncertain_comes_first():
    ranks = rank_images(np.eye(3), np.array([0.1, 0.3, 0.2]), np.empty((0, 3)), 3)
    assert [r.index for r in ranks] == [1, 2, 0]


def test_an_image_like_a_labelled_one_comes_last_however_uncertain():
    features = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    ranks = rank_images(features, np.array([0.9, 0.1, 0.1]), np.array([[0.0, 0.0]]), 3)
    assert ranks[-1].index == 0
    assert ranks[-1].score == pytest.approx(0)


def test_where_a_model_is_sure_of_everything_images_still_differ():
    ranks = rank_images(np.array([[0.0], [0.0], [5.0]]), np.zeros(3), np.empty((0, 1)), 2)
    assert [r.index for r in ranks] == [0, 2]


def test_no_more_are_chosen_than_there_are():
    assert len(rank_images(np.eye(2), np.ones(2), np.empty((0, 2)), 10)) == 2


def slow_ranks(features, uncertainty, labelled, count):
    """Choose greedily, with the gain of each image summed up in plain loops."""
    everything = np.concatenate([features, labelled])
    spread = [max(column.std(), 1e-12) for column in everything.T]

    def far(a, b):
        return math.sqrt(sum(((x - y) / s) ** 2 for x, y, s in zip(a, b, spread, strict=True)))

    pairs = [far(a, b) for i, a in enumerate(everything) for b in everything[:i]]
    usual = float(np.median(pairs))

    def alike(a, b):
        return math.exp(-2 * (far(a, b) / usual) ** 2)

    def stood_for(chosen):
        those = [*labelled, *(features[i] for i in chosen)]
        return sum(
            u * max((alike(f, t) for t in those), default=0)
            for f, u in zip(features, uncertainty, strict=True)
        )

    chosen = []
    for _ in range(count):
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(max(left, key=lambda i: stood_for([*chosen, i])))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    features, labelled = rng.normal(size=(9, 3)), rng.normal(size=(seed, 3))
    uncertainty = rng.uniform(0.1, 1, 9)
    ranks = rank_images(features, uncertainty, labelled, 5)
    assert [r.index for r in ranks] == slow_ranks(features, uncertainty, labelled, 5)


def slow_uncertainty(model, path):
    """Return the mean entropy of the most uncertain tenth of the 4 x 4 cells of an image."""
    image = model.read(path)
    shares = model.probabilities(image).astype(np.float64)
    entropy = -(shares * np.log(np.maximum(shares, 1e-7))).sum(0) / math.log(3)
    cells = [
        entropy[row : row + 4, column : column + 4].mean()  # patches of 32 pixels, by 8
        for row in range(0, entropy.shape[0], 4)
        for column in range(0, entropy.shape[1], 4)
    ]
    return np.mean(sorted(cells)[-round(len(cells) / 10) :])


def test_an_image_counts_by_its_most_uncertain_tenth(home):
    done = unetseg.suggest_images("data/test", n=3)
    model = unetseg.Model(["default"])
    assert len(done.chosen) == 3
    for one in done.chosen:
        assert one.uncertainty == pytest.approx(slow_uncertainty(model, one.image), rel=1e-4)
        assert one.why.startswith("unsure about ")


def test_what_is_written_is_a_folder_of_labelled_images(home):
    done = unetseg.suggest_images("data/test/images", n=2)
    assert done.labelled == Path("data/train")
    assert sorted(p.name for p in Path("suggested").iterdir()) == [
        "classes.toml",
        "images",
        "masks",
        "overlays",
        "suggestions.csv",
    ]
    table, model = pairing.load_classes("suggested"), unetseg.Model(["default"])
    assert table == model.card.classes
    pairs = pairing.find_pairs("suggested")
    assert {p.image.name for p in pairs} == {s.image.name for s in done.chosen}
    for pair in pairs:
        assert pair.image.read_bytes() == Path("data/test/images", pair.image.name).read_bytes()
        made = masks.decode(reading.read_mask(pair.mask), table)
        np.testing.assert_array_equal(made, model.labels(model.read(pair.image)))
        assert (Path("suggested/overlays") / f"{pair.name}.png").exists()
    with Path("suggested/suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [s.image.name for s in done.chosen]
    assert [float(row["score"]) for row in rows] == sorted(
        (float(row["score"]) for row in rows), reverse=True
    )


def test_labelled_images_are_left_out_by_their_pixels(home):
    for name in ("im0", "im1", "im2"):  # whether trained on or held out
        image = np.repeat(read(f"data/train/images/{name}.png")[..., None], 3, 2)
        Image.fromarray(image).save(f"data/test/images/renamed-{name}.png")
    done = unetseg.suggest_images("data/test")
    assert done.left_out == 3
    assert sorted(s.image.name for s in done.chosen) == ["im100.png", "im101.png", "im102.png"]
    with pytest.raises(InputError, match="12 images are all labelled already"):
        unetseg.suggest_images("data/train", out="other")


def test_images_labelled_since_are_left_out_too(home):
    write_set("more", 2, first=100)
    done = unetseg.suggest_images("data/test", labelled="more")
    assert [s.image.name for s in done.chosen] == ["im102.png"]
    assert done.left_out == 2
    assert done.chosen[0].difference is not None


def test_masks_are_colours_where_those_trained_on_are(home):
    colours = ("#000000", "#ff0000", "#00ff00")
    table = ClassTable(tuple(SegmentationClass(c, None, c) for c in colours))
    with_card("default", "painted", classes=table)
    done = unetseg.suggest_images("data/test", model=["painted"], n=1)
    with Image.open(f"suggested/masks/{done.chosen[0].image.stem}.png") as mask:
        assert mask.mode == "RGB"
        made = masks.decode(masks.RawMask(np.array(mask)), table)
    model = unetseg.Model(["painted"])
    np.testing.assert_array_equal(made, model.labels(model.read(done.chosen[0].image)))


def test_corrected_masks_are_not_replaced_unasked(home):
    unetseg.suggest_images("data/test", n=2)
    mask = next(Path("suggested/masks").iterdir())
    mask.write_bytes(b"corrected")
    with pytest.raises(InputError, match="may be corrected by now"):
        unetseg.suggest_images("data/test", n=1)
    assert mask.read_bytes() == b"corrected"
    Path("suggested/images/mine.png").write_bytes(b"mine")
    done = unetseg.suggest_images("data/test", n=1, overwrite=True)
    left = sorted(p.name for p in Path("suggested/images").iterdir())
    assert left == sorted([done.chosen[0].image.name, "mine.png"])
    assert len(list(Path("suggested/masks").iterdir())) == 1


@pytest.mark.parametrize("out", ["data/train", "data/test"])
def test_labelled_images_are_never_replaced(home, out):
    before = {p: p.read_bytes() for p in Path("data").rglob("*.png")}
    with pytest.raises(InputError, match="out"):
        unetseg.suggest_images("data/test", out=out, overwrite=True)
    shutil.copy("data/test/classes.toml", f"{out}/suggestions.csv")  # as if they were suggestions
    with pytest.raises(InputError, match="out"):
        unetseg.suggest_images("data/test", out=out, overwrite=True)
    assert {p: p.read_bytes() for p in Path("data").rglob("*.png")} == before


@pytest.mark.parametrize("name", ["classes.toml", "overlays", "masks"])
def test_a_folder_that_holds_other_work_is_refused(home, name):
    Path("suggested").mkdir()
    shutil.copy("data/test/classes.toml", Path("suggested", name))
    with pytest.raises(InputError, match=f"holds {name}, and no list of suggestions"):
        unetseg.suggest_images("data/test", overwrite=True)
    assert Path("suggested", name).read_text() == Path("data/test/classes.toml").read_text()


def test_two_images_of_one_name_are_refused(home):
    write_image(Path("data/test/images/IM100"), np.zeros((40, 40, 1), np.float32))
    with pytest.raises(InputError, match="masks of one name"):
        unetseg.suggest_images("data/test")


def run(capsys, *words):
    """Run a command line; return its exit code, and its output."""
    code = app.main(list(words))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@ON_POSIX
def test_the_lines_printed_add_the_pairs_and_train_on_all(home, capsys):
    code, out, _ = run(capsys, "suggest", "data/test", "--n", "2")
    assert code == 0
    lines = [line.strip() for line in out.partition("Next:\n")[2].splitlines()]
    assert len(lines) == 3
    for line in lines[:2]:
        subprocess.run(line, shell=True, check=True, stdin=subprocess.DEVNULL)
    assert len(pairing.find_pairs("data/train")) == 14
    assert lines[2] == "unetseg train data/train --from default --run round2 --budget 10m"
    words = lines[2].split()[1:-2]
    assert app.main(["-q", *words, "--epochs", "1", "--size", "32", "--device", "cpu"]) == 0
    assert unetseg.Model(["round2"]).card.images_trained_on == 11


def test_what_the_model_was_cut_with_is_carried_to_the_line(home, capsys):
    shutil.rmtree("data/train")
    with_card("default", "half", scale=0.5)
    code, out, _ = run(capsys, "suggest", "data/test", "--model", "half", "--n", "1")
    assert code == 0
    assert "suggested/masks/*" in out.replace(os.sep, "/")
    line = out.rstrip().splitlines()[-1].strip().replace(os.sep, "/")
    wanted = "unetseg train MYFOLDER --classes suggested/classes.toml --scale 0.5 --from half "
    assert line.startswith(wanted)


def test_names_that_labelled_images_have_are_told(home, capsys):
    Path("data/test/images/im100.png").rename("data/test/images/im0.png")
    _, out, _ = run(capsys, "suggest", "data/test")
    assert "1 of them has the name of a labelled image (im0.png)" in out


def test_an_unreadable_image_fails_alone(home, capsys):
    Path("data/test/images/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, _, err = run(capsys, "suggest", "data/test")
    assert code == 5
    assert "torn.png" in err
    assert len(list(Path("suggested/masks").iterdir())) == 3


def test_masks_named_otherwise_than_images_are_asked_to_be_named_so(home, capsys):
    for path in Path("data/train/masks").iterdir():
        path.rename(path.with_name(f"mask{path.stem[2:]}.png"))
    _, out, _ = run(capsys, "suggest", "data/test", "--n", "1")
    assert "such as im0.png and mask0.png" in out
    assert "cp " not in out


def test_ignored_pixels_of_suggested_colour_masks_are_no_class(tmp_path):
    labels = np.array([[0, 1, 255], [1, 0, 255]], np.uint8)
    table = table_of(["#000000", "#ff0000"])
    _write_mask(tmp_path / "m.png", labels, table)
    raw = reading.read_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(masks.decode(raw, table), labels)
    assert discovery.discover({"m.png": masks.find_keys(raw)}) == table
