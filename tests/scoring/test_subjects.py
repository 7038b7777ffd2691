"""The images that are scored: those left out, and those that a store held out."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import unetseg
from tests.support import NAMES, QUICK, read, said
from unetseg.cli.app import main
from unetseg.errors import InputError
from unetseg.prediction.model_file import read_card
from unetseg.scoring.metrics import confusion


def test_images_trained_on_are_left_out_and_said(home):
    shutil.copytree("data/test", "mixed")
    card = read_card("runs/default/model.safetensors")
    trained = [s.name for s in card.sources if s.split == "train"]
    for name in trained[:2]:  # under other names: pixels count
        stem = Path(name).stem
        shutil.copy(f"data/train/images/{stem}.png", f"mixed/images/new{stem}.png")
        shutil.copy(f"data/train/masks/{stem}.png", f"mixed/masks/new{stem}.png")
    found, text = said(lambda p: unetseg.evaluate("mixed", on_progress=p))
    assert "2 of 5 images were trained on, left out; 3 scored" in text
    assert (found.subject.trained_on, found.total, len(found.scores.names)) == (2, 5, 3)
    everything = unetseg.evaluate("mixed", include_trained=True)
    assert (everything.subject.trained_on, len(everything.scores.names)) == (0, 5)


def test_masks_of_a_model_are_not_scored_on_images_that_it_was_trained_on(home):
    unetseg.predict(["data/train", "data/test"])
    given = {"predictions": "predictions", "model": "default"}
    found, text = said(lambda p: unetseg.evaluate("data/train", on_progress=p, **given))
    assert "9 of 12 images were trained on, left out; 3 scored" in text
    assert (found.subject.trained_on, len(found.scores.names)) == (9, 3)
    everything = unetseg.evaluate("data/train", include_trained=True, **given)
    assert (everything.subject.trained_on, len(everything.scores.names)) == (0, 12)
    assert unetseg.evaluate("data/test", **given).subject.trained_on == 0


def test_images_trained_on_can_be_asked_for_beside_masks_where_a_model_is_named(home, capsys):
    unetseg.predict(["data/train"])
    words = ["evaluate", "data/train", "--predictions", "predictions", "--include-trained"]
    assert main(words) == 2
    assert "--include-trained: is of no use with --predictions" in capsys.readouterr().err
    assert main([*words, "--model", "default"]) == 0
    assert "data/train: 12 images" in capsys.readouterr().out


def test_a_folder_of_trained_images_alone_leaves_nothing_to_score(home):
    card = read_card("runs/default/model.safetensors")
    for part in ("images", "masks"):
        Path("old", part).mkdir(parents=True)
        for s in card.sources:
            if s.split == "train":
                shutil.copy(f"data/train/{part}/{s.name}", f"old/{part}")
    with pytest.raises(InputError, match="all 9 images were trained on"):
        unetseg.evaluate("old")


def test_without_a_folder_the_stores_held_out_images_are_scored(home):
    shutil.rmtree("data/test")
    found, text = said(lambda p: unetseg.evaluate(on_progress=p))
    card = read_card("runs/default/model.safetensors")
    held_out = [Path(s.name).stem for s in card.sources if s.split == "val"]
    assert list(found.scores.names) == held_out
    assert "9 of 12 images were trained on, left out; 3 scored" in text
    assert found.scores.mean_iou == pytest.approx(card.scores["mean_iou"])


def test_the_held_out_score_is_that_of_the_same_images_as_files(home):
    shutil.rmtree("data/test")
    from_store = unetseg.evaluate()
    from_files = unetseg.evaluate("data/train")
    np.testing.assert_array_equal(from_store.scores.confusion, from_files.scores.confusion)


def test_a_store_that_was_cut_anew_holds_out_nothing_the_model_has_seen(home):
    shutil.rmtree("data/test")
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, seed=3)
    unetseg.build_store(patches=settings, overwrite=True)
    card = read_card("runs/default/model.safetensors")
    trained = {Path(s.name).stem for s in card.sources if s.split == "train"}
    assert not trained & set(unetseg.evaluate().scores.names)


def test_a_store_of_other_classes_is_refused(home):
    shutil.rmtree("data/test")
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.25)
    unetseg.build_store(patches=settings, ignore=(2,), overwrite=True)
    with pytest.raises(InputError, match=r"data/patches.h5: .*name a folder"):
        unetseg.evaluate()


def test_a_missing_store_asks_for_a_folder(home):
    shutil.rmtree("data/test")
    Path("data/patches.h5").unlink()
    with pytest.raises(InputError, match=r"unetseg.evaluate\(FOLDER\)"):
        unetseg.evaluate()


def test_a_store_that_moved_with_its_run_is_found_beside_the_model(home):
    shutil.rmtree("data/test")
    expected = unetseg.evaluate().scores.mean_iou
    shutil.move("data/patches.h5", "runs/default/patches.h5")
    assert unetseg.evaluate().scores.mean_iou == expected
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, seed=3)
    unetseg.build_store(out="runs/default/patches.h5", patches=settings, overwrite=True)
    with pytest.raises(InputError, match=r"unetseg.evaluate\(FOLDER\)"):
        unetseg.evaluate()


def test_an_ensemble_leaves_out_what_any_of_its_models_was_trained_on(home):
    settings = unetseg.PatchSettings(size=32, per_image=2, val=0.25, seed=5)
    unetseg.train("data/train", run="other", patches=settings, **{**QUICK, "epochs": 1})
    cards = [read_card(f"runs/{run}/model.safetensors") for run in ("default", "other")]
    trained = {s.sha256 for c in cards for s in c.sources if s.split == "train"}
    left = [Path(s.name).stem for s in cards[0].sources if s.sha256 not in trained]
    assert 0 < len(left) < 3
    found = unetseg.evaluate("data/train", model=["default", "other"])
    assert sorted(found.scores.names) == sorted(left)


def test_groups_of_held_out_images_are_those_of_the_store(home):
    shutil.rmtree("data/test")
    assert unetseg.evaluate().scores.units == 3
    assert "groups" not in unetseg.evaluate().scores.to_dict()
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, group=r"im(\d)")
    unetseg.build_store(patches=settings, overwrite=True)
    store = unetseg.open_store("data/patches.h5")
    expected = {Path(s.name).stem: s.group for s in store.info.held_out}
    found = unetseg.evaluate().scores
    assert found.groups == tuple(expected[name] for name in found.names)
    assert set(unetseg.evaluate(group="im").scores.groups) == {"im"}


@pytest.mark.parametrize("source", ["data/test", None])
def test_a_scored_image_is_the_image_the_truth_and_the_prediction_that_were_scored(home, source):
    if source is None:
        shutil.rmtree("data/test")
    found = unetseg.evaluate(source)
    assert found.subject.classes.names == NAMES
    for k, name in enumerate(found.scores.names):
        scored = found.subject.scored_image(k)
        folder = Path(source or "data/train")
        assert scored.name == name
        np.testing.assert_array_equal(scored.image[..., 0], read(folder / f"images/{name}.png"))
        np.testing.assert_array_equal(scored.truth, read(folder / f"masks/{name}.png"))
        matrix = confusion(scored.truth, scored.prediction, 3)
        np.testing.assert_array_equal(matrix, found.scores.matrices[k])
        assert scored.confidence.shape == scored.truth.shape
        assert scored.confidence.dtype == np.float32
        assert 1 / 3 <= scored.confidence.min() <= scored.confidence.max() <= 1.0001


def test_a_scored_image_of_masks_has_no_confidence(home):
    unetseg.predict(["data/test"])
    found = unetseg.evaluate(predictions="predictions")
    scored = found.subject.scored_image(1)
    assert scored.confidence is None
    np.testing.assert_array_equal(scored.prediction, read(f"predictions/{scored.name}.png"))
    np.testing.assert_array_equal(scored.image[..., 0], read(f"data/test/images/{scored.name}.png"))
    assert found.subject.classes.names == NAMES


def test_only_the_images_asked_for_are_scored(home):
    unetseg.predict(["data/test"])
    for options in ({}, {"predictions": "predictions"}):
        assert unetseg.evaluate(only={"im101"}, **options).scores.names == ("im101",)
        with pytest.raises(InputError, match="none of the images asked for"):
            unetseg.evaluate(only={"im999"}, **options)
