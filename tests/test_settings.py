"""Settings are checked when they are made; durations and TOML go both ways."""

import dataclasses
import tomllib

import pytest

from unetseg.errors import InputError
from unetseg.files import read_toml
from unetseg.settings import (
    MODES,
    PatchSettings,
    PredictSettings,
    Selection,
    TrainSettings,
    parse_duration,
)
from unetseg.text import format_budget, format_duration, nearest, to_toml


@pytest.mark.parametrize(
    ("kind", "wrong", "option"),
    [
        (PatchSettings, {"size": 8}, "size"),
        (PatchSettings, {"per_image": 0}, "per_image"),
        (PatchSettings, {"val": 1.0}, "val"),
        (PatchSettings, {"val": -0.1}, "val"),
        (PatchSettings, {"scale": 0.0}, "scale"),
        (PatchSettings, {"scale": float("nan")}, "scale"),
        (PatchSettings, {"seed": -1}, "seed"),
        (PatchSettings, {"seed": 2**63}, "seed"),
        (PatchSettings, {"rare": 1.5}, "rare"),
        (PatchSettings, {"group": "(["}, "group"),
        (TrainSettings, {"epochs": 0}, "epochs"),
        (TrainSettings, {"epochs": 3, "budget": 60.0}, "epochs"),
        (TrainSettings, {"budget": 0.5}, "budget"),
        (TrainSettings, {"batch_size": 0}, "batch_size"),
        (TrainSettings, {"lr": 0.0}, "lr"),
        (TrainSettings, {"lr": float("inf")}, "lr"),
        (TrainSettings, {"weight_decay": -1.0}, "weight_decay"),
        (TrainSettings, {"optimizer": "adam"}, "optimizer"),
        (TrainSettings, {"schedule": "step"}, "schedule"),
        (TrainSettings, {"depth": 9}, "depth"),
        (TrainSettings, {"ema": 2.0}, "ema"),
        (TrainSettings, {"patience": 0}, "patience"),
        (PredictSettings, {"weights": "gauss"}, "weights"),
        (PredictSettings, {"batch_size": 0}, "batch_size"),
        (PredictSettings, {"mode": "fast"}, "mode"),
        (PredictSettings, {"min_size": -1}, "min_size"),
        (PredictSettings, {"page": -1}, "page"),
        (PredictSettings, {"stride": "half"}, "stride"),
        (PredictSettings, {"stride": "0"}, "stride"),
        (PredictSettings, {"stride": "120%"}, "stride"),
        (PredictSettings, {"stride": "-5"}, "stride"),
        (PredictSettings, {"stride": "1.5"}, "stride"),
    ],
)
def test_a_value_out_of_range_names_its_option(kind, wrong, option):
    with pytest.raises(InputError) as error:
        kind(**wrong)
    assert error.value.argument == option
    assert error.value.remedy


@pytest.mark.parametrize("kind", [PatchSettings, TrainSettings, PredictSettings])
def test_settings_are_frozen(kind):
    settings = kind()
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, name, 1)


@pytest.mark.parametrize(
    ("stride", "size", "pixels"),
    [
        ("48", 96, 48),
        ("50%", 96, 48),
        ("33%", 96, 32),  # 31.68
        ("100%", 64, 64),
        ("1%", 20, 1),  # at least a pixel
        ("500", 96, 96),  # more would leave gaps
        (" 12.5% ", 64, 8),
    ],
)
def test_stride_in_pixels(stride, size, pixels):
    assert PredictSettings(stride=stride).stride_for(size, True) == pixels


def test_half_a_window_is_the_stride_and_seamless_has_none():
    assert PredictSettings().stride_for(96, True) is None
    assert PredictSettings().stride_for(96, False) == 48
    assert PredictSettings(mode="blend").stride_for(96, True) == 48
    assert PredictSettings(mode="seamless").stride_for(96, True) is None
    assert [len(PredictSettings(mode=mode).shifts) for mode in MODES] == [2, 1, 1]
    with pytest.raises(InputError, match="does not say how far it sees"):
        PredictSettings(mode="seamless").stride_for(96, False)
    with pytest.raises(InputError, match="is for blended windows"):
        PredictSettings(mode="seamless", stride="48")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1.5h", 5400), ("45 sec", 45),
     ("1h1m1s", 3661), (" 2m ", 120), ("10 m", 600), ("10min", 600), ("1 Hour 30 minutes", 5400)],
)  # fmt: skip
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "ten", "-5s", "1d", "5m1h", "1e9s", "nan"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InputError, match="write 90s, 10m or 1h30m"):
        parse_duration(text)


def test_a_number_without_a_unit_is_asked_about():
    said = "'10' has no unit: seconds or minutes\\?; write 10s or 10m"
    with pytest.raises(InputError, match=said):
        parse_duration("10")


def test_a_budget_to_type_is_read_as_no_less_than_the_time_it_stands_for():
    assert [format_budget(s) for s in (0.2, 61, 91, 340, 3600, 5390)] == [
        *("5s", "65s", "2m", "6m", "1h", "1h30m")
    ]
    for seconds in (3.0, 61.0, 100.0, 3599.0, 86000.0):
        assert parse_duration(format_budget(seconds)) >= seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (8.4, "8 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"),
     (3900, "1 h 5 min"), (-3, "0 s")],
)  # fmt: skip
def test_durations_are_shown(seconds, text):
    assert format_duration(seconds) == text


def test_the_nearest_word_is_offered_where_one_is_near():
    assert nearest("epoch", ["epochs", "seed"]) == "did you mean 'epochs'? "
    assert nearest("zebra", ["epochs", "seed"]) == ""


def test_settings_survive_toml():
    values = {"lr": 1e-05, "loss": 'a "quoted" \\ name\n', "on": True, "n": 3, "names": ["a", "ü"]}
    text = to_toml("train", {**values, "batch_size": 8, "patience": None})
    assert tomllib.loads(text) == {"train": {**values, "batch-size": 8}}


def test_toml_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="not found"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("a = = 3")
    with pytest.raises(InputError, match=r"a.toml: not readable as TOML \(.*line 1"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(InputError, match="not readable as TOML"):
        read_toml(tmp_path / "b.toml")
    with pytest.raises(InputError, match="not readable as TOML"):
        read_toml(tmp_path)


def test_edges_to_ignore_are_counted_from_their_side():
    assert Selection(crop="bottom=64, left=5").inner(100, 50) == (slice(0, 36), slice(5, 50))
    assert Selection().inner(100, 50) == (slice(0, 100), slice(0, 50))
    assert Selection(crop="top=10,bottom=200").inner(100, 50)[0] == slice(10, 0)
    for wrong, text in (
        ("64", "names no edge"),
        ("botom=3", "did you mean 'bottom'"),
        ("top=", "names no edge"),
    ):
        with pytest.raises(InputError, match=text):
            Selection(crop=wrong)


def test_what_a_selection_leaves_open_is_taken_from_training():
    trained = Selection("max", (0, 2), "bottom=64")
    assert PredictSettings().selection.or_else(trained) == trained
    given = PredictSettings(page=3, channels="1").selection
    assert given.or_else(trained) == Selection(3, (1,), "bottom=64")
    for wrong in ("a", "0,", "0;1"):
        with pytest.raises(InputError, match="no numbers of channels"):
            PatchSettings(channels=wrong)
