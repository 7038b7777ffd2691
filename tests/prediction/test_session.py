"""The course of a prediction: batches, failures, stops, reports, and the result."""

import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import unetseg
from tests.support import (
    QUICK,
    draw,
    read,
    with_card,
    write_image,
    write_set,
    write_tiff,
)
from unetseg import files
from unetseg.cli.app import main
from unetseg.errors import Code, InputError, Interrupted, MachineError
from unetseg.pictures import writing
from unetseg.prediction import segmenter, session
from unetseg.prediction.model import ModelInput
from unetseg.prediction.model_file import load_model
from unetseg.prediction.summary import read_summary, summarised
from unetseg.progress import Note, Progress
from unetseg.signals import Caught

IMAGES = Path("data/test/images")


def cover(image, mean, std, network, size, stride):
    """Return class probabilities of an image (H, W, C), window by window, uniformly weighted."""
    height, width = image.shape[:2]
    total, seen = 0.0, np.zeros((height, width))
    rows = [*range(0, height - size, stride), height - size]
    columns = [*range(0, width - size, stride), width - size]
    for row in rows:
        for column in columns:
            window = image[row : row + size, column : column + size]
            batch = torch.from_numpy((window - mean) / std).permute(2, 0, 1)[None].float()
            with torch.inference_mode():
                shares = network(batch).softmax(1)[0].numpy()
            whole = np.zeros((len(shares), height, width))
            whole[:, row : row + size, column : column + size] = shares
            total = total + whole
            seen[row : row + size, column : column + size] += 1
    return total / seen


def test_mask_is_that_of_a_slow_walk_over_all_windows(home):
    settings = unetseg.PredictSettings(stride="12", weights="uniform")
    model = unetseg.Model(["default"], settings)
    done = unetseg.predict([IMAGES / "im100.png"], settings=settings)
    image = read(IMAGES / "im100.png")[..., None].astype(np.float64)
    card, (network,) = model.card, model.segmenter.networks
    slow = cover(image, card.mean, card.std, network, card.patch_size, 12)
    top = np.sort(slow, 0)
    sure = top[-1] - top[-2] > 1e-4  # elsewhere rounding may decide
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(read(done.written[0])[sure], slow.argmax(0)[sure])


def test_predictions_are_better_than_guessing(home):
    done = unetseg.predict([IMAGES])
    for path in done.written:
        truth = read(Path("data/test/masks") / path.name)
        assert (read(path) == truth).mean() > 0.85


def test_an_input_that_must_not_be_read_is_one_that_failed(home, monkeypatch):
    opened = files.open_regular

    def refuse(path):  # a closed file would open to root
        if Path(path) == IMAGES / "im101.png":
            raise MachineError(path, "no permission to read it")
        return opened(path)

    monkeypatch.setattr(files, "open_regular", refuse)
    done = unetseg.predict([IMAGES])
    assert [p.name for p in done.written] == ["im100.png", "im102.png"]
    assert [(p.name, e.exit_code) for p, e in done.failed] == [("im101.png", 3)]


def test_what_cannot_be_written_ends_the_work(home, monkeypatch):
    def refuse(path, data):
        raise MachineError(path, "not written: the disk is full")

    monkeypatch.setattr(files, "write_bytes", refuse)
    with pytest.raises(MachineError, match="the disk is full"):
        unetseg.predict([IMAGES])


def test_transparency_is_said_to_be_left_out_once(home):
    Path("clear").mkdir()
    for k in (1, 2):
        Image.fromarray(read(IMAGES / "im100.png")).convert("LA").save(f"clear/{k}.png")
    seen = []
    unetseg.predict(["clear"], on_progress=seen.append)
    assert [str(r) for r in seen if "transparency" in str(r)] == [
        f"{Path('clear/1.png')}: transparency is left out; wholly transparent pixels are ignored"
    ]


def test_no_model_is_an_error(home):
    with pytest.raises(InputError, match="model: none is named"):
        unetseg.predict([IMAGES], model=())


