"""A person at work: strokes are answered, images are accepted and scored, another one comes."""

import os
import weakref
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.labelling.asking import open_folder
from tests.support import draw, read, wait_until, write_images
from unetseg.classes import SegmentationClass
from unetseg.errors import MachineError
from unetseg.labelling import session as sessions
from unetseg.labelling.journal import Stroke


def square(number):
    """Return the truth of an image: its square as class 1, the rest as class 0."""
    return (draw(number)[1] == 1).astype(np.uint8)


def paint_truth(session, number, value=1):
    """Paint rows of the truth of an image, a stroke each, its square as the class ``value``."""
    truth = square(number) * value
    for y in range(0, 64, 8):
        session.paint(number, Stroke("", 0, y, truth[y : y + 2]))
    return truth


def wait_for_answer(session, number):
    """Open an image; return its answer once all strokes are learned, as it stays the same then."""
    session.open(number)
    engine = session._engine

    def is_settled():
        with engine._changed:
            return not engine._due and engine._is_at_rest()

    return wait_until(lambda: is_settled() and session.answer(number))


def test_strokes_are_answered_and_accepted_as_they_were_seen(session, told, folder):
    session.open(0)
    truth = paint_truth(session, 0)
    answer = wait_for_answer(session, 0)
    assert answer.by == "head"
    session.accept(0, is_empty=False)
    session.project.save()
    mask = read(folder / "masks" / "im0.png")
    assert (mask != 255).all()
    np.testing.assert_array_equal(mask[::8], truth[::8])
    assert (mask == truth).mean() > 0.95
    assert session.next_image(0) in (1, 2)
    wait_until(lambda: {"answer", "saved", "state", "score"} <= {name for name, _ in told})


def test_an_answer_that_came_after_the_last_look_is_not_accepted(session, folder):
    session.open(0)
    truth = paint_truth(session, 0)
    seen = wait_for_answer(session, 0).labels.copy()
    turned = Stroke("", 0, 2, 1 - truth[2:8])
    session.paint(0, turned)
    engine = session._engine
    wait_until(lambda: not engine._due and engine._is_at_rest())
    assert (session._answer(0).labels != seen).any()
    session.accept(0, is_empty=False)
    labels, painted = session.project.labels(0), np.zeros(seen.shape, bool)
    painted[2:8] = True
    painted[::8] = painted[1::8] = True
    np.testing.assert_array_equal(labels[~painted], seen[~painted])


def test_an_answer_on_the_page_counts_when_a_class_was_added_or_a_write_failed(
    session, monkeypatch
):
    session.open(0)
    paint_truth(session, 0)
    seen = wait_for_answer(session, 0).labels.copy()
    table = session.project.table
    new = SegmentationClass("new", 2, "#009e73")
    session.change_classes(replace(table, classes=(*table.classes, new)), [0, 1, None])
    accept = session.project.accept

    def full(*_):
        raise MachineError("disk", "is full")

    monkeypatch.setattr(session.project, "accept", full)
    with pytest.raises(MachineError):
        session.accept(0, is_empty=False)
    monkeypatch.setattr(session.project, "accept", accept)
    session.accept(0, is_empty=False)
    labels = session.project.labels(0)
    np.testing.assert_array_equal(labels[2:8], seen[2:8])
    assert (labels != 255).all()


def test_strokes_in_a_window_that_was_opened_before_another_are_answered(session):
    session.open(0)
    paint_truth(session, 0)
    before = wait_for_answer(session, 0).version
    session.open(1)
    truth = 1 - square(0)
    for y in range(2, 64, 8):
        session.paint(0, Stroke("", 0, y, truth[y : y + 4]))
    wait_until(lambda: session._answer(0).version > before and not session._engine._busy)
    assert session._engine._shown == 0


def test_no_more_answers_are_kept_than_windows_show(session, monkeypatch):
    monkeypatch.setattr(sessions, "_WINDOWS", 2)
    session.open(0)
    paint_truth(session, 0)
    for number in range(3):
        wait_for_answer(session, number)
    assert list(session._seen) == [1, 2]


def test_an_image_that_shows_no_answer_keeps_its_open_pixels(session, folder):
    session.open(0)
    paint_truth(session, 0)
    wait_for_answer(session, 0)
    session.open(0)  # again, as after loading the page: it shows nothing yet
    session.accept(0, is_empty=False)
    assert (session.project.labels(0) == 255).any()


