"""Records that are JSON: round trips, and refusals in one line."""

import json
import math
from dataclasses import FrozenInstanceError
from typing import Literal

import numpy as np
import pytest
from pydantic import StrictBool
from pydantic.dataclasses import dataclass

from unetseg.classes import table_of
from unetseg.errors import InputError
from unetseg.records import Classes, Count, IntArray, Number, Positive, Text, read_record, to_plain


@dataclass(frozen=True)
class Part:
    name: Text
    split: Literal["train", "val"]


@dataclass(frozen=True)
class Whole:
    count: Count
    mean: tuple[Number, ...]
    std: Positive
    parts: tuple[Part, ...]
    table: Classes
    done: StrictBool = False

    def __post_init__(self):
        if self.done and not self.parts:
            raise ValueError("done without parts")


GOOD = Whole(3, (1, -2.5), 0.5, (Part("\udc80.png", "val"),), table_of([0, 7], (255,)))


def test_a_record_comes_back_from_its_json_also_with_a_name_that_is_no_utf_8():
    data = json.loads(json.dumps(to_plain(GOOD)))
    assert data["parts"] == [{"name": "\udc80.png", "split": "val"}]
    assert data["table"] == GOOD.table.to_dict()
    assert read_record(Whole, data, "whole") == GOOD


def test_keys_of_a_later_version_are_left_out_and_those_with_a_default_may_be_missing():
    data = to_plain(GOOD) | {"later": 1}
    del data["done"]
    assert read_record(Whole, data, "whole") == GOOD


def test_a_record_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GOOD.count = 4


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"count": True}, "count is True, not a whole number"),
        ({"count": 1.0}, "count is 1.0, not a whole number"),
        ({"count": -1}, "count is -1, not at least 0"),
        ({"mean": [1, math.nan]}, "mean.1 is nan, not a finite number"),
        ({"mean": [json.loads("1e400")]}, "mean.0 is inf, not a finite number"),
        ({"mean": ["1"]}, "mean.0 is '1', not a finite number"),
        ({"mean": [False]}, "mean.0 is False, not a finite number"),
        ({"mean": 5}, "mean is 5, not a list"),
        ({"std": 0}, "std is 0, not above 0"),
        ({"std": 10**400}, f"std is 1{'0' * 39}, not a finite number"),
        ({"parts": [3]}, "parts.0 is 3, not a table"),
        ({"parts": [{"name": 1, "split": "val"}]}, "parts.0.name is 1, not a text"),
        ({"parts": [{"name": "a", "split": 2}]}, "parts.0.split is 2, not 'train' or 'val'"),
        ({"parts": [{"name": "a"}]}, "parts.0.split is missing"),
        ({"table": {"classes": [], "ignore": []}}, "0 found"),
        ({"done": 1}, "done is 1, not true or false"),
        ({"done": True, "parts": []}, "done without parts"),
    ],
)
def test_a_value_that_does_not_fit_is_named(changes, problem):
    with pytest.raises(InputError) as caught:
        read_record(Whole, to_plain(GOOD) | changes, "whole")
    assert caught.value.problem == problem


def test_a_fault_without_words_of_its_own_is_refused_too():
    @dataclass(frozen=True)
    class Timed:
        pair: tuple[int, int]

    with pytest.raises(InputError, match=r"timed: pair: "):
        read_record(Timed, {"pair": [1, 2, 3]}, "timed")


@pytest.mark.parametrize("data", [[1], 3, None, "x"])
def test_json_that_is_no_table_is_refused(data):
    with pytest.raises(InputError, match=r"whole: the whole is .*, not a table"):
        read_record(Whole, data, "whole")


def test_arrays_of_counts_are_lists_in_json():
    @dataclass(frozen=True)
    class Areas:
        areas: tuple[IntArray, ...]

    areas = Areas((np.array([1, 2]), np.zeros(0, np.int64)))
    assert to_plain(areas) == {"areas": ([1, 2], [])}
    found = read_record(Areas, {"areas": [[1, 2], []]}, "areas").areas
    assert [a.tolist() for a in found] == [[1, 2], []]
    assert all(a.dtype == np.int64 for a in found)
    for bad in ([1.5], ["x"], [True], [10**400], [[1], [2, 3]]):
        with pytest.raises(InputError):
            read_record(Areas, {"areas": [bad]}, "areas")