def test_one_bad_image_of_three_is_named_and_the_rest_are_done(home):
    (IMAGES / "im101.png").write_bytes((IMAGES / "im101.png").read_bytes()[:60])
    done = unetseg.predict([IMAGES])
    assert [p.name for p in done.written] == ["im100.png", "im102.png"]
    ((path, error),) = done.failed
    assert path == IMAGES / "im101.png"
    assert "im101.png" in str(error)
    assert not Path("predictions/im101.png").exists()


@pytest.mark.parametrize(
    ("look", "problem"),
    [
        ({"channels": 3}, "channels"),
        ({"channels": 5}, "channels"),
        ({"dtype": np.float32}, "was trained on 8 bits"),
    ],
)
def test_an_image_unlike_those_trained_on_is_refused(home, look, problem):
    image, _ = draw(5, **look)
    path = write_image(Path("odd"), image)
    done = unetseg.predict([path, IMAGES / "im100.png"])
    assert len(done.written) == 1
    assert problem in str(done.failed[0][1])


def test_equal_channels_are_understood_and_other_bits_where_they_are_meant(home):
    grey = read(IMAGES / "im100.png")
    unetseg.predict([IMAGES / "im100.png"])
    write_image(Path("rgb"), np.repeat(grey[..., None], 3, 2))
    write_image(Path("deep"), grey[..., None].astype(np.uint16) * 257)
    done = unetseg.predict(["rgb.png", "deep.tif"])
    assert [path.name for path, _ in done.failed] == ["deep.tif"]
    assert "has 16 bits, the model was trained on 8 bits" in str(done.failed[0][1])
    unetseg.predict(["deep.tif"], settings=unetseg.PredictSettings(convert_depth=True))
    for name in ("rgb", "deep"):
        np.testing.assert_array_equal(
            read(f"predictions/{name}.png"), read("predictions/im100.png")
        )


def test_one_channel_of_a_composite_is_taken_where_one_was_trained_on(home):
    grey = read(IMAGES / "im100.png")
    unetseg.predict([IMAGES / "im100.png"])
    composite = np.stack([255 - grey, grey, grey // 2], 2)
    write_image(Path("composite"), composite)
    done = unetseg.predict(["composite.png"])
    assert "has 3 channels where one is due" in str(done.failed[0][1])
    unetseg.predict(["composite.png"], settings=unetseg.PredictSettings(channels="1"))
    np.testing.assert_array_equal(read("predictions/composite.png"), read("predictions/im100.png"))
    model = unetseg.Model(["default"])
    with pytest.raises(InputError, match="has 3 channels where one is due"):
        model.labels(composite)
    with pytest.raises(InputError, match="16 bits"):
        model.labels(grey[..., None].astype(np.uint16))


def test_predict_takes_the_channels_that_the_model_was_trained_on(home):
    write_set("three", 6, channels=3)
    unetseg.train(
        "three", run="two", patches=unetseg.PatchSettings(size=32, channels="2,0"), **QUICK
    )
    model = unetseg.Model(["two"])
    assert (model.card.channels, model.selection.channels) == (2, (2, 0))
    image = read("three/images/im0.png")
    np.testing.assert_array_equal(model.read(Path("three/images/im0.png")), image[..., [2, 0]])
    assert len(unetseg.predict(["three"], model=["two"]).written) == 6


def test_overlays_are_drawn_for_up_to_20_images(home, monkeypatch):
    assert len(unetseg.predict([IMAGES]).overlays) == 3
    overlay = read("predictions/overlays/im100.png")
    assert overlay.shape[2] == 3
    assert overlay.shape[0] >= 64
    monkeypatch.setattr(session, "_OVERLAYS", 2)
    assert unetseg.predict([IMAGES], out="many").overlays == ()
    assert not Path("many/overlays").exists()
    assert len(unetseg.predict([IMAGES], out="many", overlay=True).overlays) == 3
    assert unetseg.predict([IMAGES], out="none", overlay=False).overlays == ()


def test_a_model_trained_on_scaled_images_predicts_at_full_size(home):
    patches = unetseg.PatchSettings(size=16, per_image=8, scale=0.5)
    unetseg.train("data/train", run="half", patches=patches, **{**QUICK, "epochs": 3})
    done = unetseg.predict([IMAGES / "im100.png"], model=["half"], probabilities=True)
    assert read(done.written[0]).shape == (64, 56)
    shares = tifffile.imread("predictions/probabilities/im100.tif")
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)


def test_several_models_are_averaged(home):
    unetseg.train(run="trained", **{**QUICK, "epochs": 3, "seed": 9})
    with_card("default", "one", temperature=1.0)
    with_card("trained", "two", temperature=1.0)
    for models, out in ((["one"], "a"), (["two"], "b"), (["one", "two"], "both")):
        unetseg.predict([IMAGES / "im100.png"], model=models, out=out, probabilities=True)
    one, two, both = (
        tifffile.imread(f"{out}/probabilities/im100.tif") for out in ("a", "b", "both")
    )
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)


