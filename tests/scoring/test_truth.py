"""True masks: by which classes they are read, and refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.dataset.test_findings import on_map, photographs
from tests.support import NAMES, QUICK, draw, read, said, write_set
from unetseg.cli.app import main
from unetseg.dataset.naming import Pair
from unetseg.dataset.pairing import read_set
from unetseg.errors import InputError


def test_ignored_values_are_left_out_of_a_models_score_too(home):
    everything = unetseg.evaluate().scores.confusion
    found = unetseg.evaluate(ignore=(1,)).scores.confusion
    np.testing.assert_array_equal(found, everything * np.array([[1], [0], [1]]))
    shutil.rmtree("data/test")
    with pytest.raises(InputError, match="ignore: is for a folder of true masks"):
        unetseg.evaluate(ignore=(1,))


def test_classes_beside_the_masks_may_stand_in_another_order(home):
    swapped = [("stripe", 7), ("ground", 3), ("square", 200)]
    text = "".join(f'[[class]]\nname = "{n}"\nvalue = {v}\n' for n, v in swapped)
    before = unetseg.evaluate().scores
    Path("data/test/classes.toml").write_text(text)
    value_of = dict(swapped)
    for path in Path("data/test/masks").iterdir():
        values = np.array([value_of[name] for name in NAMES], np.uint8)
        Image.fromarray(values[read(path)]).save(path)
    found = unetseg.evaluate().scores
    assert found.classes == NAMES
    np.testing.assert_array_equal(found.confusion, before.confusion)


def write_shapes(folder, count, labels):
    """Write images with LabelMe files: a polygon of "block", and lines of the other labels."""
    folder = Path(folder)
    folder.mkdir()
    for k in range(count):
        Image.fromarray(draw(k)[0][..., 0]).save(folder / f"im{k}.png")
        shapes = [("block", "polygon", [[5, 5], [25, 5], [25, 25], [5, 25]])]
        shapes += [(name, "line", [[4, 30 + 9 * n], [50, 30 + 9 * n]]) for n, name in labels]
        listed = [{"label": n, "shape_type": kind, "points": p} for n, kind, p in shapes]
        about = {"imagePath": f"im{k}.png", "imageHeight": 64, "imageWidth": 56, "shapes": listed}
        (folder / f"im{k}.json").write_text(json.dumps(about))
    return folder


def test_lines_are_as_wide_in_scores_as_in_training_unless_another_width_is_given(empty):
    write_shapes("set", 6, [(0, "crack"), (1, "joint")])
    patches = unetseg.PatchSettings(size=32, per_image=4, line_width=5)
    unetseg.train("set", patches=patches, **QUICK)
    found, text = said(lambda p: unetseg.evaluate("set", include_trained=True, on_progress=p))
    assert found.scores.pixels["crack"] == found.scores.pixels["joint"] > 6 * 5 * 46
    assert "left out" not in text
    thin = unetseg.evaluate("set", include_trained=True, line_width=1).scores.pixels
    assert 6 * 46 <= thin["crack"] < found.scores.pixels["crack"] / 4
    unetseg.predict("set", out="made")
    given = {"predictions": "made", "model": "default", "include_trained": True}
    assert unetseg.evaluate("set", **given).scores.pixels == found.scores.pixels
    both = unetseg.compare("default", "made", "set", include_trained=True)
    assert both.scores_a.pixels == both.scores_b.pixels == found.scores.pixels
    words = ["evaluate", "set", "--include-trained", "--line-width", "1", "--json", "s.json"]
    assert main(words) == 0
    scored = np.array(json.loads(Path("s.json").read_text())["confusion"])
    assert scored[2].sum() == thin["crack"]
    with pytest.raises(InputError, match="line_width: 0 is out of range"):
        unetseg.evaluate("set", line_width=0)
    with pytest.raises(InputError, match="line_width: is for a folder of true masks"):
        unetseg.evaluate(line_width=3)


def test_shapes_may_lack_a_class_of_the_model_and_others_are_refused_by_their_folder(empty):
    write_shapes("set", 6, [(0, "crack"), (1, "joint")])
    patches = unetseg.PatchSettings(size=32, per_image=4, line_width=5)
    unetseg.train("set", patches=patches, **QUICK)
    write_shapes("few", 2, [(1, "joint")])
    scores = unetseg.evaluate("few", include_trained=True).scores
    assert scores.classes == ("background", "block", "crack", "joint")
    assert scores.pixels["crack"] == 0 < scores.pixels["joint"]
    file = Path("few/im0.json")
    about = json.loads(file.read_text())
    inside = {"label": "joint", "points": [[9, 9], [15, 9], [15, 15]], "shape_type": "polygon"}
    file.write_text(json.dumps(about | {"shapes": [inside, *about["shapes"]]}))
    covered, text = said(lambda p: unetseg.evaluate("few", include_trained=True, on_progress=p))
    assert "shapes that others cover wholly are in no mask: 1 of 'joint' in 1 image" in text
    assert covered.scores.pixels == scores.pixels
    write_shapes("other", 2, [(1, "root")])
    with pytest.raises(InputError, match=r"^other: names .*root; the model knows .*joint"):
        unetseg.evaluate("other")


def test_shapes_are_drawn_once_for_their_classes_and_for_those_that_others_cover(
    empty, monkeypatch
):
    write_shapes("set", 3, [(0, "crack"), (1, "joint")])
    labelled, made = read_set("set", line_width=5), Path("made")
    made.mkdir()
    for pair in labelled.pairs:
        Image.fromarray(pair.labels(labelled.classes)).save(made / f"{pair.name}.png")
    drawn, read_shapes = [], Pair.read_shapes
    monkeypatch.setattr(
        Pair, "read_shapes", lambda pair, s: drawn.append(pair.name) or read_shapes(pair, s)
    )
    found = unetseg.evaluate("set", predictions="made", line_width=5)
    assert drawn == list(found.subject.names)
    assert found.scores.mean_iou == 1


def test_classes_beside_the_masks_that_name_others_are_refused(home):
    path = Path("data/test/classes.toml")
    path.write_text(path.read_text().replace("stripe", "strip"))
    with pytest.raises(InputError, match="the model knows ground, square, stripe"):
        unetseg.evaluate()


@pytest.mark.parametrize("ignore", ["ignore = [255]\n", ""])
def test_black_and_white_masks_are_refused_where_white_is_no_class_of_the_model(
    empty, capsys, ignore
):
    toml = ignore + "".join(
        f'[[class]]\nname = "{name}"\nvalue = {v}\n' for v, name in enumerate("ab")
    )
    patches = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.train(write_set("set", 6, values=(0, 1, 0), toml=toml), patches=patches, **QUICK)
    write_set("raw", 2, first=9, values=(0, 255, 0), toml="")
    rule = "is ignored by the model" if ignore else "is no class of the model"
    assert main(["evaluate", "raw"]) == 2
    assert capsys.readouterr().err.endswith(
        f"raw: 255 {rule}, and these masks hold 0 and 255 alone; if 255 is a class, list a as "
        "value 0 and b as value 255 in a file for --classes; else --ignore 255\n"
    )
    unetseg.predict("raw", out="made")
    with pytest.raises(InputError, match=f"255 {rule}"):
        unetseg.evaluate("raw", predictions="made", model="default")
    Path("mine.toml").write_text(
        '[[class]]\nname = "a"\nvalue = 0\n[[class]]\nname = "b"\nvalue = 255\n'
    )
    truth = sum(int((draw(k)[1] == 1).sum()) for k in (9, 10))
    assert unetseg.evaluate("raw", classes="mine.toml").scores.pixels["b"] == truth
    found, text = said(lambda p: unetseg.evaluate("raw", ignore=255, on_progress=p))
    assert found.scores.pixels["b"] == 0
    assert "no true mask shows b: the scores say nothing of how it is found" in text
    write_set("both", 2, first=9, values=(0, 255, 1), toml="")
    if ignore:
        assert unetseg.evaluate("both").scores.pixels["b"] > 0


def test_raw_masks_of_a_model_of_converted_ones_are_converted_as_they_were(empty, capsys):
    unetseg.convert_folder(write_set("set", 6, values=(0, 255, 0), toml=""), "set-converted")
    patches = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.train("set-converted", patches=patches, **QUICK)
    write_set("raw", 2, first=9, values=(0, 255, 0), toml="")
    assert main(["evaluate", "raw"]) == 2
    line = "unetseg convert raw raw-converted"
    assert f"if 255 is a class, convert them: {line} (--fov FOLDER)" in capsys.readouterr().err
    assert main(line.split()[1:]) == 0
    truth = sum(int((draw(k)[1] == 1).sum()) for k in (9, 10))
    assert unetseg.evaluate("raw-converted").scores.pixels["foreground"] == truth


def test_masks_of_the_field_of_view_are_refused_as_check_refuses_them(empty):
    patches = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.train(photographs(Path("set")), patches=patches, **QUICK)
    y, x = np.ogrid[:96, :96]
    view = ((y - 48) ** 2 + (x - 48) ** 2 <= 44**2) * np.uint8(255)
    for path in photographs(Path("views"), count=6).glob("masks/*.png"):
        Image.fromarray(view).save(path)
    unetseg.predict("views/images", out="made")
    (error,) = unetseg.inspect_folder("views").errors
    for how in ({}, {"predictions": "made"}, {"predictions": "made", "model": "default"}):
        with pytest.raises(InputError) as caught:
            unetseg.evaluate("views", include_trained=True, **how)
        assert str(caught.value) == str(error)
    assert unetseg.evaluate("set", include_trained=True).total == 4


def test_a_true_mask_that_lies_elsewhere_on_the_map_is_refused(home):
    for kind, west in (("images", 0.0), ("masks", 6.0)):
        path = Path("data/test", kind, "im101.png")
        on_map(path, read(path), west=500_000 + west)
        path.unlink()
    with pytest.raises(InputError, match=r"masks/im101.tif: lies up to 12 pixels from its image"):
        unetseg.evaluate()


def test_an_image_and_a_mask_of_other_sizes_are_named(home):
    image, _ = draw(1, shape=(40, 40))
    Image.fromarray(image[..., 0]).save("data/test/images/im101.png")
    with pytest.raises(InputError, match=r"im101.png: .*64 x 56.*40 x 40"):
        unetseg.evaluate()
