"""Every page of a stack as an image of its own, from check to the stack of predicted masks."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import unetseg
from tests.support import NAMES, QUICK, VALUES_TOML, draw
from unetseg.dataset.pairing import find_pairs
from unetseg.errors import InputError
from unetseg.pictures.reading import read_image, read_mask
from unetseg.settings import PatchSettings, PredictSettings, Selection

PATCHES = PatchSettings(size=32, per_image=4, page="all", val=0.4)


def write_stacks(folder, count=3, pages=4, *, flat=False):
    """Write stacks of images and of masks with the axes ZYX; a flat one has a single mask."""
    for part in ("images", "masks"):
        Path(folder, part).mkdir(parents=True)
    for k in range(count):
        drawn = [draw(10 * k + page) for page in range(pages)]
        axes = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
        images, masks = (np.stack([one[i] for one in drawn]) for i in (0, 1))
        tifffile.imwrite(f"{folder}/images/s{k}.tif", images[..., 0], **axes)
        if flat:
            tifffile.imwrite(f"{folder}/masks/s{k}.tif", masks[0])
        else:
            tifffile.imwrite(f"{folder}/masks/s{k}.tif", masks, **axes)
    Path(folder, "classes.toml").write_text(VALUES_TOML)


def test_pages_are_images_that_stay_on_one_side_of_the_split(empty):
    write_stacks("set")
    names = [pair.name for pair in find_pairs("set", Selection("all"))]
    assert names == [f"s{k}-{page}" for k in range(3) for page in range(4)]
    found = unetseg.inspect_folder("set", PATCHES)
    assert len(found.surveys) == 12
    assert not found.errors
    assert not [f for f in found.findings if "nearly equal" in f.problem]
    info = unetseg.build_store("set", "p.h5", PATCHES).info
    assert info.classes.names == NAMES
    sides = {}
    for source in info.sources:
        sides.setdefault(source.group, set()).add(source.split)
        assert source.name.startswith(source.group)
    assert sorted(map(sorted, sides.values())) == [["train"], ["train"], ["val"]]
    opened = unetseg.open_store("p.h5")
    image, _, source = opened.held_out(2)
    stem, page = source.name.removesuffix(".tif").rsplit("-", 1)
    np.testing.assert_array_equal(image, read_image(f"set/images/{stem}.tif", Selection(int(page))))


def test_a_stack_with_one_mask_is_refused_or_joined(empty):
    write_stacks("set", flat=True)
    with pytest.raises(InputError, match="holds 1 mask for 4 pages of s0"):
        find_pairs("set", Selection("all"))
    info = unetseg.build_store("set", "p.h5", PatchSettings(size=32, page="max", val=0)).info
    assert len(info.sources) == 3


def test_masks_come_back_as_a_stack_and_are_scored_by_page(empty):
    write_stacks("set")
    unetseg.train("set", patches=PATCHES, **QUICK)
    done = unetseg.predict(["set"])
    assert len(done.written) == 12
    with tifffile.TiffFile("predictions/s1.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        stack = tif.asarray()
    assert stack.shape == (4, 64, 56)
    page = read_mask("predictions/pages/s1-002.png").values
    np.testing.assert_array_equal(stack[2], page)
    model = unetseg.Model("default")
    image = read_image("set/images/s1.tif", Selection(2))
    np.testing.assert_array_equal(page, model.labels(image))
    assert len(unetseg.predict(["set"]).skipped) == 12
    found = unetseg.evaluate("set", include_trained=True).scores
    assert found.confusion.sum() == 12 * 64 * 56
    whole = PredictSettings(page="all")
    made = unetseg.evaluate("set", predictions="predictions", settings=whole).scores
    assert made.confusion.tolist() == found.confusion.tolist()


def test_pages_of_a_fold_are_predicted_by_a_model_that_saw_none_of_their_stack(empty):
    write_stacks("set")
    found = unetseg.cross_validate(
        "set", folds=3, patches=PatchSettings(size=32, page="all"), **QUICK
    )
    assert len(found.images) == 12
    folds = {}
    for one in found.images:
        folds.setdefault(one.group, set()).add(one.fold)
    assert sorted(map(len, folds.values())) == [1, 1, 1]
    scored = found.scored_image(5)
    np.testing.assert_array_equal(scored.image, read_image("set/images/s1.tif", Selection(1)))


def test_convert_says_that_it_takes_single_pictures(empty):
    write_stacks("set")
    with pytest.raises(InputError, match="holds 4 pages"):
        unetseg.convert_folder("set", "out")
    assert not Path("out").exists()


def test_classes_are_found_on_all_pages_of_a_stack(empty):
    write_stacks("set")
    Path("set/classes.toml").unlink()
    for path in Path("set/masks").iterdir():
        pages = tifffile.imread(path)
        pages[-1] = 0  # the last slice shows nothing
        tifffile.imwrite(path, pages, photometric="minisblack", metadata={"axes": "ZYX"})
    found = unetseg.inspect_folder("set", PATCHES)
    assert not found.errors
    assert [one.value for one in found.table.classes] == [0, 1, 2]
    unetseg.train("set", patches=PATCHES, **QUICK)
    unetseg.predict(["set/images"], settings=PredictSettings(page="all"))
    made = unetseg.evaluate("set", predictions="predictions", settings=PredictSettings(page="all"))
    assert made.scores.classes == found.table.names


def test_pages_of_several_sizes_are_predicted_and_not_joined(empty):
    write_stacks("set")
    unetseg.train("set", patches=PATCHES, **QUICK)
    with tifffile.TiffWriter("scan.tif") as file:
        for size in ((64, 56), (32, 28)):
            file.write(draw(3, size)[0][..., 0], photometric="minisblack")
    notes = []
    settings = PredictSettings(page="all")
    done = unetseg.predict("scan.tif", settings=settings, on_progress=notes.append)
    assert len(done.written) == 2
    assert any("pages of several sizes: its masks are not joined" in str(note) for note in notes)
    assert not Path("predictions/scan.tif").exists()
    assert len(unetseg.predict("scan.tif", settings=settings).skipped) == 2