def test_a_temperature_scales_probabilities_and_leaves_the_mask(home):
    with_card("default", "plain", temperature=1.0)
    with_card("default", "soft", temperature=2.5)
    image = [IMAGES / "im100.png"]
    for run in ("plain", "soft"):
        unetseg.predict(image, model=[run], out=run, probabilities=True)
    plain, soft = (tifffile.imread(f"{r}/probabilities/im100.tif") for r in ("plain", "soft"))
    powers = plain.astype(float).clip(1e-7) ** (1 / 2.5)
    np.testing.assert_allclose(soft, powers / powers.sum(0), atol=1e-5)
    np.testing.assert_array_equal(read("plain/im100.png"), read("soft/im100.png"))
    unetseg.predict(image, model=["soft"], out="labels", overlay=False)
    np.testing.assert_array_equal(read("labels/im100.png"), read("soft/im100.png"))


def test_an_ensemble_has_the_mean_temperature_and_each_network_its_own_normalisation(home):
    first = unetseg.Model(["default"]).card
    with_card("default", "a", temperature=1.0)
    with_card("default", "b", temperature=3.0, mean=(first.mean[0] + 200,), std=(first.std[0] / 2,))
    both = unetseg.Model(["a", "b"])
    assert both.segmenter.temperature == 2.0
    image = both.read(IMAGES / "im100.png")
    each = []
    for run in ("a", "b"):
        one = unetseg.Model([run])
        one.segmenter.temperature = 1.0
        each.append(one.probabilities(image))
    assert np.abs(each[0] - each[1]).max() > 0.1
    powers = np.mean(each, 0, dtype=float).clip(1e-7) ** 0.5
    found = both.probabilities(image)
    np.testing.assert_allclose(found, powers / powers.sum(0), atol=1e-5)


def test_labels_come_with_the_probability_of_each(home):
    model = unetseg.Model(["default"])
    image = model.read(IMAGES / "im100.png")
    labels, confidence = model.labels_and_confidence(image)
    np.testing.assert_array_equal(labels, model.labels(image))
    np.testing.assert_array_equal(confidence, model.probabilities(image).max(0))


def test_models_that_do_not_go_together_are_refused(home):
    write_set("two", 4, values=(0, 1, 1), toml=None)
    patches = unetseg.PatchSettings(size=32, per_image=2)
    unetseg.train("two", run="two", patches=patches, **{**QUICK, "epochs": 1})
    with pytest.raises(InputError, match="another classes than"):
        unetseg.predict([IMAGES], model=["default", "two"])


def test_mirror_images_are_averaged(home):
    settings = unetseg.PredictSettings(tta=True, stride="100%", weights="uniform")
    with_card("default", "plain", temperature=1.0)
    model = unetseg.Model(["plain"], settings)
    views = {(), *model.segmenter.views}
    assert views <= {(), (-1,), (-2,), (-2, -1)}
    image = read(IMAGES / "im100.png")[:32, :32, None]
    card, (network,) = model.card, model.segmenter.networks
    expected = 0.0
    for axes in model.segmenter.views:
        numpy_axes = tuple(a + 2 for a in axes)  # of (H, W, C)
        seen = np.flip(image, numpy_axes).astype(np.float64)
        expected = expected + np.flip(
            cover(seen, card.mean, card.std, network, 32, 32), tuple(a + 3 for a in axes)
        )
    expected /= len(model.segmenter.views)
    np.testing.assert_allclose(model.probabilities(image), expected, atol=1e-5)


