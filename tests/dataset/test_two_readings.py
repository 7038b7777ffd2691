"""Labels that can be read in two ways: one question, and each way on leads where it says.

Files are written with Pillow and tifffile, never with unetseg.
"""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.dataset.test_label_traps import grey_of, mask_of, png, tif, write, write_with_line
from tests.objects.test_numbering import cells
from tests.support import DATA, typed
from unetseg.classes import colour_to_rgb
from unetseg.cli.app import main
from unetseg.dataset.conversion.copying import convert_folder
from unetseg.dataset.cutting import build_store
from unetseg.dataset.findings.contents import ask_kinds
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.errors import InputError, UnetsegWarning, as_option


def toml_of(root, **keys):
    """List classes of a set by their values or colours."""
    entries = (
        f'[[class]]\nname = "{n}"\n{"colour" if isinstance(k, str) else "value"} = {k!r}\n'
        for n, k in keys.items()
    )
    (root / "classes.toml").write_text("".join(entries))


def asked(root, text):
    """Return the only finding whose words hold a text; None where there is none."""
    found = [f for f in inspect_folder(root).findings if text in str(f)]
    assert len(found) < 2
    return found[0] if found else None


# --- one class, written by two programs ------------------------------------------------------


def mapped(*values):
    """Return a writer whose even images have the first values, whose odd ones the second."""
    return lambda p, k: png(p, np.array(values[k % 2], np.uint8)[mask_of(k)])


KINDS = {
    "1 and 2": ([0, 1, 1], [0, 2, 2]),
    "1 and 128": ([0, 1, 1], [0, 128, 128]),
    "1 and 254": ([0, 1, 1], [0, 254, 254]),
    "two values each": ([0, 1, 2], [0, 100, 200]),
    "from 0 and from 1": ([0, 1, 1], [1, 2, 2]),
    "red and blue": ([(0, 0, 0), *2 * [(255, 0, 0)]], [(0, 0, 0), *2 * [(0, 0, 255)]]),
}
NEVER = "never meet in one mask"


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_never_meet_are_asked_about_and_both_ways_lead_on(tmp_path, kind):
    root = write(tmp_path / "set", mask=mapped(*KINDS[kind]))
    question = asked(root, NEVER)
    assert (question.severity, inspect_folder(root).errors) == ("warning", ())
    with pytest.warns(UnetsegWarning, match=NEVER):
        done = convert_folder(root, tmp_path / "all")
    names = {f"class {name}": inspect_folder(root).table[name] for name in done.classes.names}
    toml_of(root, **{n: c.colour if c.value is None else c.value for n, c in names.items()})
    assert asked(root, NEVER) is None  # different classes: they are listed
    convert_folder(root, tmp_path / "listed")  # a warning would be an error here
    (root / "classes.toml").unlink()
    for k in range(4):  # the same classes: each kind from a folder of its own
        for place in ("images", "masks"):
            (tmp_path / f"kind{k % 2}" / place).mkdir(parents=True, exist_ok=True)
            (root / place / f"im{k}.png").rename(tmp_path / f"kind{k % 2}" / place / f"im{k}.png")
    copies = [convert_folder(tmp_path / f"kind{i}", tmp_path / f"copy{i}") for i in (0, 1)]
    values = [[c.value for c in copy.classes] for copy in copies]
    assert values[0] == values[1] == list(range(len(set(KINDS[kind][0]))))


