"""Reports of whole commands: what a person gets with --html, --folds and --boundary."""

import json
import re

import pytest

import unetseg
from tests.support import write_set
from unetseg.cli.app import main
from unetseg.reports.gathering import baselines_of_folds
from unetseg.scoring.baselines import FOREST, MOST_COMMON, compare_with_baselines
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


def words_of(path):
    """Return what a page says, without markup, styles and pictures."""
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


def test_a_report_that_is_there_is_left_alone(home, capsys):
    before = (home / "run.html").read_bytes()
    assert main(["evaluate", "set", "--html", "run.html"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (home / "run.html").read_bytes() == before
