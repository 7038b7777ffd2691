"""Wrong labels are found among right ones; each is described by the damage that was done to it."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import unetseg
from tests.support import draw, write_set
from unetseg.cli.app import main
from unetseg.dataset.synthesis import CLASSES, draw_image
from unetseg.reports.suspect_sheet import write_suspects
from unetseg.scoring.metrics import ScoredImage
from unetseg.scoring.suspects import Suspect, rank_suspects
from unetseg.settings import SynthSettings
from unetseg.training.folds import cross_validate, load_cross_validation

COUNT = 100
_LOOK = SynthSettings(height=144, width=96, max_shapes=4)


def _field(sigma):
    """Return smooth noise to cut pieces from: smoothing anew for each image takes long."""
    noise = np.random.default_rng(sigma).normal(size=(400, 400)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma)
    return smooth / smooth.std()


_COARSE, _FINE = _field(6), _field(2)


def _piece(field, shape, rng):
    row, column = rng.integers(0, 400 - max(shape), 2)
    return field[row : row + shape[0], column : column + shape[1]]


def predict(mask, rng):
    """Return (prediction, confidence) as of a network that never saw the image.

    Borders are displaced by a smooth field, lines are missed in part, blobs claimed, and how
    much differs from image to image. Probabilities are a softmax of blurred scores, which are
    weaker where the network errs, save for one error in twenty.
    """
    quality = rng.beta(5, 1.5)  # one image in ten is poor
    shape = mask.shape
    wander = 0.4 + 1.2 * (1 - quality)  # pixels
    rows, columns = np.indices(shape) + [wander * _piece(_COARSE, shape, rng) for _ in range(2)]
    rows, columns = rows.round().astype(int), columns.round().astype(int)
    guess = mask[rows.clip(0, shape[0] - 1), columns.clip(0, shape[1] - 1)]
    doubt = np.ones(shape, np.float32)
    for error in range(rng.poisson(1 + 8 * (1 - quality))):
        inside, around = _blob(shape, rng, mask == 1 if error % 2 else mask == 0)
        guess[inside] = 0 if error % 2 else rng.integers(1, 3)
        doubt[around] = rng.uniform(0.7, 1) if rng.random() < 0.05 else rng.uniform(0.1, 0.4)
    votes = [ndimage.gaussian_filter((guess == c) * np.float32(9), 0.7) for c in range(3)]
    logits = np.stack([v + 0.6 * _piece(_FINE, shape, rng) for v in votes])
    logits *= doubt * (0.6 + 0.4 * quality)
    likely = np.exp(logits - logits.max(axis=0))
    likely /= likely.sum(axis=0)
    return likely.argmax(axis=0).astype(np.uint8), likely.max(axis=0).astype(np.float32)


def _blob(shape, rng, where):
    rows, columns = np.nonzero(where)
    k = rng.integers(len(rows))
    y, x = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(y - rows[k], x - columns[k])
    radius = rng.uniform(2, 6)
    return distance < radius, distance < radius + 2


def spoil(mask, kind, rng):
    """Return the mask with one error that people make."""
    wrong = mask.copy()
    labels, count = ndimage.label(mask > 0)
    sizes = np.bincount(labels.ravel())[1:]
    largest = labels == 1 + np.argsort(sizes)[-1 - rng.integers(min(2, count))]
    if kind == "removed":
        wrong[largest] = 0
    elif kind == "swapped":
        wrong = np.array([0, 2, 1], np.uint8)[mask]
    elif kind == "relabelled":
        wrong[largest] = 3 - wrong[largest]
    elif kind == "shifted":
        down, right = rng.choice([-1, 1], 2) * rng.integers(3, 8, 2)
        wrong = ndimage.shift(mask, (down, right), order=0)
    elif kind == "added":
        wrong[_ellipse(mask, rng)] = 2
    elif kind == "mirrored":
        wrong = mask[:, ::-1].copy()
    return wrong


def _ellipse(mask, rng):
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    free = ndimage.distance_transform_edt(mask == 0)
    row, column = np.unravel_index(free.argmax(), mask.shape)
    return ((y - row) / rng.uniform(6, 14)) ** 2 + ((x - column) / rng.uniform(6, 14)) ** 2 < 1


KINDS = ("removed", "swapped", "shifted", "relabelled", "added", "mirrored")


def simulate(seed, kinds, sure=True):
    """Return the cases of a set, and which of them is spoilt how."""
    rng = np.random.default_rng(seed)
    spoilt = dict(zip(rng.choice(COUNT, len(kinds), replace=False), kinds, strict=True))
    cases = []
    for k in range(COUNT):
        image, mask = draw_image(_LOOK, f"seed {seed}", k)
        prediction, confidence = predict(mask, rng)
        truth = spoil(mask, spoilt[k], rng) if k in spoilt else mask
        cases.append(ScoredImage(str(k), image, truth, prediction, confidence if sure else None))
    return cases, {str(k): kind for k, kind in spoilt.items()}


@pytest.mark.parametrize("seed", range(3))
def test_at_least_four_of_five_spoilt_masks_of_100_are_among_the_first_eight(seed):
    kinds = [KINDS[(seed + i) % len(KINDS)] for i in range(5)]
    cases, spoilt = simulate(seed, kinds)
    first = [s.name for s in rank_suspects(iter(cases), CLASSES.names)[:8]]
    assert len(spoilt.keys() & set(first)) >= 4


def test_without_confidences_most_spoilt_masks_are_found_too():
    cases, spoilt = simulate(2, KINDS[:5], sure=False)
    found = rank_suspects(cases, CLASSES.names)
    assert len(spoilt.keys() & {s.name for s in found[:8]}) >= 4


NAMES = ("ground", "square", "stripe")


def case(truth, prediction, name="one", sure=0.99):
    """Return a case whose image does not matter."""
    confidence = None if sure is None else np.full(truth.shape, sure, np.float32)
    return ScoredImage(name, np.zeros((*truth.shape, 1), np.uint8), truth, prediction, confidence)


def scene(*things):
    """Return (60, 80) with each thing (class, top, left, height, width)."""
    mask = np.zeros((60, 80), np.uint8)
    for label, top, left, height, width in things:
        mask[top : top + height, left : left + width] = label
    return mask


SQUARE, STRIPE = (1, 10, 20, 15, 12), (2, 40, 5, 4, 60)


@pytest.mark.parametrize(
    ("truth", "prediction", "text", "box"),
    [
        (
            scene(STRIPE),
            scene(SQUARE, STRIPE),
            "180 pixels of ground in the mask, square by the model: is square missing in the mask?",
            (10, 20, 15, 12),
        ),
        (
            scene(SQUARE, STRIPE),
            scene(SQUARE),
            "240 pixels of stripe in the mask, ground by the model: is there stripe at all?",
            (40, 5, 4, 60),
        ),
        (
            scene(SQUARE, (1, 10, 50, 15, 12)),
            scene(SQUARE, (2, 10, 50, 15, 12)),
            "180 pixels of square in the mask, stripe by the model: is it stripe?",
            (10, 50, 15, 12),
        ),
        (
            scene((1, 40, 5, 4, 60), (2, 10, 20, 15, 12)),
            scene(SQUARE, STRIPE),
            "square and stripe look swapped in the mask",
            (40, 5, 4, 60),
        ),
        (
            scene((1, 16, 23, 15, 12), (2, 46, 8, 4, 60)),
            scene(SQUARE, STRIPE),
            "the mask looks shifted by 6 pixels down, 3 right",
            (0, 0, 60, 80),
        ),
        (
            scene((1, 10, 16, 15, 12), (2, 40, 1, 4, 60)),
            scene(SQUARE, STRIPE),
            "the mask looks shifted by 4 pixels left",
            (0, 0, 60, 80),
        ),
        (
            scene(SQUARE, STRIPE)[:, ::-1],
            scene(SQUARE, STRIPE),
            "the mask looks mirrored left to right",
            (0, 0, 60, 80),
        ),
    ],
)
def test_the_text_says_what_was_done_to_the_mask_and_where(truth, prediction, text, box):
    (found,) = rank_suspects([case(truth, prediction)], NAMES)
    assert (found.text, found.box) == (text, box)


def test_a_square_mask_turned_by_a_quarter_is_told():
    right = scene(SQUARE, (2, 40, 5, 4, 40))[:, :60]
    (found,) = rank_suspects([case(np.rot90(right, -1), right)], NAMES)
    assert found.text == "the mask looks turned by 90 degrees clockwise"


def test_a_border_that_is_off_by_one_pixel_everywhere_is_no_suspect():
    truth, prediction = scene((1, 10, 20, 15, 12)), scene((1, 9, 19, 17, 14))
    assert rank_suspects([case(truth, prediction)], NAMES) == ()


def test_a_thin_object_that_only_the_mask_has_is_no_border_noise():
    truth = scene((2, 40, 5, 2, 60))
    (found,) = rank_suspects([case(truth, scene())], NAMES)
    assert found.box == (40, 5, 2, 60)


def test_sure_disagreement_comes_before_larger_unsure_disagreement():
    rng = np.random.default_rng(0)
    cases = []
    for k in range(10):
        guess = scene(SQUARE, STRIPE)
        sure = rng.uniform(0.9, 1, guess.shape).astype(np.float32)
        truth = guess.copy()
        if k in (3, 7):
            truth[10:25, 20 : 32 if k == 7 else 26] = 0  # 7: the larger
        sure[10:25, 20:32] -= 0.3 * (k == 7)
        cases.append(ScoredImage(str(k), np.zeros((60, 80, 1), np.uint8), truth, guess, sure))
    assert [s.name for s in rank_suspects(cases, NAMES)] == ["3", "7"]


def test_a_pixel_is_not_pixels():
    truth = np.zeros((9, 9), np.uint8)
    guess = truth.copy()
    guess[4, 4] = 1
    assert rank_suspects([case(truth, guess)], NAMES)[0].text.startswith("1 pixel of ground in")


def test_what_the_model_always_confuses_is_no_suspect_beside_what_it_never_does():
    right = scene(SQUARE, STRIPE)
    always = [case(right, scene(SQUARE), f"{k}") for k in range(9)]  # no stripe found anywhere
    missing = case(scene(STRIPE), scene(SQUARE), "spoilt")  # 180 pixels; of each stripe 240
    assert rank_suspects([*always, missing], NAMES)[0].name == "spoilt"


def test_ignored_pixels_speak_against_nothing():
    truth = scene(SQUARE)
    truth[truth == 1] = 255
    assert rank_suspects([case(truth, scene(SQUARE))], NAMES) == ()
    assert rank_suspects([case(np.full((60, 80), 255, np.uint8), scene())], NAMES) == ()


def test_nothing_is_suspected_of_equal_masks_or_of_none():
    assert rank_suspects([case(scene(SQUARE), scene(SQUARE))], NAMES) == ()
    assert rank_suspects([], NAMES) == ()


def test_a_large_image_is_thinned_out_and_places_are_in_its_own_pixels():
    truth = np.zeros((3000, 2000), np.uint8)
    truth[200:260, 300:380] = 1
    prediction = truth.copy()
    prediction[1000:1100, 500:580] = 2  # every second row and column is looked at
    (found,) = rank_suspects([case(truth, prediction, sure=None)], NAMES)
    assert found.box == (1000, 500, 100, 80)
    assert found.text.startswith("about 8,000 pixels of ground in the mask, stripe by the model")


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 9)])
def test_tiny_images_are_ranked(shape):
    truth, prediction = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    (found,) = rank_suspects([case(truth, prediction)], NAMES)
    assert found.box == (0, 0, *shape)


@pytest.mark.slow
def test_spoilt_masks_are_found_by_a_real_cross_validation(empty):
    seed = 0
    rng = np.random.default_rng(seed)
    kinds = [KINDS[(seed + i) % len(KINDS)] for i in range(5)]
    spoilt = dict(zip(rng.choice(COUNT, 5, replace=False), kinds, strict=True))
    for part in ("images", "masks"):
        (empty / "set" / part).mkdir(parents=True)
    for k in range(COUNT):
        image, mask = draw_image(_LOOK, f"seed {seed}", k)
        mask = spoil(mask, spoilt[k], rng) if k in spoilt else mask
        Image.fromarray(image[..., 0]).save(f"set/images/{k}.png")
        Image.fromarray(mask).save(f"set/masks/{k}.png")
    (empty / "set" / "classes.toml").write_text(CLASSES.to_toml())
    found = cross_validate(
        "set", folds=5, patches=unetseg.PatchSettings(size=64), width=8, epochs=12, device="cpu"
    )
    ranked = rank_suspects(map(found.scored_image, range(COUNT)), found.scores.classes)
    first = [s.name for s in ranked[:8]]
    assert len({str(k) for k in spoilt} & set(first)) >= 4, [(s.name, s.text) for s in ranked[:12]]


# --- the page and the command ----------------------------------------------------------------


def test_the_page_stands_alone_and_escapes_names(tmp_path):
    name = "<script>alert(1)</script>"
    one = case(scene(STRIPE), scene(SQUARE, STRIPE), name)
    found = Suspect(name, 4.21, (10, 20, 15, 12), "180 pixels & more")
    write_suspects(tmp_path / "a.html", [found], lambda _: one, CLASSES, "set against run")
    text = (tmp_path / "a.html").read_text()
    assert "<script" not in text
    assert not re.search(r"https?://", text)
    assert set(re.findall(r'src="([^,"]*),', text)) == {"data:image/jpeg;base64"}
    assert text.count("<img") == 3
    assert "(score 4.2)" in text
    assert "180 pixels &amp; more" in text
    # 60 x 80 is shown whole; 10 / 60, 20 / 80, 15 / 60, 12 / 80
    assert text.count("top: 16.67%; left: 25.00%; height: 25.00%; width: 15.00%") == 3


def test_of_a_large_image_the_page_shows_the_place(tmp_path):
    truth = np.zeros((900, 700), np.uint8)
    one = case(truth, truth)
    found = Suspect("one", 4.0, (800, 0, 30, 20), "wrong")
    write_suspects(tmp_path / "a.html", [found], lambda _: one, CLASSES, "")
    text = (tmp_path / "a.html").read_text()
    # a square of 128: from row 815 - 64 = 751, and from column 0, since 10 - 64 is outside
    assert "(rows 751 to 878, columns 0 to 127 of 900 x 700)" in text
    assert "top: 38.28%; left: 0.00%; height: 23.44%; width: 15.62%" in text  # 49, 30, 20 of 128


def test_a_page_without_suspects_says_so(tmp_path):
    write_suspects(tmp_path / "a.html", [], lambda _: None, CLASSES, "set")
    assert "Nothing speaks against any mask" in (tmp_path / "a.html").read_text()


@pytest.fixture
def spoilt_set(empty):
    """A set of 8 images, whose mask of im3 lacks its square, and right masks made elsewhere."""
    write_set("set", 8)
    shutil.copytree("set/masks", "made")
    mask = draw(3)[1]
    mask[mask == 1] = 0
    Image.fromarray(mask).save("set/masks/im3.png")
    return empty


def test_the_command_ranks_masks_made_elsewhere(spoilt_set, capsys):
    line = ["suspects", "set", "--predictions", "made", "--json", "s.json", "--html", "s.html"]
    assert main(line) == 0
    (found,) = json.loads((spoilt_set / "s.json").read_text())
    assert (found["rank"], found["image"]) == (1, "im3")
    box = found["box"]
    assert (box["height"], box["width"]) == (20, 20)
    out = capsys.readouterr().out
    assert "im3" in out
    assert "400 pixels of ground" in out
    assert re.search(r"\d+ to \d+ +\d+ to \d+", out)  # rows, columns
    assert (spoilt_set / "s.html").read_text().count("<figure>") == 1
    assert main(line) == 2  # nothing is replaced unasked
    assert main([*line, "--overwrite"]) == 0


def test_the_command_says_so_where_nothing_is_suspected(spoilt_set, capsys):
    shutil.rmtree("set/masks")
    shutil.copytree("made", "set/masks")
    assert main(["suspects", "set", "--predictions", "made"]) == 0
    assert "Nothing speaks against any of them" in capsys.readouterr().out


def test_the_command_reads_a_run_with_folds(spoilt_set, capsys):
    patches = unetseg.PatchSettings(size=32, per_image=2)
    cross_validate(
        *("set",), folds=2, patches=patches, width=2, depth=1, epochs=1, batch_size=8, device="cpu"
    )
    found = load_cross_validation()
    expected = rank_suspects(map(found.scored_image, range(8)), found.scores.classes)
    assert main(["suspects", "--json", "s.json", "--n", "1"]) == 0
    ranked = json.loads((spoilt_set / "s.json").read_text())
    assert [s["image"] for s in ranked] == [s.name for s in expected]
    assert len(ranked) > 1
    assert f"{len(ranked) - 1} more are not shown" in capsys.readouterr().out
    assert main(["suspects", "--ignore", "255"]) == 2
    assert "--ignore" in capsys.readouterr().err


def test_a_run_without_folds_is_refused_with_the_line_to_type(home, capsys):
    assert main(["suspects"]) == 2
    error = capsys.readouterr().err
    assert "made by a model that saw them" in error
    assert "unetseg train FOLDER --folds 5" in error


def test_a_run_that_is_not_there_is_refused(empty, capsys):
    assert main(["suspects", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
