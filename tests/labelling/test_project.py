"""A folder being labelled: its files at each moment, and how they are found again."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import (
    VALUES_TOML,
    draw,
    read,
    typed,
    wait_until,
    write_image,
    write_images,
    write_set,
)
from unetseg.classes import ClassTable
from unetseg.cli.app import main
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.dataset.pairing import find_pairs
from unetseg.errors import InputError, MachineError
from unetseg.labelling import project as projects
from unetseg.labelling.journal import Journal, Stroke
from unetseg.labelling.project import enlarge, open_project, write_labels

ROOT = Path(unetseg.__file__).parents[1]


def raw_images(folder, count=3, home="images"):
    write_images(folder / home, count)
    return folder


def stroke(value, x=3, y=4, shape=(5, 10), name=""):
    return Stroke(name, x, y, np.full(shape, value, np.uint8))


def blank(value=255):
    return np.full((64, 56), value, np.uint8)


# --- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["images", "."])
def test_a_folder_of_images_becomes_a_folder_of_labelled_images(tmp_path, home):
    folder = raw_images(tmp_path / "set", home=home)
    with open_project(folder) as project:
        assert (folder / "classes.toml").read_text().startswith("ignore = [255]")
        assert [pair.name for pair in find_pairs(folder)] == ["im0", "im1", "im2"]
        for k in range(2):
            project.paint(k, stroke(1))
            project.paint(k, stroke(0, y=20))
        project.save()
        assert not inspect_folder(folder).errors  # at any moment
    found = inspect_folder(folder)
    assert not found.errors
    assert found.counts.tolist() == [[50, 50], [50, 50]]
    with Image.open(folder / "masks" / "im0.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[3:6] == [0xE6, 0x9F, 0x00]


def test_masks_that_are_there_are_shown_and_only_what_is_painted_changes(tmp_path):
    folder = write_set(tmp_path / "set", 2)
    before = {k: draw(k)[1] for k in range(2)}
    other = (folder / "masks" / "im1.png").read_bytes()
    with open_project(folder) as project:
        assert project.table.names == ("ground", "square", "stripe")
        assert project.table.ignore == (255,)
        assert [i.state for i in project.images] == ["accepted", "accepted"]
        np.testing.assert_array_equal(project.labels(0), before[0])
        project.paint(0, stroke(255))
    before[0][4:9, 3:13] = 255
    np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), before[0])
    assert (folder / "masks" / "im1.png").read_bytes() == other
    assert not inspect_folder(folder).errors


def test_masks_of_two_values_0_and_255_keep_them(tmp_path):
    folder = write_set(tmp_path / "set", 3, values=(0, 255, 0), toml=None)
    with open_project(folder) as project:
        assert project.table.ignore == (254,)
        project.paint(0, stroke(255, y=0))
        project.paint(0, stroke(1, y=20))
    mask = read(folder / "masks" / "im0.png")
    assert set(mask[:5, 3:13].ravel()) == {254, mask[0, 3]}
    assert (mask[20:25, 3:13] == 255).all()
    assert not inspect_folder(folder).errors
    with open_project(folder) as project:
        assert (project.labels(0)[20:25, 3:13] == 1).all()


def test_masks_of_colours_keep_their_colours(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    folder = raw_images(tmp_path / "set", 2)
    (folder / "masks").mkdir()
    Image.fromarray(colours[draw(0)[1]]).save(folder / "masks" / "im0.png")
    with open_project(folder) as project:
        assert project.table.names == ("#000000", "#0000ff", "#ff0000")
        project.paint(1, stroke(2))
    with open_project(folder) as project:
        np.testing.assert_array_equal(project.labels(0), np.array([0, 2, 1])[draw(0)[1]])
        assert project.images[1].labelled == 50
        assert (project.labels(1)[4:9, 3:13] == 2).all()
    assert not inspect_folder(folder).errors


def test_new_masks_are_named_as_those_that_are_there(tmp_path):
    folder = tmp_path / "set"
    (folder / "labels").mkdir(parents=True)
    for k in range(4):
        write_image(folder / f"Img_{k}", draw(k)[0])
    for k in range(2):
        Image.fromarray(draw(k)[1]).save(folder / "labels" / f"Mask_{k}.png")
    with open_project(folder):
        pass
    assert sorted(p.name for p in (folder / "labels").iterdir()) == [
        *(f"Mask_{k}.png" for k in range(4)),
    ]
    assert not inspect_folder(folder).errors


def test_masks_beside_their_images_stay_there(tmp_path):
    folder = write_images(tmp_path / "set", 3)
    Image.fromarray(draw(0)[1]).save(folder / "im0_mask.png")
    with open_project(folder) as project:
        project.paint(2, stroke(1))
    assert (read(folder / "im2_mask.png") == 1).sum() == 50
    assert not inspect_folder(folder).errors


def test_masks_of_another_format_are_led_to_convert(tmp_path):
    folder = raw_images(tmp_path / "set", 1)
    (folder / "masks").mkdir()
    Image.fromarray(draw(0)[1]).save(folder / "masks" / "im0.tif")
    with pytest.raises(InputError, match=r"im0\.tif: ") as caught, open_project(folder):
        pass
    assert typed(caught.value).endswith(f"unetseg convert {folder} {folder}-converted")
    with pytest.raises(InputError) as caught, open_project(folder, ignored=("#ffffff", 7)):
        pass
    assert typed(caught.value).endswith(f"{folder}-converted --ignore '#ffffff,7'")
    assert sorted(p.name for p in (folder / "masks").iterdir()) == ["im0.tif"]


def test_labels_of_another_tool_are_painted_in_after_the_line_that_the_refusal_prints(empty):
    folder = raw_images(Path("my set"), 2)
    for image in sorted((folder / "images").iterdir()):
        corners = [[10, 10], [40, 10], [40, 40]]
        shapes = [{"label": "cell", "points": corners, "shape_type": "polygon"}]
        about = {"shapes": shapes, "imagePath": image.name, "imageHeight": 64, "imageWidth": 56}
        image.with_suffix(".json").write_text(json.dumps(about))
    Path("mine.toml").write_text(VALUES_TOML.replace("stripe", "cell"))
    given = {"classes": Path("mine.toml"), "ignored": (255,)}
    with pytest.raises(InputError, match="labels of LabelMe files, no") as caught:
        open_project(folder, **given).__enter__()
    line = typed(caught.value).partition("unetseg ")[2]
    words = ["convert", "my set", "my set-converted"]
    assert shlex.split(line) == [*words, "--classes", "mine.toml"]
    with pytest.raises(InputError) as caught:
        open_project(folder).__enter__()
    assert shlex.split(typed(caught.value).partition("unetseg ")[2]) == words
    assert main(shlex.split(line)) == 0
    with open_project(Path("my set-converted")) as project:
        assert project.table.names == ("ground", "square", "cell")
        assert [image.state for image in project.images] == ["accepted", "accepted"]


def test_a_mask_without_an_image_is_named(tmp_path):
    folder = write_set(tmp_path / "set", 2)
    (folder / "images" / "im1.png").unlink()
    with pytest.raises(InputError, match=r"im1\.png"), open_project(folder):
        pass


def test_classes_may_be_given(tmp_path):
    folder = raw_images(tmp_path / "set")
    (tmp_path / "mine.toml").write_text(VALUES_TOML)
    with open_project(folder, classes=tmp_path / "mine.toml") as project:
        assert project.table.names == ("ground", "square", "stripe")
    with open_project(folder) as project:
        assert project.table.names == ("ground", "square", "stripe")


def test_an_image_that_is_too_large_is_refused_before_anything_is_written(tmp_path):
    folder = raw_images(tmp_path / "set", 1)
    Image.fromarray(np.zeros((10_001, 10_000), bool)).save(
        folder / "images" / "large.png", compress_level=0
    )
    with (
        pytest.raises(InputError, match=r"large\.png.*cut it into parts.*--scale"),
        open_project(folder),
    ):
        pass
    assert not (folder / "masks").exists()
    assert not (folder / "classes.toml").exists()


# --- strokes -------------------------------------------------------------------------------------


def test_a_mask_is_written_within_a_second_of_the_last_stroke(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        waits, wait = [], project._wake.wait

        def note(seconds):
            waits.append(seconds)
            return wait(seconds)

        monkeypatch.setattr(project._wake, "wait", note)
        for k in range(3):
            project.paint(0, stroke(1, x=10 * k))
        wait_until(lambda: not list((folder / ".unetseg" / "journal").iterdir()))
        np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), project.labels(0))
    assert all(seconds < 1 for seconds in waits if seconds is not None)  # beside a slow disk


def test_saving_ends_once_a_mask_that_was_being_written_is_there(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    begins, goes_on = threading.Event(), threading.Event()

    def slow(image, labels, table):
        begins.set()
        assert goes_on.wait(20)
        write_labels(image, labels, table)

    with open_project(folder) as project:
        monkeypatch.setattr(projects, "write_labels", slow)
        project.paint(0, stroke(1))
        assert begins.wait(20)
        threading.Timer(0.2, goes_on.set).start()
        project.save()
        assert (read(folder / "masks" / "im0.png") == 1).sum() == 50


def test_strokes_that_a_kill_left_are_put_into_the_mask(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(0))
    journal = Journal(folder / ".unetseg" / "journal" / "im0.strokes")
    journal.append(stroke(1, x=4, name="late"))
    with journal.path.open("ab") as file:
        file.write(journal.path.read_bytes()[:20])  # the kill came in the middle of the next one
    with open_project(folder) as project:
        due = blank()
        due[4:9, 3:13] = 0
        due[4:9, 4:14] = 1
        np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), due)
        assert not journal.path.exists()
        assert project.images[0].labelled == 55
        assert project.images[0].state == "begun"
        assert not project.paint(0, stroke(0, x=4, name="late"))  # the page sends it again


def test_labels_survive_the_loss_of_all_that_is_remembered(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
        project.accept_empty(1)
        before = [project.labels(k).copy() for k in range(3)]
    for path in sorted((folder / ".unetseg").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with open_project(folder) as project:
        for k in range(3):
            np.testing.assert_array_equal(project.labels(k), before[k])
        assert [i.state for i in project.images] == ["begun", "accepted", "untouched"]


def test_strokes_are_saved_after_all_that_is_remembered_was_deleted_under_an_open_page(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
        project.save()
        shutil.rmtree(folder / ".unetseg")
        project.paint(0, stroke(0, y=20))
        assert list((folder / ".unetseg" / "journal").iterdir())
    assert np.bincount(read(folder / "masks" / "im0.png").ravel())[:2].tolist() == [50, 50]


def test_damaged_memory_is_as_good_as_none(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
    for text in ("", "{", "[]", '{"images": {"im0": 5}}', '{"images": {"im0": {"state": "x"}}}'):
        (folder / ".unetseg" / "images.json").write_text(text)
        with open_project(folder) as project:
            assert [i.state for i in project.images] == ["begun", "untouched", "untouched"]


def test_a_mask_that_another_program_changed_is_read_anew(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
    Image.fromarray(blank(0)).save(folder / "masks" / "im0.png")
    with open_project(folder) as project:
        assert project.images[0].labelled == blank().size
        assert not project.labels(0).any()


def test_a_mask_that_another_program_changes_under_an_open_page_is_read_before_a_stroke(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        for k in range(3):
            project.paint(k, stroke(1))
        project.save()
        for k in range(3):
            change_elsewhere(folder / "masks" / f"im{k}.png")
        project.paint(0, stroke(1, y=20))
        project.save()  # remembers all images
        assert project.images[0].labelled == blank().size
    due = blank(0)
    due[20:25, 3:13] = 1
    np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), due)
    with open_project(folder) as project:
        assert project.images[1].labelled == blank().size
        project.labels(2)
        change_elsewhere(folder / "masks" / "im2.png", value=1)
        project.change_classes(project.table.changed([], ["object=#ff0000"]), [0, 1])
    assert (read(folder / "masks" / "im2.png") == 1).all()


def change_elsewhere(mask, value=0):
    """Write a mask as another program does, which takes a while in real life."""
    Image.fromarray(blank(value)).save(mask)
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 10**9))


def test_strokes_are_saved_though_the_time_of_a_mask_cannot_be_told(tmp_path, monkeypatch):
    mask, stat = raw_images(tmp_path) / "masks" / "im0.png", Path.stat

    def denied(path, **how):
        if path == mask:
            raise PermissionError(13, "used by another process", str(path))
        return stat(path, **how)

    with open_project(tmp_path) as project:
        project.labels(0)
        monkeypatch.setattr(Path, "stat", denied)
        project.paint(0, stroke(1))
        project.save()
        monkeypatch.undo()
        project.paint(0, stroke(0, y=20))
    assert np.bincount(read(mask).ravel())[:2].tolist() == [50, 50]


def test_a_stroke_that_cannot_be_written_is_not_painted(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:

        def full(*_):
            raise MachineError("im0.strokes", "not written: the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", full)
            with pytest.raises(MachineError):
                project.paint(0, stroke(1))
        assert (project.labels(0) == 255).all()
        assert project.images[0].state == "untouched"


def fill_disk(monkeypatch):
    """Let no mask be written while the first item of the list that is returned is true."""
    fail = [True]

    def failing(image, labels, table):
        if fail[0]:
            raise MachineError(image.pair.mask, "not written: the disk is full")
        write_labels(image, labels, table)

    monkeypatch.setattr(projects, "_LONGEST", 0.1)
    monkeypatch.setattr(projects, "write_labels", failing)
    return fail


def test_a_mask_that_cannot_be_written_is_tried_again(tmp_path, monkeypatch):
    folder, errors = raw_images(tmp_path), []
    with open_project(folder) as project:
        fail = fill_disk(monkeypatch)
        project.on_failed = errors.append
        project.paint(0, stroke(1))
        wait_until(lambda: errors)
        assert (read(folder / "masks" / "im0.png") == 255).all()
        assert list((folder / ".unetseg" / "journal").iterdir())
        fail[0] = False
    assert (read(folder / "masks" / "im0.png") == 1).sum() == 50
    assert not list((folder / ".unetseg" / "journal").iterdir())


def test_a_mask_for_which_memory_lacks_is_tried_again_while_the_folder_is_open(
    tmp_path, monkeypatch
):
    folder, errors, fails = raw_images(tmp_path), [], [True]

    def write_or_fail(*words):
        if fails:
            raise MemoryError
        write_labels(*words)

    with open_project(folder) as project:
        monkeypatch.setattr(projects, "_LONGEST", 0.1)
        monkeypatch.setattr(projects, "write_labels", write_or_fail)
        project.on_failed = errors.append
        project.paint(0, stroke(1))
        wait_until(lambda: errors)
        assert str(errors[0]).startswith("memory: not enough to write a mask")
        fails.clear()
        wait_until(lambda: (read(folder / "masks" / "im0.png") == 1).sum() == 50)


@pytest.mark.usefixtures("masks_on_demand")
def test_strokes_that_come_while_a_mask_is_written_are_kept(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:

        def slow(image, labels, table):
            monkeypatch.setattr(projects, "write_labels", write_labels)
            write_labels(image, labels, table)
            project.paint(0, stroke(0, y=30))  # before the journal is dropped

        monkeypatch.setattr(projects, "write_labels", slow)
        project.paint(0, stroke(1))
        project.save()
        journal = Journal(folder / ".unetseg" / "journal" / "im0.strokes")
        assert [s.y for s in journal.strokes()] == [4, 30]
    assert np.bincount(read(folder / "masks" / "im0.png").ravel())[:2].tolist() == [50, 50]


def test_labels_stay_in_memory_while_their_mask_is_written(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    monkeypatch.setattr(projects, "_MEMORY", 64 * 56)
    with open_project(folder) as project:

        def slow(image, labels, table):
            monkeypatch.setattr(projects, "write_labels", write_labels)
            project.labels(1)  # another image is opened, and memory is short
            project.paint(0, stroke(0, y=30))
            write_labels(image, labels, table)

        monkeypatch.setattr(projects, "write_labels", slow)
        project.paint(0, stroke(1))
        project.save()
    assert np.bincount(read(folder / "masks" / "im0.png").ravel())[:2].tolist() == [50, 50]


@pytest.mark.usefixtures("masks_on_demand")
def test_labels_of_many_images_do_not_fill_the_memory(tmp_path, monkeypatch):
    folder = raw_images(tmp_path)
    monkeypatch.setattr(projects, "_MEMORY", 64 * 56)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
        project.labels(1)
        assert project.images[0].labels is not None  # its mask is not written yet
        project.save()
        project.labels(2)
        assert project.images[0].labels is None
        assert (project.labels(0) == 1).sum() == 50


def test_two_threads_paint_side_by_side(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:

        def paint(value):
            for y in range(50):
                project.paint(0, stroke(value, x=20 * value, y=y, shape=(5, 10)))

        threads = [threading.Thread(target=paint, args=(value,)) for value in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        due = blank()
        due[:54, :10], due[:54, 20:30] = 0, 1
        np.testing.assert_array_equal(project.labels(0), due)
        assert project.images[0].labelled == 2 * 540
    np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), due)


# --- accepting, and the next image ---------------------------------------------------------------


def test_accepting_takes_the_answer_where_nothing_is_painted(tmp_path):
    folder = raw_images(tmp_path)
    answer = np.zeros((32, 28), np.uint8)
    answer[16:] = 1
    with open_project(folder) as project:
        project.paint(0, stroke(1))
        project.accept(0, answer)
        assert project.images[0].state == "accepted"
        project.paint(0, stroke(0, y=40))
        assert project.images[0].state == "accepted"
    due = np.repeat([0, 1], 32 * 56).reshape(64, 56)
    due[4:9, 3:13], due[40:45, 3:13] = 1, 0
    np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), due)
    with open_project(folder) as project:
        assert project.images[0].state == "accepted"
        project.reopen(0)
    with open_project(folder) as project:
        assert project.images[0].state == "begun"
        np.testing.assert_array_equal(project.labels(0), due)


def test_an_answer_is_enlarged_as_the_page_does():
    small = np.arange(6, dtype=np.uint8).reshape(2, 3)
    due = [[small[y * 2 // 5, x * 3 // 7] for x in range(7)] for y in range(5)]
    np.testing.assert_array_equal(enlarge(small, (5, 7)), due)


def test_an_image_of_nothing_is_the_first_class(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.accept_empty(1)
        assert project.images[1].state == "empty"
    assert not read(folder / "masks" / "im1.png").any()
    with open_project(folder) as project:
        assert project.images[1].state == "empty"


def test_erasing_all_makes_an_image_untouched(tmp_path):
    with open_project(raw_images(tmp_path)) as project:
        project.paint(0, stroke(1))
        assert project.images[0].state == "begun"
        project.paint(0, stroke(255))
        assert project.images[0].state == "untouched"


# --- classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["#ffffff", "#ff0000", "#808080", "#000000"])
def test_a_new_colour_is_in_every_mask_and_all_stay_readable(tmp_path, colour):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        for k in range(2):
            project.paint(k, stroke(0))
            project.paint(k, stroke(1, y=20))
        project.save()
        for each in ("#ffffff", colour):
            project.change_classes(project.table.changed([], [f"object={each}"]), [0, 1])
    with Image.open(folder / "masks" / "im1.png") as mask:
        assert bytes(mask.getpalette()[3:6]).hex() == colour[1:]
    assert inspect_folder(folder).counts.tolist() == [[50, 50], [50, 50]]
    with open_project(folder) as project:
        assert (project.labels(1) == 1).sum() == 50


def test_a_class_that_is_left_out_frees_its_place(tmp_path):
    folder = write_set(tmp_path / "set", 2)
    with open_project(folder) as project:
        square = project.labels(0) == 1
        for k in range(2):
            labels = project.labels(k)
            project.paint(k, Stroke("", 0, 0, np.where(labels == 2, 0, labels)))
        table = project.table
        with pytest.raises(InputError, match=r"square.*pixels in im0"):
            project.change_classes(ClassTable(table.classes[:1], (255,)), [0])
        kept = (table.classes[0], table.classes[1])
        project.change_classes(ClassTable(kept, (255,)), [0, 1])
        np.testing.assert_array_equal(project.labels(0) == 1, square)
    assert [c.name for c in inspect_folder(folder).table.classes] == ["ground", "square"]


def test_a_stroke_whose_mask_could_not_be_written_outlives_a_class_that_is_left_out(
    tmp_path, monkeypatch
):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        fail = fill_disk(monkeypatch)
        project.paint(0, stroke(1))
        less = ClassTable(project.table.classes[1:], project.table.ignore)
        with pytest.raises(MachineError):
            project.change_classes(less, [1])
        fail[0] = False
        project.change_classes(less, [1])
        assert (project.labels(0) == 0).sum() == 50
    assert (read(folder / "masks" / "im0.png") == 1).sum() == 50


# --- one owner -----------------------------------------------------------------------------------


def test_the_second_process_is_told_who_labels_the_folder(tmp_path):
    folder = raw_images(tmp_path / "set")
    code = f"Path({str(folder)!r})"
    code = f"from unetseg.labelling.project import open_project; open_project({code}).__enter__()"
    with open_project(folder) as project:
        project.paint(0, stroke(1))
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-c", f"from pathlib import Path; {code}"]
        second = subprocess.run(line, env=env, capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in second.stderr
        project.paint(0, stroke(0, y=20))
    with open_project(folder) as project:  # free again
        assert project.images[0].labelled == 100


def test_what_is_remembered_is_no_path_of_this_machine(tmp_path):
    folder = raw_images(tmp_path)
    with open_project(folder) as project:
        project.paint(0, stroke(1))
    text = (folder / ".unetseg" / "images.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["images"]["im0"]["labelled"] == 50
