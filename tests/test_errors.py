"""Errors: the words are for people, the class and the code are for programs."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import unetseg
from unetseg.errors import (
    Code,
    InputError,
    Interrupted,
    UnetsegError,
    arg,
    as_argument,
    as_option,
    either,
    worded,
)

ROOT = Path(unetseg.__file__).parent
WORDS = {"what", "problem", "remedy", "message"}
READS = {"startswith", "endswith", "partition", "rpartition", "split", "find", "index"}


def test_a_message_speaks_of_arguments_in_python_and_of_options_on_the_command_line():
    error = InputError(
        arg("batch_size"),
        f"does not fit {arg('scale', 0.5)}",
        f"give {arg('overwrite', True)} or {arg('start_from', 'my run')}",
    )
    in_python = "batch_size: does not fit scale=0.5; give overwrite=True or start_from='my run'"
    assert str(error) == in_python
    typed = "--batch-size: does not fit --scale 0.5; give --overwrite or --from 'my run'"
    assert worded(error.message, as_option) == typed
    assert worded(error.message, as_argument) == in_python
    assert error.argument == "batch_size"


def test_a_whole_number_is_said_without_a_point():
    error = InputError("a", "has lines", f"give {arg('line_width', 3.0)} or {arg('scale', 0.5)}")
    assert str(error) == "a: has lines; give line_width=3 or scale=0.5"
    assert worded(error.message, as_option) == "a: has lines; give --line-width 3 or --scale 0.5"


def test_words_for_the_command_line_are_other_ones_in_python():
    line = either("unetseg train 'my set'", "unetseg.train('my set')")
    error = InputError("runs/a", "is new", f"go on with: {line}")
    assert str(error) == "runs/a: is new; go on with: unetseg.train('my set')"
    assert worded(error.message, as_option) == "runs/a: is new; go on with: unetseg train 'my set'"


LINE = re.compile(
    "unetseg (train|patch|predict|evaluate|check|convert|compare|suspects|suggest|export|info|runs)"
)
# These say commands for people at a terminal: lines of findings, of a run, pages, the labelling.
TYPED = {"train_line", "resume_line", "Commands"}


def lines_said(tree):
    """Yield the texts that name a command, but for docstrings and the words of `either`."""
    for node in ast.iter_child_nodes(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called == "either" or getattr(node, "name", "") in TYPED:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Constant) and LINE.search(str(node.value)):
            yield node.value
        yield from lines_said(node)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(ROOT.rglob("*.py")) if p.parent.name not in ("cli", "reports", "labelling")],
    ids=lambda p: p.stem,
)
def test_no_message_of_the_library_tells_a_notebook_to_type_a_command(path):
    assert list(lines_said(ast.parse(path.read_text("utf-8")))) == []


def test_an_error_of_a_file_has_no_argument_and_keeps_the_path():
    error = InputError(Path("a/b.png"), "is empty", "copy it again")
    assert (error.argument, error.subject) == ("", Path("a/b.png"))
    assert str(error) == "a/b.png: is empty; copy it again"


def test_a_list_is_typed_with_commas():
    assert as_option("order", ["cell", "nucleus"]) == "--order cell,nucleus"


def test_a_choice_is_typed_as_it_is_or_with_no():
    assert [as_option("spread", value) for value in (True, False)] == ["--spread", "--no-spread"]


def test_a_program_asks_for_the_code_and_for_the_argument_that_helps():
    error = InputError("mask.png", "is odd", code=Code.BLENDED_MASK, give=("ignore", 255))
    assert error.code is Code.BLENDED_MASK
    assert as_option(*error.give) == "--ignore 255"
    assert InputError("mask.png", "is odd").code is None


def test_a_signal_is_known_by_its_number():
    error = Interrupted(15, "runs/a", "stopped by SIGTERM")
    assert (error.signum, error.exit_code) == (15, 143)


def test_the_marks_of_arguments_never_reach_a_person():
    assert not re.search("[\ufdd0\ufdd1]", str(UnetsegError(arg("lr"), f"and {arg('val')}")))


def test_the_public_errors_can_be_caught_by_class():
    for kind in (unetseg.InputError, unetseg.MachineError, unetseg.Interrupted):
        assert issubclass(kind, unetseg.UnetsegError)
    with pytest.raises(unetseg.InputError) as caught:
        unetseg.TrainSettings(lr=-1.0)
    assert caught.value.argument == "lr"


def reads_words(node):
    """Whether an expression is the text of an error: ``error.problem``, ``str(error)``."""
    if isinstance(node, ast.Attribute):
        return node.attr in WORDS and "error" in ast.unparse(node.value).lower()
    return isinstance(node, ast.Call) and re.fullmatch(r"str\((error|first)\)", ast.unparse(node))


def decisions(tree):
    """Yield each place where the program compares, searches or splits the text of an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(map(reads_words, [node.left, *node.comparators])):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            searched = isinstance(node.func, ast.Attribute) and node.func.attr in READS
            if searched and reads_words(node.func.value):
                yield ast.unparse(node)
            if ast.unparse(node.func).startswith("re.") and any(map(reads_words, node.args)):
                yield ast.unparse(node)


# Errors of other libraries have no code; these ask for their text all the same.
FOREIGN = {
    "errors.py",
    "pictures/tiff.py",
    "ranks.py",
    "dataset/store.py",
    "dataset/store_writer.py",
    "training/starting.py",
}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_decides_by_the_words_of_an_error(path):
    found = list(decisions(ast.parse(path.read_text("utf-8"))))
    if path.relative_to(ROOT).as_posix() not in FOREIGN:
        assert found == []


def test_a_decision_by_words_would_be_found():
    for code in ("'x' in error.problem", "error.what == 'a'", "re.search('x', str(error))"):
        assert list(decisions(ast.parse(code)))
    assert list(decisions(ast.parse("error.remedy.split(';')")))


def test_an_error_about_a_subject_names_it_once():
    error = InputError(
        Path("a.png"), "is empty", "export it again", code=Code.BLENDED_MASK, give=("ignore", 255)
    )
    assert error.about(Path("a.png")) is error
    other = error.about("b.png")
    assert (type(other), other.subject) == (InputError, "b.png")
    assert str(other) == "b.png: a.png: is empty; export it again"
    assert (other.code, other.give) == (Code.BLENDED_MASK, ("ignore", 255))
    assert error.subject == Path("a.png")


def test_an_error_reaches_another_process_whole():
    for error in (
        InputError(
            Path("a.png"), "is odd", "mend it", code=Code.BLENDED_MASK, give=("ignore", 255)
        ),
        Interrupted(15, "runs/a", "stopped by SIGTERM"),
    ):
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))