@pytest.mark.parametrize("command", ["check", "patch", "convert"])
def test_every_command_asks_about_kinds_in_its_own_words(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", mask=mapped(*KINDS["1 and 254"]))
    assert (
        main([command, "set", *{"patch": ("--size", "16"), "convert": ("out",)}.get(command, ())])
        == 0
    )
    shown = capsys.readouterr()
    (line,) = [line for line in (shown.out + shown.err).splitlines() if NEVER in line]
    assert line.startswith("warning: set: 1 (2 masks) and 254 (2 masks) never meet")
    assert "list them in a classes.toml (--classes); the same: convert" in line


NO_KINDS = {
    "all classes meet": lambda p, k: png(p, mask_of(k)),
    "they meet in one mask": lambda p, k: png(
        p, np.array([(0, 1, 1), (0, 2, 2), (0, 1, 2), (0, 1, 1)], np.uint8)[k][mask_of(k)]
    ),
    "one mask alone is other": lambda p, k: png(p, (mask_of(k) > 0) * np.uint8(1 + (k == 3))),
    "two of a scene's classes": lambda p, k: png(
        p, np.array([0, 1, 2 + k % 2], np.uint8)[mask_of(k)]
    ),
    "three kinds": lambda p, k: png(p, (mask_of(k) > 0) * np.uint8(1 + k % 3)),
}


@pytest.mark.parametrize("kind", NO_KINDS)
def test_classes_that_are_no_two_kinds_are_not_asked_about(tmp_path, kind):
    assert asked(write(tmp_path / "set", mask=NO_KINDS[kind]), NEVER) is None


@pytest.mark.parametrize(
    ("one", "other", "neither", "is_asked"),
    [
        (2, 2, 0, True),  # 1 of 6 ways to choose 2 of 4 masks
        (2, 2, 6, False),  # 28 of 45 ways to choose 2 of 10
        (3, 3, 4, False),  # 35 of 120
        (4, 4, 2, True),  # 15 of 210
        (1, 20, 0, False),
        (5000, 5000, 10, True),
    ],
)
def test_rare_classes_that_do_not_meet_by_chance_are_not_asked_about(one, other, neither, is_asked):
    rows = [(True, True, False)] * one + [(True, False, True)] * other
    present = np.array(rows + [(True, False, False)] * neither)
    assert (ask_kinds(present, ("ground", "a", "b")) is not None) == is_asked


# --- a background that is a number -----------------------------------------------------------


def numbered(k, ground=1, lines=False):
    """Return (160, 200) with objects numbered from 2 (from 1 where ``ground`` is 0)."""
    mask = cells(k, 9 + k)
    mask[mask > 0] += ground > 0
    mask[mask == 0] = ground
    if lines:
        mask[ndimage.grey_dilation(mask, (3, 3)) != mask] = 0  # as a watershed leaves them
    return mask


def write_numbered(root, kind=np.uint8, **how):
    def mask(path, k):
        png(path, numbered(k, **how).astype(kind))

    return write(root, lambda p, k: png(p, cells(k, 9 + k)), mask)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_number_that_may_be_the_background_is_asked_about_with_three_ways_on(
    tmp_path, kind, lines
):
    root = write_numbered(tmp_path / "set", kind, lines=lines)
    with pytest.raises(InputError, match="1 is the commonest and reaches all edges") as error:
        convert_folder(root, tmp_path / "no", instances=True)
    assert "--ignore 1" in typed(error.value)
    assert "--classes" in typed(error.value)
    counted = [9 + k for k in range(4)]
    file = tmp_path / "ground.toml"
    for value, objects, ignored in ((1, sum(counted), 0), (0, sum(counted) + 4, 0)):
        file.write_text(f'[[class]]\nname = "background"\nvalue = {value}\n')
        out = tmp_path / f"as{value}"
        done = convert_folder(root, out, instances=True, classes=file)
        assert (done.objects, done.ignored) == (objects, ignored)
        for k in range(4):
            mask, found = numbered(k, lines=lines), np.asarray(Image.open(out / f"masks/im{k}.png"))
            np.testing.assert_array_equal(found > 0, mask > value)
    done = convert_folder(root, tmp_path / "hidden", instances=True, ignore=1)
    assert done.objects == sum(counted)
    assert done.ignored == sum(int((numbered(k, lines=lines) == 1).sum()) for k in range(4))


def large(k):
    """Return one large object and a small one on a background of 0."""
    mask = np.zeros((60, 80), np.uint8)
    mask[2:-2, 2 + k : -2] = 1
    mask[20:30, 30:40] = 2
    return mask


def crowded(k):
    """Return 12 objects that leave no background."""
    order = np.random.default_rng(k).permutation(12).reshape(3, 4) + 1
    return np.kron(order, np.ones((20, 20))).astype(np.uint8)


@pytest.mark.parametrize("draw", [lambda k: numbered(k, ground=0), large, crowded])
def test_numbered_objects_on_a_background_of_0_or_without_one_are_not_asked_about(tmp_path, draw):
    shifted = lambda p, k: png(p, np.roll(draw(k), 3))  # noqa: E731
    root = write(tmp_path / "set", shifted, lambda p, k: png(p, draw(k)))
    done = convert_folder(root, tmp_path / "out", instances=True)
    assert done.objects == sum(len(np.unique(draw(k)[draw(k) > 0])) for k in range(4))


def test_numbers_of_one_class_each_are_asked_about_a_background_too(tmp_path):
    root = write_numbered(tmp_path / "set")
    (root / "masks").rename(root / "cell")
    (root / "masks").mkdir()
    (root / "cell").rename(root / "masks/cell")
    with pytest.raises(InputError, match="store the background as 0"):
        convert_folder(root, tmp_path / "out", instances=True)


def test_a_number_255_far_above_the_others_is_asked_about_with_both_ways_on(tmp_path):
    root = write_numbered(tmp_path / "set", ground=0)
    for k in range(4):
        mask = numbered(k, ground=0)
        mask[:12] = 255
        png(root / f"masks/im{k}", mask)
    with pytest.raises(InputError, match="255 stands far above the other numbers") as caught:
        convert_folder(root, tmp_path / "no", instances=True)
    assert as_option(*caught.value.give) == "--ignore 255"
    (error,) = inspect_folder(root, ignore=255).errors  # its line carries the option
    assert error.line == f"unetseg convert {root} {root}-converted --ignore 255 --instances"
    with pytest.raises(InputError) as caught:
        build_store(root, tmp_path / "no.h5", ignore=255)
    call = f"unetseg.convert_folder('{root}', '{root}-converted', ignore=[255], instances=True)"
    assert str(caught.value).endswith(call)
    done = convert_folder(root, tmp_path / "hidden", instances=True, ignore=255)
    assert done.ignored == 4 * 12 * 200
    kept = [mask[12:] for mask in (numbered(k, ground=0) for k in range(4))]
    assert done.objects == sum(len(np.unique(mask[mask > 0])) for mask in kept)
    for k in range(4):  # an object: numbered as the others are
        mask = numbered(k, ground=0)
        mask[:12] = mask.max() + 1
        png(root / f"masks/im{k}", mask)
    again = convert_folder(root, tmp_path / "object", instances=True)
    assert (again.objects, again.ignored) == (done.objects + 4, 0)


def test_300_objects_have_a_number_255_without_a_question(tmp_path):
    mask = (np.arange(300, dtype=np.uint16) + 1).reshape(15, 20)
    for place, pixels in (("images", np.uint8(mask % 200)), ("masks", mask)):
        (tmp_path / "set" / place).mkdir(parents=True)
        png(tmp_path / f"set/{place}/a", np.kron(pixels, np.ones((3, 3), pixels.dtype)))
    assert convert_folder(tmp_path / "set", tmp_path / "out", instances=True).objects == 300


def test_numbered_objects_on_a_transparent_background_are_asked_about(tmp_path):
    root = write_numbered(tmp_path / "set", ground=0)
    paint = np.random.default_rng(0).integers(40, 255, (64, 4)).astype(np.uint8)
    paint[:, 3], paint[0] = 255, 0
    for k in range(4):
        png(root / f"masks/im{k}", paint[numbered(k, ground=0)])
    with pytest.raises(InputError, match=r"the background, or not labelled\?"):
        convert_folder(root, tmp_path / "no", instances=True)
    toml_of(root, background="#000000")  # not labelled
    objects = sum(9 + k for k in range(4))
    assert convert_folder(root, tmp_path / "hidden", instances=True).objects == objects
    (root / "classes.toml").unlink()
    for path in root.glob("masks/*.png"):  # the background
        black = Image.new("RGBA", (200, 160), "black")
        Image.alpha_composite(black, Image.open(path)).convert("RGB").save(path)
    done = convert_folder(root, tmp_path / "flat", instances=True)
    assert (done.objects, done.ignored) == (objects, 0)


def test_the_classes_of_a_set_of_numbered_objects_are_obeyed(tmp_path):
    root = write_numbered(tmp_path / "set")
    text = '[[class]]\nname = "ground"\nvalue = 1\n[[class]]\nname = "cell"\nvalue = 2\n'
    (root / "classes.toml").write_text("ignore = [3]\n" + text.replace("ground", "background"))
    done = convert_folder(root, tmp_path / "out", instances=True)
    assert done.classes.names == ("background", "cell", "cell border")
    assert done.objects == sum(8 + k for k in range(4))
    assert done.ignored == sum(int((numbered(k) == 3).sum()) for k in range(4))


# --- colours that hardly differ --------------------------------------------------------------


@pytest.mark.parametrize("other", ["#fe0000", "#ff0808", "#f70000"])
def test_nearly_equal_colours_are_asked_about_and_both_ways_lead_on(tmp_path, other):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)

    def painted(path, k):
        pixels = colours[mask_of(k)]
        pixels[4 + k : 6 + k, 6 + 4 * k : 10 + 4 * k] = colour_to_rgb(other)  # in the block
        png(path, pixels)

    root = write(tmp_path / "set", mask=painted)
    low, high = sorted([other, "#ff0000"])
    (error,) = inspect_folder(root).errors
    assert f"{low} and {high} differ by" in str(error)
    assert f"all but {other} (32 pixels)" in str(error)
    assert error.line == f"unetseg convert {root} {root}-converted"
    for work in (convert_folder, build_store):
        with pytest.raises(InputError, match=f"{low} and {high} differ by"):
            work(root, tmp_path / "no")
    toml_of(root, ground="#000000", block="#ff0000", stripe="#00ff00")
    convert_folder(root, tmp_path / "one")
    for k in range(4):
        found = np.asarray(Image.open(tmp_path / f"one/masks/im{k}.png"))
        np.testing.assert_array_equal(found, mask_of(k))
    toml_of(root, ground="#000000", block="#ff0000", stripe="#00ff00", other=other)
    assert inspect_folder(root).errors == ()
    assert len(convert_folder(root, tmp_path / "two").classes) == 4