def test_an_unknown_model_lists_the_runs_there_are(home):
    with pytest.raises(InputError, match="runs there are: default"):
        unetseg.predict([IMAGES], model=["wide"])


def test_a_stopped_prediction_is_finished_by_the_same_line(home, monkeypatch):
    seen = []
    check = Caught.check

    def stop_before_third(self, what, remedy):
        seen.append(what)
        if len(seen) == 5:  # looked at before each image, and after each band of rows
            raise Interrupted(2, what, "stopped", remedy)
        check(self, what, remedy)

    monkeypatch.setattr(Caught, "check", stop_before_third)
    with pytest.raises(Interrupted, match="run the same line again"):
        unetseg.predict([IMAGES])
    done = unetseg.predict([IMAGES])
    assert (len(done.skipped), len(done.written)) == (2, 1)


def test_a_model_says_what_it_is(home):
    text = str(unetseg.Model(["default"], unetseg.PredictSettings()))
    assert text.startswith("runs/default/model.safetensors (compact, trained ")
    assert text.endswith("on 9 images)")


# --- modes, large images, further pictures -----------------------------------------------------


def test_a_seamless_mask_is_that_of_one_pass_over_the_image(home):
    settings = unetseg.PredictSettings(mode="seamless")
    model = unetseg.Model(["default"], settings)
    done = unetseg.predict([IMAGES / "im100.png"], settings=settings)
    image = read(IMAGES / "im100.png")[..., None].astype(np.float32)
    network, card = load_model("runs/default/model.safetensors")
    batch = torch.from_numpy((image - np.array(card.mean)) / np.array(card.std)).float()
    with torch.inference_mode():
        whole = network.eval()(batch.permute(2, 0, 1)[None]).softmax(1)[0].numpy()
    top = np.sort(whole, 0)
    sure = top[-1] - top[-2] > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(read(done.written[0])[sure], whole.argmax(0)[sure])
    assert model.segmenter.stride is None


def test_by_default_two_passes_are_averaged_the_second_over_the_moved_image(home):
    with_card("default", "plain", temperature=1.0)
    once = unetseg.Model(["plain"], unetseg.PredictSettings(mode="seamless"))
    image = read(IMAGES / "im100.png")[..., None]
    moved = np.pad(image, [(5, 0), (11, 0), (0, 0)], mode="symmetric")
    first, second = (once.probabilities(x) for x in (image, moved))
    found = unetseg.Model(["plain"]).probabilities(image)
    np.testing.assert_allclose(found, (first + second[:, 5:, 11:]) / 2, atol=1e-5)


def test_the_median_area_is_shown_in_the_unit_of_the_table_where_all_images_have_one(home):
    pixels, metadata = draw(3)[0][..., 0], {"unit": "um"}
    tifffile.imwrite("sized.tif", pixels, imagej=True, resolution=(2, 2), metadata=metadata)
    done = unetseg.predict(["sized.tif"], objects="square")
    assert done.pixel_size == (0.5, 0.5, "µm")
    [cells] = [row for row in done.tables()[0].rows if row[0] == "square"]
    assert cells[3] == f"{done.medians['square'] / 4:,.4g} µm²"
    [record] = [row for row in done.records() if row["class"] == "square"]
    assert record["median_object_area"] == done.medians["square"] / 4
    both = unetseg.predict(["sized.tif", IMAGES / "im100.png"], out="both", objects="square")
    assert both.tables()[0].rows[1][3] == f"{both.medians['square']:,.0f} px"


def test_the_summary_keeps_the_rows_of_what_is_skipped_and_gains_new_ones(home):
    first = unetseg.predict([IMAGES / "im100.png"])
    before = read_summary(first.summary)
    unetseg.predict([IMAGES])
    after = read_summary(first.summary)
    assert after[:3] == before
    assert len(after) == 9


