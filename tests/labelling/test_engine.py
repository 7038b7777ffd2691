import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.support import draw, scribble, wait_until
from unetseg.classes import IGNORED
from unetseg.errors import InputError
from unetseg.features.head import Head, Sample, fit_head
from unetseg.labelling import engine as engine_module
from unetseg.labelling.engine import Engine

COUNT = 5


class Watched(Engine):
    """An engine whose answers can be waited for."""

    def __init__(self, read=lambda number: draw(number)[0], count=COUNT):
        self.answered, self.reads = threading.Condition(), []
        self.seen = []

        def reading(number):
            self.reads.append(number)
            return read(number)

        def note(number, version):
            with self.answered:
                self.seen.append((number, version))
                self.answered.notify_all()

        super().__init__(count, reading, note)

    def wait(self, number, after=0):
        """Return the first answer for an image with a version after a number."""
        with self.answered:
            assert self.answered.wait_for(
                lambda: any(n == number and v > after for n, v in self.seen), timeout=60
            )
        return self.answer(number)


@pytest.fixture
def engine():
    with closing(Watched()) as engine:
        yield engine


def test_a_stroke_is_answered(engine):
    mask = draw(0)[1]
    engine.open(0)
    engine.painted(0, scribble(mask))
    answer = engine.wait(0)
    assert answer.by == "head"
    assert (answer.labels == mask).mean() > 0.95


def test_there_is_no_answer_before_two_classes_are_painted(engine):
    mask = draw(0)[1]
    engine.open(0)
    engine.painted(0, np.where(mask == 1, 1, IGNORED).astype(np.uint8))
    wait_until(lambda: 0 in engine._samples and not engine._busy)
    assert engine.answer(0) is None


def test_another_image_is_answered_when_it_is_opened(engine):
    engine.open(0)
    engine.painted(0, scribble(draw(0)[1]))
    first = engine.wait(0)
    engine.open(1)
    second = engine.wait(1)
    assert second.version > first.version
    assert (second.labels == draw(1)[1]).mean() > 0.9


def test_an_answer_older_than_the_head_is_made_anew_when_its_image_is_opened_again(engine):
    engine.open(0)
    engine.painted(0, scribble(draw(0)[1]))
    engine.open(1)
    engine.wait(1)
    engine.painted(1, scribble(draw(1)[1]))
    wait_until(lambda: 1 in engine._samples)
    last = engine.wait(1, engine.answer(1).version - 1).version
    engine.open(0)
    assert engine.wait(0, last).version > last


def test_a_prediction_by_the_others_waits_until_their_strokes_are_learned(engine, monkeypatch):
    engine.open(2)
    wait_until(lambda: {0, 1, 2} <= engine._features.keys())
    begins, goes_on, draw_sample = threading.Event(), threading.Event(), engine_module.draw_sample

    def late(features, labels):
        begins.set()
        assert goes_on.wait(20)
        return draw_sample(features, labels)

    monkeypatch.setattr(engine_module, "draw_sample", late)
    for number in (0, 1):
        engine.painted(number, scribble(draw(number)[1]))
    assert begins.wait(20)
    threading.Timer(0.2, goes_on.set).start()
    found = engine.by_others(2)  # called while neither image was learned
    assert engine._samples.keys() == {0, 1}
    assert (found == draw(2)[1]).mean() > 0.9


def test_a_prediction_by_the_others_is_left_out_while_strokes_do_not_pause(engine, monkeypatch):
    engine.open(0)
    engine.painted(0, scribble(draw(0)[1]))
    engine.wait(0)
    monkeypatch.setattr(engine_module, "_PATIENCE", 0.1)
    monkeypatch.setattr(engine, "_is_urgent", lambda: True)
    assert engine.by_others(1) is None


def test_the_image_that_is_expected_first_is_answered_before_it_is_opened(engine):
    engine.open(0)
    engine.expect([3, 2])
    engine.painted(0, scribble(draw(0)[1]))
    assert (engine.wait(3).labels == draw(3)[1]).mean() > 0.9
    assert engine.answer(2) is None


