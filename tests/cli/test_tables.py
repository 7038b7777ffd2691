"""Scores as the terminal shows them: widths, names, intervals."""

import numpy as np
import pytest

from unetseg.cli.console import print_table
from unetseg.cli.tables import print_confusion
from unetseg.scoring.metrics import scores


def random_scores(classes, n=20, groups=None):
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 3000, (n, len(classes), len(classes)))
    matrices[:, range(len(classes)), range(len(classes))] *= 400
    return scores(matrices, [f"im{k}" for k in range(n)], classes, groups)


@pytest.mark.parametrize("count", [2, 3, 8, 9, 12])
def test_scores_and_confusion_fit_80_columns(count, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"background that has a long name {k}" for k in range(count)]
    found = random_scores(names)
    print_table(*found.table("title"))
    print_confusion(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for k in range(count):
        row = next(line.split() for line in lines if line.startswith(f"{k} background"))
        percent = 100 * found.confusion[k] / found.confusion[k].sum()
        assert row[-count:] == [f"{p:.1f}" for p in percent]


def test_short_names_stand_above_the_columns_of_the_confusion_matrix(capsys):
    print_confusion(scores(np.diag([5, 7])[None], ["x"], ["ground", "line"]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["truth", "ground", "line"],
        ["ground", "100", "0.0"],
        ["line", "0.0", "100"],
    ]


def test_intervals_stand_in_a_column_and_behind_the_mean(capsys):
    found = random_scores(["ground", "line", "blob"])
    print_table(*found.table("title"))
    out = capsys.readouterr().out
    low, high = found.iou_ci95["line"]
    assert f"{low:.3f}-{high:.3f}" in out
    low, high = found.mean_iou_ci95
    expected = f"mean IoU {found.mean_iou:.4f}, 95 % interval {low:.3f} to {high:.3f}"
    assert f"{expected} over 20 images" in out
    worst = min(found.iou, key=found.iou.get)
    assert f"{worst} (weakest)" in out
    grouped = random_scores(["a", "b"], 6, ["p", "p", "q", "q", "r", "r"])
    print_table(*grouped.table("title"))
    assert "over 3 groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("matrices", "text"),
    [
        ([np.full((2, 2), 5)] * 2, "mean IoU 0.3333, too few images for an interval (2 images)"),
        (
            [np.diag([5, 5])] * 4,
            "mean IoU 1.0000, the same in every image, which gives no interval",
        ),
        ([np.zeros((2, 2), int)] * 4, "mean IoU -, nothing was scored"),
    ],
)
def test_why_there_is_no_interval_is_said(matrices, text, capsys):
    found = scores(np.stack(matrices), "wxyz"[: len(matrices)], ["a", "b"])
    print_table(*found.table("title"))
    assert text in capsys.readouterr().out