def test_a_prediction_that_is_stopped_has_the_summary_of_what_is_done(home, monkeypatch):
    predict_one, seen = session._Session._predict, []

    def stop_at_third(self, *arguments):
        seen.append(1)
        if len(seen) == 3:
            raise Interrupted(2, "predictions", "stopped", "again")
        predict_one(self, *arguments)

    monkeypatch.setattr(session._Session, "_predict", stop_at_third)
    with pytest.raises(Interrupted):
        unetseg.predict([IMAGES])
    assert {row[0] for row in read_summary(Path("predictions/summary.csv"))} == {
        "im100.png",
        "im101.png",
    }


def test_a_mask_of_a_killed_call_is_made_again_where_the_summary_lacks_it(home):
    done = unetseg.predict([IMAGES])
    whole = sorted(row[:3] for row in read_summary(done.summary))
    lines = done.summary.read_text().splitlines(keepends=True)
    done.summary.write_text("".join(line for line in lines if "im101" not in line))
    again = unetseg.predict([IMAGES])
    assert [path.name for path in again.written] == ["im101.png"]
    assert sorted(row[:3] for row in read_summary(done.summary)) == whole


def test_a_mask_of_a_killed_call_is_made_again_where_the_summary_is_of_the_one_before(home):
    first = unetseg.predict([IMAGES])
    old, whole = first.summary.read_bytes(), unetseg.PredictSettings(min_size=2000)
    before = first.summary.stat()
    unetseg.predict([IMAGES], settings=whole)
    new = sorted(row[:3] for row in read_summary(first.summary))
    first.summary.write_bytes(old)  # as a call leaves it that is killed
    os.utime(first.summary, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = unetseg.predict([IMAGES], settings=whole)
    assert len(again.written) == 3
    assert sorted(row[:3] for row in read_summary(first.summary)) == new


def test_a_result_without_a_written_mask_has_no_shares_and_no_counts(home):
    first, again = (unetseg.predict([IMAGES], objects="square") for _ in range(2))
    assert sum(first.shares.values()) == pytest.approx(1)
    assert (len(again.skipped), again.shares, again.counts, again.medians) == (3, {}, {}, {})
    assert again.tables()[0].rows == []
    assert "3 were there already" in again.tables()[0].note


def test_the_summary_is_written_from_time_to_time(home, monkeypatch):
    monkeypatch.setattr(session, "_UNTOLD", -1.0)
    predict_one, seen = session._Session._predict, []

    def look(self, turn):
        self.behind.wait()
        seen.append(summarised(Path("predictions/summary.csv")))
        predict_one(self, turn)

    monkeypatch.setattr(session._Session, "_predict", look)
    unetseg.predict([IMAGES])
    assert seen[-1] >= {"im100.png"}


def test_a_strangers_summary_is_not_replaced_without_overwrite(home):
    Path("predictions").mkdir()
    Path("predictions/summary.csv").write_text("my,own\n1,2\n")
    with pytest.raises(InputError, match=r"summary\.csv"):
        unetseg.predict([IMAGES])
    assert list(Path("predictions").iterdir()) == [Path("predictions/summary.csv")]
    assert len(unetseg.predict([IMAGES], overwrite=True).written) == 3


def test_a_class_that_the_model_does_not_know_is_refused_with_the_nearest(home):
    with pytest.raises(InputError, match=r"largest: 'squares' is no class.*'square'"):
        unetseg.Model(["default"], unetseg.PredictSettings(largest=("squares",)))


def test_pixels_that_prove_damaged_in_the_middle_fail_alone(home, monkeypatch):
    write_tiff("bad.tif", tile=(16, 16), compression="adobe_deflate")
    with tifffile.TiffFile("bad.tif") as tif:
        place = tif.pages.first.dataoffsets[-1]
    data = bytearray(Path("bad.tif").read_bytes())
    data[place : place + 8] = b"nonsense"
    Path("bad.tif").write_bytes(data)
    monkeypatch.setattr(session, "_AHEAD", 1000)
    done = unetseg.predict(["bad.tif", IMAGES / "im100.png"])
    assert [path for path, _ in done.failed] == [Path("bad.tif")]
    assert "bad.tif" in str(done.failed[0][1])
    assert [p.name for p in done.written] == ["im100.png"]
    assert not Path("predictions/bad.png").exists()


def test_progress_is_told_in_pixels_up_to_all_of_them(home):
    told = []
    unetseg.predict([IMAGES], on_progress=told.append)
    steps = [one for one in told if isinstance(one, Progress)]
    assert {one.unit for one in steps} == {"pixels"}
    assert {one.total for one in steps} == {3 * 64 * 56}
    assert [one.done for one in steps] == sorted(one.done for one in steps)
    assert steps[-1].done == steps[-1].total
    assert "image 3 of 3, im102.png" in steps[-1].detail


def test_an_image_unlike_the_training_images_is_named_with_what_is_unlike(home):
    image = read(IMAGES / "im100.png")
    Image.fromarray(255 - image).save("negative.png")
    Image.fromarray(image // 4).save("dark.png")
    told = []
    sources = [IMAGES / "im100.png", "negative.png", "dark.png"]
    done = unetseg.predict(sources, on_progress=told.append)
    assert [path.name for path, _ in done.unlike] == ["negative.png", "dark.png"]
    assert "darker" in dict(done.unlike)[Path("dark.png")]
    warned = [str(one) for one in told if isinstance(one, Note) and one.warning]
    assert len(warned) == 2
    assert warned[1].startswith("warning: dark.png is unlike the images trained on: ")
    assert len(done.written) == 3  # they are predicted all the same


def test_a_model_that_does_not_know_its_images_warns_of_none(home):
    with_card("default", "old", looks={})
    Image.fromarray(read(IMAGES / "im100.png") // 4).save("dark.png")
    assert unetseg.predict(["dark.png"], model=["old"]).unlike == ()


def test_of_many_images_only_those_at_hand_are_in_memory(home):
    for k in range(9):
        Image.fromarray(draw(k)[0][..., 0]).save(IMAGES / f"more{k}.png")
    most = 0

    def count(_):
        nonlocal most
        held = [o for o in gc.get_objects() if type(o) is ModelInput]
        most = max(most, sum(one._whole is not None for one in held))

    alone = unetseg.PredictSettings(batch_size=1)
    assert len(unetseg.predict([IMAGES], settings=alone, on_progress=count).written) == 12
    assert 1 <= most <= 4  # one read ahead, one computed, one written, one about to be let go


def draw_small(count):
    """Write ``count`` images of 32 x 32 and 40 x 32 pixels in turns into a folder."""
    Path("small").mkdir()
    for k in range(count):
        image = draw(k, (32 + 8 * (k % 2), 32))[0]
        Image.fromarray(image[..., 0]).save(f"small/{k:02}.png")
    return Path("small")


def test_of_many_small_images_only_those_of_the_batches_at_hand_are_in_memory(home, monkeypatch):
    monkeypatch.setattr(segmenter, "_TOGETHER", 3)
    most = 0

    def count(_):
        nonlocal most
        held = [o for o in gc.get_objects() if type(o) is ModelInput]
        most = max(most, sum(one._whole is not None for one in held))

    assert len(unetseg.predict([draw_small(30)], on_progress=count).written) == 30
    assert (
        3 <= most <= 10
    )  # three read ahead, three computed, three written, one about to be let go


def test_small_images_computed_together_have_the_masks_of_each_alone(home):
    folder = draw_small(9)
    (folder / "03.png").write_bytes(b"no image")
    Image.fromarray(draw(50)[0][..., 0]).save(folder / "05a.png")  # larger than the others
    unetseg.predict([folder / "01.png"], out="together")
    together = unetseg.predict([folder], out="together", confidence=True, probabilities=True)
    alone = unetseg.PredictSettings(batch_size=1)
    expected = unetseg.predict(
        [folder], out="alone", confidence=True, probabilities=True, settings=alone
    )
    names = [f"{name}.png" for name in ("00", "01", "02", "04", "05", "05a", "06", "07", "08")]
    assert [path.name for path in together.written] == names
    assert [path.name for path, _ in together.failed] == ["03.png"]
    for name in names:
        mask, other = (np.asarray(Image.open(f"{one}/{name}")) for one in ("together", "alone"))
        np.testing.assert_array_equal(mask, other)
    for name in (Path(name).stem for name in names):
        shares, other = (
            tifffile.imread(f"{one}/probabilities/{name}.tif") for one in ("together", "alone")
        )
        np.testing.assert_allclose(shares, other, atol=1e-6)
    assert together.shares == expected.shares


def test_small_images_are_told_in_order_and_one_that_is_done_is_left_out_of_a_batch(home):
    folder, told = draw_small(5), []
    unetseg.predict([folder / "02.png"])
    done = unetseg.predict([folder], on_progress=told.append)
    assert [path.stem for path in done.written] == ["00", "01", "03", "04"]
    assert [path.stem for path in done.skipped] == ["02"]
    progress = [record for record in told if isinstance(record, Progress)]
    assert [record.done for record in progress] == sorted(record.done for record in progress)
    assert list(dict.fromkeys(record.detail for record in progress)) == [
        f"image {k + 1} of 5, {k:02}.png" for k in range(5)
    ]


def test_what_cannot_be_written_is_the_fault_of_its_own_image(home, monkeypatch):
    def refuse(path, *rest):
        if "im101" in str(path):
            raise InputError(path, "is a folder", "choose another")
        write(path, *rest)

    write = writing.write_mask
    monkeypatch.setattr(writing, "write_mask", refuse)
    done = unetseg.predict([IMAGES])
    assert [path.name for path, _ in done.failed] == ["im101.png"]
    assert [path.name for path in done.written] == ["im100.png", "im102.png"]


def test_the_error_of_a_failed_input_names_it_whatever_is_at_fault(home, monkeypatch):
    def refuse(self, picture):
        raise InputError("the pixels", "damaged", "export it again", code=Code.NO_CLASSES)

    monkeypatch.setattr(unetseg.Model, "unlike", refuse)
    ((path, error), *_) = unetseg.predict([IMAGES]).failed
    assert str(error) == f"{path}: the pixels: damaged; export it again"
    assert error.code is Code.NO_CLASSES


def test_an_error_without_a_code_has_none_afterwards(home):
    (IMAGES / "im101.png").write_bytes(b"film")
    ((_, error),) = unetseg.predict([IMAGES]).failed
    assert error.code is None


def test_one_bad_image_is_told_once_and_of_several_it_is_said_how_many(home, capsys):
    Path("bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    Path("worse.png").write_bytes(b"film")
    assert main(["predict", "bad.png"]) == 2
    said = capsys.readouterr()
    assert said.err.count("not readable as PNG") == 1
    assert "Wrote" not in said.out
    assert main(["predict", "bad.png", "worse.png"]) == 2
    assert "all 2 images failed" in capsys.readouterr().err


def test_a_bad_mask_of_a_field_of_view_fails_its_image_alone(home):
    Path("fov").mkdir()
    names = [f"im{k}" for k in range(100, 105)]
    shutil.copytree(IMAGES, "more")
    for k in (103, 104):
        write_image(Path(f"more/im{k}"), draw(k)[0])
    for name in names:
        view = np.full((64, 56), 255, np.uint8)
        view[:5] = 0
        if name == "im104":
            view[20:30, 20:30] = 128
        Image.fromarray(view).save(f"fov/{name}.png")
    done = unetseg.predict("more", fov="fov")
    ((path, error),) = done.failed
    assert path.name == "im104.png"
    assert isinstance(error, InputError)
    assert len(read_summary(done.summary)) == 4 * 3
    assert len(unetseg.predict("more", fov="fov").skipped) == 4


@pytest.mark.parametrize("gone", ["objects/im101.csv", "objects/im101.geojson"])
def test_a_table_or_outlines_that_were_removed_are_made_again(home, gone):
    done = unetseg.predict(IMAGES, objects="square")
    before = done.objects.read_bytes()
    Path("predictions", gone).unlink()
    again = unetseg.predict(IMAGES, objects="square")
    assert [path.name for path in again.written] == ["im101.png"]
    assert Path("predictions", gone).exists()
    assert again.objects.read_bytes() == before