def test_an_image_is_scored_by_what_was_predicted_before_its_first_stroke(session, folder):
    session.open(0)
    paint_truth(session, 0)
    wait_for_answer(session, 0)
    session.accept(0, is_empty=False)
    assert session.score() is None  # nothing was predicted of the first image
    before = wait_for_answer(session, 1).labels.copy()
    truth = square(1)
    session.paint(1, Stroke("", 0, 0, truth))
    session.accept(1, is_empty=False)
    ious = [((before == c) & (truth == c)).sum() / ((before == c) | (truth == c)).sum()
            for c in (0, 1)]  # fmt: skip
    assert session.score()["mean_iou"] == pytest.approx(np.mean(ious))
    assert session.score()["images"] == 1


def test_labels_that_another_program_changed_are_shown_and_learned(session, told, folder):
    def news():
        return [data for name, data in told if name == "labels"]

    def change(labels):
        Image.fromarray(labels).save(mask)
        os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 10**9))

    mask, learned = folder / "masks" / "im0.png", []
    paint_truth(session, 0)
    session.project.save()
    session._engine.painted = lambda number, labels: learned.append((number, labels.copy()))
    change(read(mask))  # as file systems that round times do
    session.project.labels(0)
    assert (news(), learned) == ([], [])
    change(np.zeros((64, 56), np.uint8))
    session.paint(0, Stroke("", 0, 0, np.ones((1, 5), np.uint8)))
    assert news() == [{"number": 0, "page": ""}]
    assert [(number, labels.sum()) for number, labels in learned] == [(0, 0), (0, 5)]
    assert [d["labelled"] for name, d in told if name == "state"][-2:] == [1, 1]


def test_nothing_is_predicted_before_strokes_of_another_program(session, folder):
    session.open(0)
    paint_truth(session, 0)
    wait_for_answer(session, 0)
    wait_for_answer(session, 1)
    mask = folder / "masks" / "im1.png"
    Image.fromarray(square(1)).save(mask)
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 10**9))
    session.accept(1, is_empty=False)  # the network may have learned from it meanwhile
    assert session.score() is None
    np.testing.assert_array_equal(session.project.labels(1), square(1))


def test_an_erased_image_keeps_its_first_prediction(session, folder):
    session.open(0)
    paint_truth(session, 0)
    wait_for_answer(session, 0)
    wait_for_answer(session, 1)
    session.paint(1, Stroke("", 0, 0, np.ones((9, 9), np.uint8)))
    first = folder / ".unetseg" / "first" / "im1.head.png"
    kept = first.read_bytes()
    session.paint(1, Stroke("", 0, 0, np.full((9, 9), 255, np.uint8)))
    assert session.project.images[1].state == "untouched"
    session.paint(1, Stroke("", 0, 0, np.zeros((9, 9), np.uint8)))
    assert first.read_bytes() == kept


def test_labels_of_before_are_learned_when_the_folder_is_opened_again(folder):
    with open_folder(folder) as session:
        session.open(0)
        paint_truth(session, 0)
    with open_folder(folder) as session:
        assert wait_for_answer(session, 2).by == "head"
        assert session.next_image(2) in (0, 1)


def test_begun_images_come_after_untouched_ones(session):
    session.paint(1, Stroke("", 0, 0, np.zeros((9, 9), np.uint8)))
    assert [session.next_image(k) for k in (-1, 0, 1, 2)] == [0, 2, 2, 0]
    for number in (0, 2):
        session.accept(number, is_empty=True)
    assert session.next_image(0) == 1
    session.accept(1, is_empty=True)
    assert session.next_image(1) is None


def test_the_page_is_told_which_image_comes_next_as_soon_as_labels_change_that(session, told):
    assert session.open(0) == 1
    wait_until(lambda: session._engine._ahead == [1, 2])
    session.accept(1, is_empty=True)  # in another window
    wait_until(lambda: ("next", {"after": 0, "number": 2}) in told)
    assert session._engine._ahead == [2]
    session.accept(2, is_empty=True)
    wait_until(lambda: ("next", {"after": 0, "number": None}) in told)
    assert session.open(0) is None


def test_a_class_that_is_left_out_is_forgotten_by_the_answer(session):
    session.open(0)
    table = session.project.table
    more = table.from_dict(
        {
            "classes": [
                *table.to_dict()["classes"],
                {"name": "new", "value": 2, "colour": "#009e73"},
            ],
            "ignore": [255],
        }
    )
    session.change_classes(more, [0, 1, None])
    paint_truth(session, 0, value=2)
    assert set(np.unique(wait_for_answer(session, 0).labels)) == {0, 2}
    kept = more.from_dict(
        {"classes": [more.to_dict()["classes"][k] for k in (0, 2)], "ignore": [255]}
    )
    session.change_classes(kept, [0, 2])
    assert set(np.unique(session.project.labels(0))) == {0, 1, 255}
    # Not even the first answer is one of the former classes: somebody may accept it.
    found = wait_until(lambda: session.answer(0))
    assert set(np.unique(found.labels)) == {0, 1}


