"""Preparation: the content of a patch store, the division of images, and refusals."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import DATA, NAMES, VALUES_TOML, read, write_set
from unetseg.errors import InputError, Interrupted
from unetseg.signals import Caught

SETTINGS = {"size": 32, "per_image": 4, "val": 0.25}


def build(folder="set", out="p.h5", classes=None, ignored=(), overwrite=False, **settings):
    return unetseg.build_store(
        folder,
        out,
        unetseg.PatchSettings(**settings),
        classes=classes,
        ignore=ignored,
        overwrite=overwrite,
    )


def sides(summary):
    """Return the stems of the images trained on, and of those held out."""
    sources = summary.info.sources
    return tuple(
        {Path(s.name).stem for s in sources if s.split == side} for side in ("train", "val")
    )


# --- the store -------------------------------------------------------------------------------


def test_a_plain_h5py_reader_finds_what_the_design_says(home):
    with h5py.File("data/patches.h5") as file:
        about = dict(file.attrs)
        assert about["format"] == b"unetseg-patches"
        assert about["complete"] == 1
        assert (about["size"], about["margin"], about["seed"]) == (32, 7, 0)
        assert json.loads(about["settings"])["val"] == 0.25
        assert about["folder"] == b"data/train"
        assert [c["name"] for c in json.loads(about["classes"])["classes"]] == list(NAMES)
        assert about["unetseg"] == unetseg.__version__.encode()
        assert file["train/images"].shape == (36, 46, 46, 1)
        assert file["train/images"].dtype == np.uint8
        assert file["train/masks"].shape == (36, 46, 46)
        assert file["train/corner"].shape == (36, 2)
        for name in ("train/images", "train/masks", "val/images", "val/masks"):
            assert file[name].chunks is None
            assert file[name].compression is None
        assert set(file["sources"]) == {"name", "sha256", "group", "split", "height", "width"}
        splits = file["sources/split"][:].tolist()
        names = [n.decode() for n in file["sources/name"][:]]
        held_out = [n for n, s in zip(names, splits, strict=True) if s == b"val"]
        assert len(held_out) == 3
        for part, pixels in (("images", file["val/images"][:, 0]), ("masks", file["val/masks"][:])):
            whole = [read(f"data/train/{part}/{n}").ravel() for n in held_out]
            np.testing.assert_array_equal(pixels, np.concatenate(whole))
        kept = [
            read(f"data/train/images/{n}")
            for n, s in zip(names, splits, strict=True)
            if s == b"train"
        ]
        assert about["mean"] == pytest.approx([np.mean(kept)])
        assert about["std"] == pytest.approx([np.std(kept)])


def test_every_patch_shows_its_source_at_its_corner_and_a_mirror_outside(home):
    with h5py.File("data/patches.h5") as file:
        names = [n.decode() for n in file["sources/name"][:]]
        splits = file["sources/split"][:].tolist()
        rows = zip(
            file["train/images"], file["train/masks"], file["train/source"], file["train/corner"],
            strict=True,
        )  # fmt: skip
        for image, mask, source, (row, column) in rows:
            assert splits[source] == b"train"
            whole = np.pad(read(f"data/train/images/{names[source]}"), 40, mode="symmetric")
            truth = np.pad(read(f"data/train/masks/{names[source]}"), 40, constant_values=255)
            place = np.s_[row + 33 : row + 79, column + 33 : column + 79]  # 40 - margin 7
            np.testing.assert_array_equal(image[..., 0], whole[place])
            np.testing.assert_array_equal(mask, truth[place])


def test_equal_calls_make_equal_stores(empty):
    write_set("set", 4)
    one = build(out="one.h5", **SETTINGS)
    two = build(out="two.h5", **SETTINGS)
    other = build(out="other.h5", **SETTINGS, seed=1)
    hashes = [unetseg.open_store(s.path).content_hash for s in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_classes_are_counted_on_both_sides(home):
    info = unetseg.open_store("data/patches.h5").info
    for side, counted in (("train", info.class_pixels_train), ("val", info.class_pixels_val)):
        masks = [read(f"data/train/masks/{s.name}") for s in info.sources if s.split == side]
        assert np.bincount(np.ravel(masks), minlength=3).tolist() == list(counted)


def test_a_summary_says_which_share_of_the_pixels_is_used(empty):
    write_set("set", 4, shape=(32, 64))
    assert build(size=32, per_image=40, rare=0).used_share > 0.95
    assert build(size=16, per_image=1, overwrite=True).used_share <= 16 * 16 / (32 * 64)


def test_sizes_and_numbers_are_chosen_from_the_images(empty):
    write_set("set", 4, shape=(130, 260))
    summary = build(val=0)
    assert summary.info.size == 64  # half of 130 to the nearest multiple of 32
    assert summary.patches == 4 * 13  # 130 x 260 / 64 / 64 = 8.25 in each, and a third more rare
    assert build(val=0, per_image=2, overwrite=True).patches == 8
    assert build(val=0, size=32, rare=0, overwrite=True).patches == 4 * 34  # 33.01


def test_a_cap_on_memory_bounds_the_automatic_number(empty, monkeypatch):
    from unetseg.dataset import cutting

    write_set("set", 4)
    monkeypatch.setattr(cutting, "_AUTO_BYTES", 6 * 46 * 46 * 2)
    assert build(size=32, val=0).patches == 8  # 6 an image before; 6 in all, so 2


def test_scaled_images_and_masks_stay_together(empty):
    write_set("set", 4)
    summary = build(**{**SETTINGS, "size": 16}, scale=0.5)
    sizes = {(s.split, s.height, s.width) for s in summary.info.sources}
    # Held-out images stay whole: they are scored at full size, as a prediction is.
    assert sizes == {("train", 32, 28), ("val", 64, 56)}
    opened = unetseg.open_store("p.h5")
    image, mask, _ = opened.held_out(0)
    assert image.shape == (64, 56, 1)
    assert image[..., 0][mask == 1].mean() < 80 < 150 < image[..., 0][mask == 0].mean()


# --- the split -------------------------------------------------------------------------------


def test_images_are_divided_whole(empty):
    write_set("set", 12)
    train, val = sides(build(**SETTINGS))
    assert len(val) == 3
    assert not train & val
    assert train | val == {f"im{k}" for k in range(12)}


def test_nothing_is_held_out_where_nothing_is_asked_for(empty):
    write_set("set", 3)
    summary = build(**{**SETTINGS, "val": 0})
    assert sides(summary)[1] == set()
    assert summary.missing == ()
    opened = unetseg.open_store("p.h5")
    assert opened.held_out_count == 0


def test_groups_stay_on_one_side(empty):
    write_set("set", 12)
    for part in ("images", "masks"):
        for k in range(12):
            Path(f"set/{part}/im{k}.png").rename(f"set/{part}/plate{k // 3}_{k}.png")
    train, val = sides(build(**SETTINGS, group="^(plate.)_"))
    assert not {s[:6] for s in train} & {s[:6] for s in val}
    with pytest.raises(InputError, match="is not found in it"):
        build(**SETTINGS, group="^well", overwrite=True)


def test_equal_pixels_stand_on_one_side(empty):
    write_set("set", 10)
    for k in range(5):
        for part in ("images", "masks"):
            shutil.copy(f"set/{part}/im{k}.png", f"set/{part}/copy{k}.png")
    for seed in range(4):
        train, _ = sides(build(**SETTINGS, seed=seed, overwrite=True))
        for k in range(5):
            assert (f"im{k}" in train) == (f"copy{k}" in train)


def test_a_class_that_few_images_show_is_named(empty):
    write_set("set", 10, values=(0, 1, 1), toml=None)
    mask = read("set/masks/im4.png")
    mask[:20, :20] = 2
    Image.fromarray(mask).save("set/masks/im4.png")
    summary = build(**SETTINGS)
    assert "im4" in sides(summary)[0]  # a class that is only held out is never learnt
    assert summary.missing == ("2",)


# --- refusals --------------------------------------------------------------------------------


def test_a_store_that_is_there_is_not_replaced_unasked(empty):
    write_set("set", 4)
    build(**SETTINGS)
    before = Path("p.h5").read_bytes()
    with pytest.raises(InputError, match=r"p.h5: already exists"):
        build(**SETTINGS, seed=3)
    assert Path("p.h5").read_bytes() == before
    build(**SETTINGS, seed=3, overwrite=True)
    assert Path("p.h5").read_bytes() != before


def test_unlabelled_images_are_left_out_and_strokes_are_in_every_patch(empty):
    root = write_set(Path("strokes"), 8, toml=f"ignore = [255]\n{VALUES_TOML}")
    for number in range(8):
        path = root / "masks" / f"im{number}.png"
        kept = np.zeros((64, 56), bool)
        if number >= 2:  # nobody has looked at the first two yet
            kept[::9, :30] = True
        Image.fromarray(np.where(kept, read(path), 255).astype(np.uint8)).save(path)
    notes = []
    settings = unetseg.PatchSettings(size=32, val=0.25)
    summary = unetseg.build_store(
        root, "p.h5", settings, on_progress=lambda r: notes.append(str(r))
    )
    assert len(summary.info.sources) == 6
    assert summary.labelled_share == pytest.approx(8 * 30 / (64 * 56))
    assert any("no pixel is labelled (2 of 8 masks)" in str(note) for note in notes)
    with h5py.File("p.h5") as file:
        assert (file["train/masks"][:] != 255).any((1, 2)).all()


def test_one_image_cannot_be_divided(empty):
    write_set("set", 1)
    with pytest.raises(InputError, match="val=0"):
        build(**SETTINGS)
    assert build(**{**SETTINGS, "val": 0}).patches == 4


def test_a_stop_leaves_no_store(empty, monkeypatch):
    write_set("set", 4)
    seen = []

    def stop(self, what, remedy):
        seen.append(what)
        if len(seen) > 6:
            raise Interrupted(2, what, "stopped", remedy)

    monkeypatch.setattr(Caught, "check", stop)
    with pytest.raises(Interrupted, match="run the same line again"):
        build(**SETTINGS)
    assert sorted(p.name for p in Path().iterdir()) == ["set"]


# --- real sets, where they are there ---------------------------------------------------------


def subset(name, stems, mask_of=lambda stem: stem):
    """Copy some images of a real set with their masks into ``real``."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not here")
    for part in ("images", "masks"):
        Path("real", part).mkdir(parents=True)
    for stem in stems:
        shutil.copy(DATA / name / "images" / f"{stem}.png", "real/images")
        shutil.copy(DATA / name / "masks" / f"{mask_of(stem)}.png", "real/masks")