@pytest.mark.parametrize("in_colour", [False, True])
def test_white_and_nearly_white_are_asked_about_and_all_three_ways_lead_on(tmp_path, in_colour):
    def nearly_white(path, k):
        mask = np.where(mask_of(k) > 0, 255, 0).astype(np.uint8)
        mask[4 + k, 6 + 4 * k : 10 + 4 * k] = 254
        png(path, np.repeat(mask[..., None], 3, 2) if in_colour else mask)

    root = write(tmp_path / "set", mask=nearly_white)
    (error,) = inspect_folder(root).errors
    assert "254 and 255 differ by 1 level of 255: two classes?" in str(error)
    assert "all but 254 (16 pixels)" in str(error)
    assert inspect_folder(root, ignore=255).table.names == ("0", "254")
    toml_of(root, ground=0, white=255)
    convert_folder(root, tmp_path / "one")
    for k in range(4):
        found = np.asarray(Image.open(tmp_path / f"one/masks/im{k}.png"))
        np.testing.assert_array_equal(found, mask_of(k) > 0)
    toml_of(root, ground=0, white=255, other=254)
    assert len(convert_folder(root, tmp_path / "two").classes) == 3


def test_colours_that_can_be_told_apart_and_neighbouring_values_are_classes(tmp_path):
    colours = np.array([(0, 0, 0), (255, 0, 0), (246, 0, 0)], np.uint8)
    assert not inspect_folder(
        write(tmp_path / "colours", mask=lambda p, k: png(p, colours[mask_of(k)]))
    ).errors
    assert not inspect_folder(write(tmp_path / "values")).errors


