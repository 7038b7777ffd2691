"""Labels that can be read in two ways: one question, and each way on leads where it says.

Files are written with Pillow and tifffile, never with unetseg.
"""

import numpy as np
import pytest

from tests.dataset.test_label_traps import mask_of, png, write
from tests.support import DATA
from unetseg.dataset.conversion import convert_folder
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.errors import UnetsegWarning


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


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("name", ["lines-ellipses", "camvid-100", "drive-20", "membranes-20"])
def test_real_sets_are_asked_nothing(tmp_path, name):
    for folder in ("images", "masks", "1st_manual"):
        if (source := DATA / name / folder).is_dir():
            (tmp_path / folder).symlink_to(source)
    assert asked(tmp_path, "?") is None