def test_lines_and_ellipses_are_read_as_they_come(empty):
    stems = [f"Img_{k}" for k in (0, 1, 2, 9, 10, 11, 20, 21, 99, 50)]
    subset("lines-ellipses", stems, lambda stem: stem.replace("Img", "Mask"))
    summary = build("real", size=96, per_image=4)
    assert summary.info.classes.names == ("#000000", "#00ff00", "#ff0000")
    assert summary.info.channels == 1
    assert len(sides(summary)[1]) == 3
    opened = unetseg.open_store("p.h5")
    for k, source in enumerate(opened.info.held_out):
        colours = read(f"real/masks/{source.name.replace('Img', 'Mask')}")
        expected = colours[..., 1] // 255 + 2 * (colours[..., 0] // 255)
        np.testing.assert_array_equal(opened.held_out(k)[1], expected)


def test_road_scenes_keep_sequences_together_and_ignore_what_is_unlabelled(empty):
    if not (DATA / "camvid-100").is_dir():
        pytest.skip("camvid-100 is not here")
    stems = sorted(p.stem for p in (DATA / "camvid-100/images").iterdir())[::10]
    subset("camvid-100", stems)
    summary = build("real", ignored=(11,), group=r"^(.*)\d{3}$", size=96, per_image=4)
    info = summary.info
    assert info.classes.ignore == (11,)
    assert len(info.classes.names) == len(
        {int(v) for p in Path("real/masks").iterdir() for v in np.unique(read(p))} - {11}
    )
    train, val = sides(summary)
    assert train | val == set(stems)
    assert val
    assert not {s[:-3] for s in train} & {s[:-3] for s in val}
    opened = unetseg.open_store("p.h5")
    for k, source in enumerate(opened.info.held_out):
        assert ((opened.held_out(k)[1] == 255) == (read(f"real/masks/{source.name}") == 11)).all()


def test_an_image_that_changes_before_it_is_cut_is_refused(empty):
    write_set("set", 4)

    def change(record):
        if getattr(record, "stage", "") == "cutting":
            for path in Path("set/images").iterdir():
                Image.fromarray(255 - read(path)).save(path)

    with pytest.raises(InputError, match=r"im\d\.png: has changed since it was looked at"):
        unetseg.build_store("set", "p.h5", on_progress=change)
    assert not Path("p.h5").exists()