def test_a_stroke_stops_the_answer_of_an_image_that_is_not_shown(engine, monkeypatch):
    began, classify = threading.Event(), Head.classify

    def endless(head, features, pause=None):
        if pause is None:
            return classify(head, features)
        began.set()
        while True:
            pause()

    monkeypatch.setattr(Head, "classify", endless)
    busy = []
    engine.on_busy = busy.append
    engine.open(0)
    engine.expect([3])
    engine.painted(0, scribble(draw(0)[1]))
    first = engine.wait(0)
    assert began.wait(20)
    engine.painted(0, scribble(draw(0)[1], 1))
    engine.wait(0, first.version)
    assert engine.answer(3) is None
    wait_until(lambda: busy == [True, False] * (len(busy) // 2))
    assert len(busy) >= 4


def test_erased_strokes_take_the_answer_with_them(engine):
    mask = draw(0)[1]
    engine.open(0)
    engine.painted(0, scribble(mask))
    engine.wait(0)
    engine.painted(0, np.full_like(mask, IGNORED))
    wait_until(lambda: engine.answer(0) is None)


@pytest.mark.parametrize("at", ["draw_sample", "fit_head", "classify"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "memory: not enough to answer"),
        (MemoryError(), "memory: not enough to answer"),
        (RuntimeError("a fault"), "the answer: RuntimeError: a fault; the strokes are saved"),
    ],
)
def test_an_answer_that_fails_is_told_once_and_the_next_stroke_tries_again(
    engine, monkeypatch, at, error, said
):
    owner = Head if at == "classify" else engine_module
    calls, told, works, work = [], [], [], getattr(owner, at)

    def failing(*words):
        calls.append(at)
        if not works:
            raise error
        return work(*words)

    monkeypatch.setattr(owner, at, failing)
    engine.on_failed = told.append
    engine.open(0)
    wait_until(lambda: {0, 1} <= engine._features.keys())
    engine.painted(0, scribble(draw(0)[1]))
    wait_until(lambda: told and not engine._busy)
    time.sleep(0.1)
    assert len(calls) == 1
    assert said in str(told[0])
    works.append(True)
    engine.painted(1, scribble(draw(1)[1]))
    assert (engine.wait(0).labels == draw(0)[1]).mean() > 0.95
    assert engine._samples.keys() == {0, 1}  # the strokes of before are learned, too
    assert len(told) == 1


def test_what_was_forgotten_comes_back_by_no_work_that_had_begun(engine, monkeypatch):
    begins, goes_on, fit_head = threading.Event(), threading.Event(), engine_module.fit_head

    def late(samples, before=None):
        begins.set()
        assert goes_on.wait(20)
        return fit_head(samples, before)

    monkeypatch.setattr(engine_module, "fit_head", late)
    engine.open(0)
    engine.painted(0, scribble(draw(0)[1]))
    assert begins.wait(20)
    engine.forget()
    goes_on.set()
    wait_until(lambda: not engine._busy)
    assert engine.answer(0) is None
    assert engine.rank([0, 1], []) == [0, 1]
    engine.painted(1, scribble(draw(1)[1]))
    engine.wait(0)
    assert engine._samples.keys() == {1}


def test_strokes_of_images_that_are_not_shown_count(engine):
    engine.painted(3, scribble(draw(3)[1]))
    engine.open(0)
    assert (engine.wait(0).labels == draw(0)[1]).mean() > 0.9


def test_strokes_change_the_answer_as_much_when_whole_masks_were_accepted(engine):
    for number in range(3):  # masks of which each object is two pixels too wide
        mask, wide = draw(number)[1], draw(number)[1]
        for index in (1, 2):
            wide[ndimage.binary_dilation(mask == index, iterations=2)] = index
        engine.painted(number, wide)
    mask = draw(3)[1]
    engine.open(3)
    wait_until(lambda: {0, 1, 2} <= engine._samples.keys() and engine.answer(3))
    assert (engine.wait(3).labels == mask).mean() < 0.99
    engine.painted(3, scribble(mask))
    wait_until(lambda: (engine.answer(3).labels == mask).mean() > 0.995)


def test_many_strokes_in_a_row_are_answered_together(engine):
    mask = draw(0)[1]
    engine.open(0)
    wait_until(lambda: 0 in engine._features)
    for seed in range(100):
        engine.painted(0, scribble(mask, seed))
    wait_until(lambda: not engine._due and not engine._busy)
    assert 1 <= len(engine.seen) < 50


def test_expected_images_are_prepared_before_all_others():
    going = threading.Event()

    def read(number):
        assert going.wait(20)
        return draw(number)[0]

    with closing(Watched(read)) as engine:
        engine.open(3)
        engine.expect([4, 2, 0])
        going.set()
        wait_until(lambda: len(engine._scattered) == COUNT)
        others = [n for n in engine.reads if n != 0]  # that work may have begun before
        assert others == [3, 4, 2, 1]


def test_an_opened_image_stops_work_on_another():
    reading, going = threading.Event(), threading.Event()

    def read(number):
        if number == 0:
            reading.set()
            going.wait(20)
        return draw(number)[0]

    with closing(Watched(read)) as engine:
        assert reading.wait(20)
        engine.open(4)
        going.set()
        wait_until(lambda: len(engine.reads) >= 3)
        assert engine.reads[:3] == [0, 4, 0]  # the work on 0 begins anew


def test_memory_is_bounded_and_what_is_shown_stays(monkeypatch):
    monkeypatch.setattr(engine_module, "_MEMORY", 1)
    with closing(Watched()) as engine:
        engine.open(2)
        wait_until(lambda: 2 in engine._features and len(engine._scattered) == COUNT)
        with engine._changed:  # the last features may just be coming
            assert list(engine._features) == [2]


def test_a_damaged_image_is_passed_over():
    def read(number):
        if number == 1:
            raise InputError("im1.png", "damaged", "copy it again")
        return draw(number)[0]

    with closing(Watched(read)) as engine:
        engine.open(1)
        engine.painted(0, scribble(draw(0)[1]))
        wait_until(lambda: len(engine._scattered) == COUNT - 1)
        assert engine.answer(1) is None
        engine.open(2)
        engine.wait(2)


def test_images_unlike_the_labelled_ones_rank_first():
    def read(number):
        image = draw(number)[0]
        return 255 - image if number == 3 else image

    with closing(Watched(read)) as engine:
        assert engine.rank([1, 2, 3], [0]) is not None
        engine.open(0)
        engine.painted(0, scribble(draw(0)[1]))
        engine.wait(0)
        wait_until(lambda: len(engine._scattered) == COUNT)
        order = engine.rank([1, 2, 3, 4], [0])
        assert sorted(order) == [1, 2, 3, 4]
        assert order[0] == 3


def test_closing_ends_both_threads():
    engine = Watched()
    engine.close()
    assert not any(thread.is_alive() for thread in engine._threads)


def test_an_image_that_could_not_be_described_is_told_and_tried_again_when_it_is_opened():
    told, fails = [], [True]

    def read(number):
        if number == 1 and fails:
            raise MemoryError
        return draw(number)[0]

    with closing(Watched(read)) as engine:
        engine.on_failed = told.append
        engine.open(1)
        wait_until(lambda: told)
        assert "memory" in str(told[0])
        fails.clear()
        engine.open(1)
        engine.painted(1, scribble(draw(1)[1]))
        assert (engine.wait(1).labels == draw(1)[1]).mean() > 0.95


def test_samples_shrink_to_what_a_head_takes_of_so_many_images_and_heads_stay_the_same():
    labels = torch.arange(6000) % 3
    long = Sample(torch.randn(6000, 4), labels, torch.bincount(labels, minlength=255), (4,))
    assert engine_module.shortened(long, 2) is long
    short = engine_module.shortened(long, 11)
    assert len(short.labels) == 800
    assert short.features.untyped_storage().nbytes() == 800 * 4 * 4
    both = [fit_head([one] * 11) for one in (long, short)]
    torch.testing.assert_close(both[0].weights, both[1].weights)