def test_an_accepted_mask_that_the_other_images_speak_against_is_a_suspect(tmp_path):
    write_images(tmp_path / "images", 6)
    with open_folder(tmp_path) as session:
        for k in range(6):
            session.open(k)
            truth = square(k)
            if k == 4:  # the square was forgotten, and another painted where there is none
                truth[:] = 0
                truth[:20, :20] = draw(k)[1][:20, :20] != 1
            session.paint(k, Stroke("", 0, 0, truth))
            wait_for_answer(session, k)
            session.accept(k, is_empty=False)
            if k == 2:
                assert session.suspects() == []  # too few to say
        found = wait_until(session.suspects)  # the last mask is being learned
    assert [number for number, _ in found] == [4]
    assert found[0][1].text


def test_a_mask_is_compared_with_an_earlier_prediction_where_none_can_be_made_now(
    session, monkeypatch
):
    mask, made = square(0), []
    monkeypatch.setattr(session._engine, "by_others", lambda _: made.pop() if made else None)
    assert session._by_others(0, mask, 4) is None
    first, second = np.zeros_like(mask), np.ones_like(mask)
    made[:] = [second, first]
    assert session._by_others(0, mask, 4) is first
    assert session._by_others(0, mask, 7) is first
    assert session._by_others(0, mask, 8) is second  # by twice as many
    assert session._by_others(0, mask, 16) is second  # its features have left the memory
    assert session._by_others(0, 1 - mask, 16) is None


def test_accepted_masks_are_compared_one_at_a_time(session, monkeypatch):
    monkeypatch.setattr(sessions, "_LEAST_SUSPECTS", 3)
    monkeypatch.setattr(session._engine, "by_others", lambda _: square(0))
    for number in range(3):
        session.accept(number, is_empty=False)
    seen = []

    def rank(images, _):
        for image in images:
            seen.append(weakref.ref(image.truth))
            assert sum(one() is not None for one in seen) == 1
        return ()

    monkeypatch.setattr(sessions, "rank_suspects", rank)
    assert session.suspects() == []
    assert len(seen) == 3


class Trained:
    """A network that is done: it takes every pixel of every image for class 1."""

    def __init__(self):
        self.orders = []

    def prediction(self, number, table):
        return np.ones((64, 56), np.uint8)

    def learn(self, order):
        self.orders.append(order)

    def expect(self, order):
        pass

    def close(self):
        pass


@pytest.mark.usefixtures("masks_on_demand")
def test_the_network_begins_where_the_first_answer_comes_after_the_strokes_were_saved(session):
    session.training = Trained()
    session._engine.on_answer = lambda *_: None  # it is late
    paint_truth(session, 0)
    session.project.save()
    assert session.training.orders == []
    session._answered(0, 1)
    session._answered(0, 2)
    assert [sorted(order) for order in session.training.orders] == [[1, 2]]


def test_predictions_of_many_images_do_not_fill_the_memory(session, monkeypatch):
    monkeypatch.setattr(sessions, "_MEMORY", 2 * 64 * 56)
    session.training = Trained()
    first = session._prediction(0, "network")
    assert session._prediction(1, "network").version > first.version
    assert session._prediction(0, "network") is first
    session._prediction(2, "network")
    assert list(session._masks) == [(0, "network"), (2, "network")]


def near_the_head(session):
    """Let the network have been as good as the head on the images 0 and 2."""
    ones = np.ones((64, 56), np.uint8)
    session.training = Trained()
    for number in (0, 2):
        session._score.before_first_stroke(number, {"head": ones, "network": ones})
        session._score.accepted(number, ones, "head")


def test_an_image_on_trial_shows_the_network_and_its_mask_is_known_to_come_from_it(session, told):
    paint_truth(session, 0)
    assert [wait_for_answer(session, number).by for number in (0, 1, 2)] == ["head"] * 3
    near_the_head(session)
    assert [session.answer(number).by for number in (0, 1, 2)] == ["head", "network", "head"]
    session._engine.close()  # no answer of the head is told from here on
    told.clear()
    session._predicted([0, 1, 2])
    assert [data["number"] for name, data in told if name == "answer"] == [1]
    session.accept(1, is_empty=False)
    assert (session.project.labels(1) == 1).all()
    shown = {image.image: image.shown for image in session._score._record.accepted}
    assert shown == {"im0": "head", "im2": "head", "im1": "network"}


def test_an_image_that_was_begun_before_the_network_goes_on_with_the_head(session):
    paint_truth(session, 1)
    near_the_head(session)
    assert wait_for_answer(session, 1).by == "head"
