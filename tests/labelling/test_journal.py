"""Strokes in a journal: whole ones come back, torn ones do not, damage is said."""

import os

import numpy as np
import pytest

from unetseg import files
from unetseg.errors import InputError, MachineError
from unetseg.labelling.journal import Journal, Stroke


def stroke(number, size=3):
    return Stroke(f"s{number}", number, 2, np.full((size, size + 1), number, np.uint8))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "im.strokes")
    for number in range(3):
        journal.append(stroke(number))
    return journal


def seen(path):
    return [(s.id, s.x, s.y, s.labels.tolist()) for s in Journal(path).strokes()]


def test_strokes_come_back_in_their_order(journal):
    due = [(s.id, s.x, s.y, s.labels.tolist()) for s in map(stroke, range(3))]
    assert seen(journal.path) == due
    assert Journal(journal.path).size == journal.size == journal.path.stat().st_size


def test_a_journal_cut_anywhere_gives_the_whole_records_before(journal):
    data = journal.path.read_bytes()
    ends = [0]
    for number in range(3):
        one = Journal(journal.path.with_name("one"))
        one.append(stroke(number))
        ends.append(ends[-1] + one.size)
        one.remove()
    assert ends[-1] == len(data)
    for length in range(len(data)):
        journal.path.write_bytes(data[:length])
        assert len(seen(journal.path)) == sum(end <= length for end in ends[1:])


def test_every_flipped_bit_is_noticed(journal):
    data = bytearray(journal.path.read_bytes())
    before = seen(journal.path)
    for place in range(len(data)):
        damaged = data.copy()
        damaged[place] ^= 1 << place % 8
        journal.path.write_bytes(damaged)
        try:
            found = seen(journal.path)
        except InputError as error:
            assert "im.strokes: damaged" in str(error)  # noqa: PT017
        else:  # it looks like a torn end
            assert found == before[:2]


def test_a_disk_that_is_full_leaves_the_journal_as_it_was(journal, monkeypatch):
    before, size = journal.path.read_bytes(), journal.size
    write = os.write

    def full(descriptor, data):
        write(descriptor, bytes(data[:5]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", full)
        with pytest.raises(MachineError, match="the disk is full"):
            journal.append(stroke(7))
    assert journal.path.read_bytes() == before
    assert journal.size == size
    journal.append(stroke(8))
    assert [s[0] for s in seen(journal.path)] == ["s0", "s1", "s2", "s8"]


def test_a_journal_that_cannot_be_removed_is_said_and_stays(journal, monkeypatch):
    def refused(*_, **__):  # as on Windows, where another program reads the file
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(type(journal.path), "unlink", refused)
        with pytest.raises(MachineError, match="no permission"):
            journal.remove()
    assert journal.size == journal.path.stat().st_size > 0


def test_a_removed_journal_is_empty(journal):
    journal.remove()
    assert seen(journal.path) == []
    journal.remove()
    journal.append(stroke(1))
    assert len(seen(journal.path)) == 1


@pytest.mark.parametrize(
    ("x", "y", "shape", "fits"),
    [(0, 0, (5, 4), True), (1, 0, (5, 4), False), (0, 1, (5, 4), False), (2, 3, (2, 2), True),
     (0, 0, (0, 4), False), (0, 0, (5, 0), False), (10**9, 0, (1, 1), False)],
)  # fmt: skip
def test_a_stroke_fits_where_all_of_it_is_inside(x, y, shape, fits):
    assert Stroke("", x, y, np.zeros(shape, np.uint8)).fits((5, 4)) is fits