# --- a transparent background ----------------------------------------------------------------


def clear_ground(*colours):
    """Return a writer of masks in which all but the block and the stripe is transparent."""
    paint = np.array([(0, 0, 0, 0), *colours], np.uint8)
    return lambda p, k: png(p, paint[mask_of(k)])


RED, GREEN, BLACK = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 0, 255)
CLEAR = {
    "one colour": (RED, RED),
    "black": (BLACK, BLACK),
    "two colours": (RED, GREEN),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_a_transparent_background_is_asked_about_and_both_ways_lead_on(tmp_path, kind):
    root = write(tmp_path / "set", mask=clear_ground(*CLEAR[kind]))
    (error,) = inspect_folder(root).errors
    assert "transparent or without data" in str(error)
    assert "the background, or not labelled?" in str(error)
    for work in (convert_folder, build_store):
        with pytest.raises(InputError, match=r"the background, or not labelled\?"):
            work(root, tmp_path / "no")
    flat = write(tmp_path / "flat")  # the background: filled with a colour of its own
    for path in sorted(root.glob("masks/*.png")):
        picture, white = Image.open(path), Image.new("RGBA", (48, 40), "white")
        Image.alpha_composite(white, picture).convert("RGB").save(flat / "masks" / path.name)
    assert inspect_folder(flat).errors == ()
    assert inspect_folder(flat).counts.sum() == 4 * 40 * 48
    if kind == "two colours":  # not labelled: the classes are listed
        toml_of(root, block="#ff0000", stripe="#00ff00")
        found = inspect_folder(root)
        assert found.errors == ()
        assert found.counts.sum() == 4 * (12 * 14 + 4 * 48)
        assert convert_folder(root, tmp_path / "out").ignored == 4 * 40 * 48 - found.counts.sum()
    else:
        for path in root.glob("masks/*.png"):  # not labelled: some of the background is
            pixels = np.array(Image.open(path))
            pixels[:30][pixels[:30, :, 3] == 0] = (0, 0, 255, 255)
            Image.fromarray(pixels).save(path)
        assert inspect_folder(root).errors == ()


# --- a line whose colour lies between two others ---------------------------------------------


@pytest.mark.parametrize("middle", [(100, 0, 0), (120, 120, 120)])
def test_a_line_that_may_be_a_blend_is_asked_about_by_convert_too(tmp_path, middle):
    root = write_with_line(tmp_path / "set", middle)
    (error,) = inspect_folder(root).errors
    assert "is nowhere wider than two pixels: a class, or a blend" in str(error)
    assert error.line == f"unetseg convert {root} {root}-converted"
    with pytest.raises(InputError) as caught:
        convert_folder(root, tmp_path / "no")
    assert (caught.value.problem, caught.value.remedy) == (error.problem, error.remedy)
    low, line, high = (c.value if c.value is not None else c.colour for c in table_of_set(root))
    toml_of(root, low=low, high=high)  # a blend
    assert convert_folder(root, tmp_path / "blend").blended == 4 * 13
    toml_of(root, low=low, line=line, high=high)  # a class
    assert inspect_folder(root).errors == ()
    assert len(convert_folder(root, tmp_path / "class").classes) == 3


def table_of_set(root):
    table = inspect_folder(root).table
    return [table.classes[0], *sorted(table.classes[1:], key=lambda c: c.value or c.colour)]


# --- masks that hold no classes at all -------------------------------------------------------


def shares(k):
    """Return smooth probabilities, 0 to 1."""
    wide = np.kron((mask_of(k) > 0).astype(float), np.ones((8, 8)))
    field = ndimage.gaussian_filter(wide, 10 + k)
    return field / field.max()


def wide_image(path, k):
    png(path, np.kron(grey_of(k), np.ones((8, 8), np.uint8)))


SHARES = {
    "0 to 1": lambda p, k: tif(p, shares(k).astype(np.float32)),
    "0 to 255": lambda p, k: png(p, (shares(k) * 255).astype(np.uint8)),
    "0 to 65535": lambda p, k: tif(p, (shares(k) * 65535).astype(np.uint16)),
}


@pytest.mark.parametrize("is_listed", [False, True])
@pytest.mark.parametrize("kind", SHARES)
def test_probabilities_are_one_error_in_all_that_names_the_threshold(tmp_path, kind, is_listed):
    root = write(tmp_path / "set", image=wide_image, mask=SHARES[kind])
    if is_listed:
        toml_of(root, ground=0, block=255)
    (error,) = inspect_folder(root).errors
    assert "threshold it" in str(error)
    assert error.line == ""  # no conversion helps
    with pytest.raises(InputError):
        convert_folder(root, tmp_path / "out")


# --- ignored values, and the classes that are printed ----------------------------------------


def with_grey_254(path, k):
    """Save classes 0 and 255 as predictions have them whose first rows are ignored."""
    mask = np.where(mask_of(k) > 0, 255, 0).astype(np.uint8)
    mask[:3] = 254
    colours = np.zeros((256, 3), np.uint8)
    colours[254:] = [(128, 128, 128), (255, 255, 255)]
    picture = Image.fromarray(mask)
    picture.putpalette(colours.tobytes())
    picture.save(path.with_suffix(".png"))


def test_a_value_of_ignored_pixels_beside_a_class_255_is_asked_about_and_said(tmp_path, capsys):
    root = write(tmp_path / "set", mask=with_grey_254)
    (error,) = inspect_folder(root).errors
    assert error.line == f"unetseg check {root} --ignore 254"
    said = "254 in masks is ignored. 7.50 % of all pixels have no class."
    assert main(error.line.split()[1:]) == 0
    assert said in capsys.readouterr().out
    toml_of(root, ground=0, block=255)  # which does not name 254
    assert main(["check", str(root)]) == 0
    assert said in capsys.readouterr().out
    (root / "classes.toml").unlink()
    for k in range(4):
        png(root / f"masks/im{k}", mask_of(k))
    assert main(["check", str(root)]) == 0
    assert "is ignored" not in capsys.readouterr().out


def test_the_classes_found_are_printed_on_a_line_each_and_a_question_stands_below(tmp_path, capsys):
    root = tmp_path / "set"
    for k in range(8):
        for place in ("images", "masks"):
            (root / place).mkdir(parents=True, exist_ok=True)
            png(root / f"{place}/im{k}", cells(k, 3 + k % 3) * np.uint8(9 if place < "k" else 1))
    assert main(["check", str(root)]) == 2
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "class = [")
    end = lines.index("    ]", start)
    assert end - start == 1 + 6
    assert "classes, or one for each object?" in lines[end + 1]
    (root / "classes.toml").write_text("\n".join(lines[start : end + 1]))
    assert inspect_folder(root).errors == ()
    assert [c.value for c in inspect_folder(root).table] == list(range(6))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("name", ["lines-ellipses", "camvid-100", "drive-20", "membranes-20"])
def test_real_sets_are_asked_nothing(tmp_path, name):
    for folder in ("images", "masks", "1st_manual"):
        if (source := DATA / name / folder).is_dir():
            (tmp_path / folder).symlink_to(source)
    assert asked(tmp_path, "?") is None
