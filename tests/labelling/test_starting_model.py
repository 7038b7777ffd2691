"""A model that a project begins with: its classes, the images it fits, and its predictions."""

import shutil
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import unetseg
from tests.labelling.asking import open_page
from tests.support import NAMES, VALUES_TOML, read, wait_until, with_card, write_images
from unetseg.classes import read_classes
from unetseg.errors import InputError
from unetseg.labelling.journal import Stroke
from unetseg.labelling.project import open_project
from unetseg.labelling.running_score import RunningScore
from unetseg.labelling.session import Session
from unetseg.labelling.starting_model import StartingModel
from unetseg.prediction.model_file import read_card

STROKE = Stroke("", 0, 0, np.zeros((2, 9), np.uint8))


@pytest.fixture
def folder(home):
    """The images 0 to 3, of which `runs/default` was trained on some, and 100, which is new."""
    folder = write_images(home / "new" / "images", 4).parent
    shutil.copy(home / "data/test/images/im100.png", folder / "images")
    return folder


@pytest.fixture
def model(home):
    return StartingModel("default")


def predict(model, folder):
    """Let the model have predicted all images."""
    files = {"out": model.folder, "format": "png", "overlay": False}
    unetseg.predict(folder / "images", model=model.copies, **files)


def number_of(project, name):
    return next(image.number for image in project.images if image.name == name)


def test_a_folder_without_classes_takes_those_of_the_model(folder, model):
    with open_project(folder, model=model) as project:
        assert project.table.classes == model.card.classes.classes
    assert read_classes(folder / "classes.toml").classes == model.card.classes.classes


def test_the_model_is_copied_and_another_one_takes_its_place(folder, model):
    with open_project(folder, model=model):
        (copy,) = model.copies
        assert copy.read_bytes() == Path("runs/default/model.safetensors").read_bytes()
    with_card("default", "other", name="other")
    other = StartingModel("other")
    assert other.digest != model.digest
    with open_project(folder, model=other):
        assert not copy.exists()
        assert read_card(other.copies[0]).name == "other"


def test_a_run_with_folds_brings_all_its_models(home):
    for fold in (1, 2):
        shutil.copytree("runs/default", f"runs/folds/fold-{fold}")
    model = StartingModel("folds")
    model.enter(home / "state")
    assert len(model.copies) == 2
    assert model.trained_on == StartingModel("default").trained_on


def test_classes_are_matched_by_name_where_their_order_differs_or_there_are_more(folder, model):
    names = ("sky", "stripe", "ground", "square")
    entries = "".join(f'[[class]]\nname = "{n}"\nvalue = {v}\n' for v, n in enumerate(names))
    (folder / "classes.toml").write_text(f"ignore = [255]\n{entries}")
    with open_project(folder, model=model) as project:
        image = project.images[0].pair.image
        assert model.prediction(image) is None
        predict(model, folder)
        indices = read(model.folder / f"{image.stem}.png")
        expected = np.array([names.index(name) for name in NAMES])[indices]
        np.testing.assert_array_equal(model.prediction(image), expected)
        model.follow([None, 0, 2, 3])  # "stripe" is left out, and a class stands before "sky"
        expected = np.array([2, 3, 255])[indices]
        np.testing.assert_array_equal(model.prediction(image), expected)


def test_a_folder_whose_classes_lack_one_of_the_model_is_refused(folder, model):
    (folder / "classes.toml").write_text(VALUES_TOML.replace("stripe", "band"))
    said = "its classes are ground, square, stripe, those of the folder ground, square, band; "
    said += "choose another start_from, or give the classes its names"
    with pytest.raises(InputError) as error, open_project(folder, model=model):
        pass
    assert str(error.value) == f"{Path('runs/default/model.safetensors')}: {said}"
    assert not (folder / "masks").exists()


def test_images_of_other_channels_are_refused(home, model):
    folder = write_images(home / "colours", 1, channels=3)
    said = "has 3 channels where one is due; choose another start_from, or leave it out"
    with pytest.raises(InputError, match=said), open_project(folder, model=model):
        pass
    assert not (folder / "masks").exists()


def test_the_model_answers_before_the_first_stroke_and_is_scored_on_images_it_never_saw(
    folder, model
):
    trained = [s.name for s in model.card.sources if s.split == "train"]
    with open_project(folder, model=model) as project:
        predict(model, folder)
        new = number_of(project, "im100")
        seen = next(i.number for i in project.images if i.pair.image.name in trained)
        with closing(Session(project, lambda *_: None, model)) as session:
            answers = [session.answer(number) for number in (seen, new)]
            assert [answer.by for answer in answers] == ["model", "model"]
            session.accept(seen, is_empty=False)
            text = "1 image that the model was trained on was left out."
            assert session.score() == {"mean_iou": None, "note": text}
            session.paint(new, STROKE)
            session.accept(new, is_empty=False)
            score = session.score()
            assert score["images"] == 1
            assert score["note"].endswith(text)
            truth = project.labels(new)
            wrong = truth != answers[1].labels
            assert score["mean_iou"] == 1 if not wrong.any() else score["mean_iou"] < 1


def test_no_stroke_waits_until_it_is_known_whether_the_model_was_trained_on_its_image(
    folder, model, monkeypatch
):
    askers, was_seen = [], RunningScore.was_seen

    def watched(score, pair):
        askers.append(threading.current_thread().name)
        return was_seen(score, pair)

    monkeypatch.setattr(RunningScore, "was_seen", watched)
    with (
        open_project(folder, model=model) as project,
        closing(Session(project, lambda *_: None, model)) as session,
    ):
        session.open(0)
        wait_until(lambda: len(session._engine._scattered) == len(project.images), 60)
        for image in project.images:
            session.paint(image.number, STROKE)
            session.accept(image.number, is_empty=False)
    assert askers == ["labelling-features"] * len(project.images)


def test_images_that_a_model_saw_stay_out_of_the_score_when_it_is_not_given_again(folder, model):
    with open_project(folder, model=model) as project:
        RunningScore(project.home, ["im0"], NAMES, model)
        seen = next(
            image.pair
            for image in project.images
            if image.pair.image.name in [s.name for s in model.card.sources if s.split == "train"]
        )
        new = project.images[number_of(project, "im100")].pair
        again = RunningScore(project.home, ["im0"], NAMES)
        assert again.was_seen(seen)
        assert not again.was_seen(new)


def test_the_page_is_told_of_a_new_answer_and_which_predictor_made_it(folder, model):
    with open_project(folder, model=model) as project:
        predict(model, folder)
        told = []
        publish = lambda name, data: told.append((name, data))  # noqa: E731
        with closing(Session(project, publish, model)) as session:
            _, client = open_page(session)
            answer = client.get("api/images/0/answer")
            assert (answer.status_code, answer.headers["Answer-By"]) == (200, "model")
            session._predicted([0])
            assert [data["number"] for name, data in told if name == "answer"] == [0]
