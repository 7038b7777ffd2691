"""Reports of whole commands: the pages of --html, --folds and --boundary."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from tests.support import count_predictions, read, scribble, write_set
from unetseg.classes import IGNORED, table_of
from unetseg.cli.app import main
from unetseg.errors import InputError
from unetseg.prediction.run_folder import RunFolder
from unetseg.reports.gathering import baselines_of_folds, report_training, seconds_after_folds
from unetseg.scoring import baselines
from unetseg.scoring.baselines import FOREST, MOST_COMMON, compare_with_baselines
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.training.fold_record import FoldImage, FoldRecord
from unetseg.training.folds import load_cross_validation

TINY = ("--width", 2, "--depth", 1, "--epochs", 1, "--batch-size", 8, "--size", 32)


def run(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a set of 8 images, a run of 2 folds with its report, and a plain run."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        write_set("set", 8, shape=(40, 36))
        run("train", "set", "--folds", 2, "--run", "k", "--html", "folds.html", *TINY)
        run("train", "set", "--html", "run.html", *TINY)
    return path


@pytest.fixture(autouse=True)
def _in_it(home, monkeypatch):
    monkeypatch.chdir(home)


def read_table(path):
    """Return the rows of a CSV file by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def words_of(path):
    """Return the text of a page, without markup, styles and pictures."""
    text = path.read_text("utf-8")
    text = re.sub(r"<(style|svg).*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_report_of_folds_says_the_score_of_all_images_and_both_baselines(home):
    found, text = load_cross_validation("k"), words_of(home / "folds.html")
    assert f"{found.scores.mean_iou:.3f}" in text
    baselines = baselines_of_folds(found)
    assert compare_with_baselines(found.scores, baselines) in text
    assert all(f"{baseline.scores.mean_iou:.3f}" in text for baseline in baselines)
    assert "never saw it" in text
    assert "unetseg suspects k" in text
    assert found.content in text


def test_a_random_forest_is_trained_without_the_fold_that_it_is_scored_on(home):
    most, forest = baselines_of_folds(load_cross_validation("k"))
    assert (most.name, forest.name) == (MOST_COMMON, FOREST)
    # Brightness tells these classes apart, so a forest is nearly right, and one class is not.
    assert most.scores.mean_iou < 0.5 < 0.9 < forest.scores.mean_iou


def test_a_random_forest_learns_from_strokes_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set("set", 8, shape=(40, 36))
    for number, path in enumerate(sorted(Path("set/masks").iterdir())):
        Image.fromarray(scribble(read(path), number)).save(path)
    run("train", "set", "--folds", 2, "--ignore", 255, *TINY)
    learned, draw = [], baselines.draw_samples

    def keep(pairs, *rest):
        learned.extend(pairs)
        return draw(learned, *rest)

    monkeypatch.setattr(baselines, "draw_samples", keep)
    found = load_cross_validation()
    _, forest = baselines_of_folds(found)
    for (_, mask), one in zip(learned, found.images, strict=True):
        np.testing.assert_array_equal(mask, read(one.mask))
    assert forest.scores.confusion.sum() == sum((mask != IGNORED).sum() for _, mask in learned)
    spread = unetseg.open_store(found.run.fold(1).store).info.settings["spread_share"]
    assert spread > 0.5  # the network of the same fold learnt from whole areas


def test_the_time_after_folds_is_estimated_for_pages_of_a_stack(tmp_path):
    stack = tmp_path / "s.tif"
    tifffile.imwrite(stack, np.zeros((2, 40, 30), np.uint8), photometric="minisblack")
    record = FoldRecord(
        folder=str(tmp_path),
        folds=2,
        images=tuple(
            FoldImage(f"s-{page}", stack, Path("none.png"), "", "s", page + 1, page=page)
            for page in range(2)
        ),
        classes=table_of([0, 1]),
        settings=TrainSettings(),
        cutting=PatchSettings(page="all"),
        given={},
        ignored=(),
        content="",
    )
    assert seconds_after_folds(record, html=True) > 0


def test_the_report_of_a_run_shows_its_held_out_images(home):
    text = words_of(home / "run.html")
    found = unetseg.evaluate(model="default").scores
    assert f"{found.mean_iou:.3f}" in text
    assert any(name in text for name in found.names)
    assert "width" in text


def test_an_evaluation_writes_a_report_and_borders(home, capsys):
    written = ("--html", "e.html", "--json", "e.json")
    run("evaluate", "set", "--include-trained", "--boundary", 2, *written)
    data = json.loads((home / "e.json").read_text())
    shares = data["boundary"]["surface_dice"]
    assert set(shares) == set(data["iou"])
    assert data["boundary"]["tolerance"] == 2
    assert f"{data['mean_iou']:.3f}" in words_of(home / "e.html")
    out = capsys.readouterr().out
    assert "surface Dice" in out
    assert all(f"{v:.3f}" in out for v in shares.values() if v is not None)


def test_an_evaluation_draws_curves_and_writes_every_score_of_an_image(home, capsys):
    written = ("--html", "c.html", "--json", "c.json", "--csv", "c.csv")
    run("evaluate", "set", "--include-trained", "--boundary", 1, "--curves", *written)
    data = json.loads((home / "c.json").read_text())
    areas = data["curves"]
    assert set(areas["roc_auc"]) == set(areas["average_precision"]) == set(data["iou"])
    out, page = capsys.readouterr().out, (home / "c.html").read_text()
    assert "area under precision-recall" in out
    for value in areas["roc_auc"].values():
        assert f"{value:.3f}" in out
        assert f"{value:.3f}" in page
    assert page.count("<polyline") >= 2 * len(data["iou"])
    rows = read_table(home / "c.csv")
    assert len(rows) == 8
    for name in data["iou"]:
        for measure in ("iou", "dice", "precision", "recall", "specificity", "surface_dice"):
            values = [float(row[f"{measure}_{name}"] or 0) for row in rows]
            assert 0 <= min(values) <= max(values) <= 1
        assert all(float(row[f"hd95_{name}"] or 0) >= 0 for row in rows)
        assert all(0 <= float(row[f"roc_auc_{name}"] or 0) <= 1 for row in rows)
        dices = [float(row[f"dice_{name}"]) for row in rows if row[f"dice_{name}"]]
        ious = [float(row[f"iou_{name}"]) for row in rows if row[f"iou_{name}"]]
        assert dices == pytest.approx([2 * iou / (1 + iou) for iou in ious])


@pytest.fixture
def predicted(monkeypatch):
    """How often each image was predicted, by its pixels."""
    return count_predictions(monkeypatch)


@pytest.mark.parametrize(("source", "images"), [(("set", "--include-trained"), 8), ((), 2)])
def test_an_evaluation_with_all_that_it_can_find_predicts_each_image_once(
    home, predicted, source, images
):
    found = ("--curves", "--boundary", 2, "--objects", "all")
    written = ("--html", "once.html", "--csv", "once.csv", "--json", "once.json")
    run("evaluate", *source, *found, *written, "--overwrite")
    assert list(predicted.values()) == [1] * images


@pytest.mark.parametrize(("options", "images"), [((), 2), (("--folds", 2), 8)])
def test_a_training_with_its_report_predicts_each_held_out_image_once(
    home, predicted, options, images
):
    run("train", "set", *options, "--run", f"once{images}", "--html", f"t{images}.html", *TINY)
    assert list(predicted.values()) == [1] * images


def test_the_report_of_a_training_predicts_each_held_out_image_once(home, predicted):
    result = unetseg.evaluate()
    predicted.clear()
    report_training("trained.html", result.scores, RunFolder("default"))
    assert list(predicted.values()) == [1] * 2


def test_a_notebook_writes_the_pages_of_the_commands(home, predicted, tmp_path):
    run("evaluate", "set", "--include-trained", "--html", tmp_path / "command.html")
    predicted.clear()
    found = unetseg.evaluate("set", include_trained=True, keep=True)
    unetseg.write_report(tmp_path / "notebook.html", found)
    assert list(predicted.values()) == [1] * 8
    pages = [words_of(tmp_path / f"{name}.html") for name in ("command", "notebook")]
    assert pages[0] == pages[1]
    assert "Training" in pages[1]
    quick = {"width": 2, "depth": 1, "epochs": 1, "batch_size": 8}
    result = unetseg.train("set", run=tmp_path / "r", patches=PatchSettings(size=32), **quick)
    unetseg.write_report(tmp_path / "run.html", result)
    text = words_of(tmp_path / "run.html")
    assert "r on the images its store held out" in text
    assert all(Path(name).stem in text for name in result.names)
    unetseg.write_report(tmp_path / "folds.html", load_cross_validation("k"))
    assert words_of(tmp_path / "folds.html") == words_of(home / "folds.html")


def test_a_page_of_no_scores_and_a_file_that_is_there_are_refused(home, tmp_path):
    with pytest.raises(
        InputError, match="result: <ClassTable: 0, 1> is not of type Evaluation or TrainResult"
    ):
        unetseg.write_report(tmp_path / "r.html", table_of([0, 1]))
    result = unetseg.train(resume=True)  # it was finished before
    with pytest.raises(InputError, match="runs/default: this training scored no images"):
        unetseg.write_report(tmp_path / "r.html", result)
    (tmp_path / "r.html").touch()
    with pytest.raises(InputError, match="overwrite=True"):
        unetseg.write_report(tmp_path / "r.html", result)


def test_a_notebook_has_all_scores_of_the_command_in_one_result(home):
    words = ("--boundary", 1, "--objects", "square", "--curves", "--json", "n.json")
    run("evaluate", "set", "--include-trained", *words, "--csv", "n.csv")
    found = unetseg.evaluate("set", include_trained=True, boundary=1, objects="square", curves=True)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain == json.loads((home / "n.json").read_text())
    page = found._repr_html_()
    for title in ("surface Dice", "panoptic quality", "area under ROC"):
        assert title in page
    for row in found.records():
        assert row["surface_dice"] == found.boundaries.surface_dice[row["class"]]
        assert row["hd95"] == found.boundaries.distance[row["class"]]
        areas = found.curves.pooled[row["class"]].areas
        assert (row["roc_auc"], row["average_precision"]) == (
            areas.roc_auc,
            areas.average_precision,
        )
    written, rows = read_table(home / "n.csv"), found.image_records()
    assert [list(row) for row in rows] == [list(row) for row in written]
    for row, line in zip(rows, written, strict=True):
        assert row.pop("image") == line.pop("image")
        for key, value in row.items():
            assert value is line[key] is None or (value or 0) == pytest.approx(
                float(line[key] or 0), rel=1e-9
            )


def test_a_plain_evaluation_has_no_other_scores(home):
    found = unetseg.evaluate("set", include_trained=True)
    assert (found.boundaries, found.objects, found.curves) == (None, None, None)
    assert len(found.tables()) == 1
    assert not {"boundary", "objects", "curves"} & set(found.to_dict())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"boundary": -1}, "boundary: -1 is no number of pixels"),
        ({"boundary": True}, "boundary: True is not a number or None"),
        ({"boundary": "two"}, "boundary: 'two' is not a number or None"),
        ({"objects": "cell"}, "cell"),
        ({"curves": True, "predictions": "set/masks"}, "curves: needs the probabilities"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_before_anything_is_scored(home, given, says):
    seen = []
    with pytest.raises(unetseg.InputError, match=re.escape(says)):
        unetseg.evaluate("set", include_trained=True, on_progress=seen.append, **given)
    assert not any(getattr(record, "stage", "") == "scoring" for record in seen)


def test_masks_have_no_curves(home, capsys):
    assert main(["evaluate", "set", "--predictions", "set/masks", "--curves"]) == 2
    assert "--curves: is of no use with --predictions" in capsys.readouterr().err


def test_a_report_that_is_there_is_left_alone(home, capsys):
    before = (home / "run.html").read_bytes()
    assert main(["evaluate", "set", "--html", "run.html"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (home / "run.html").read_bytes() == before
