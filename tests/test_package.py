"""The house: who may import whom, what is public, and what no module does."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import unetseg

ROOT = Path(unetseg.__file__).parent
# Every module in one order; each may import those before it, and no other. Floor by floor.
ORDER = (
    # ground
    *("unetseg", "errors", "config", "plugins", "classes", "atomic", "interrupts", "progress"),
    # core: arrays and tensors
    *("devices", "distributed"),
    *(
        "synthesis",
        "masks",
        "snapping",
        "patches",
        "pixels",
        "drawing",
        "charts",
        "cases",
        "intervals",
        "metrics",
        "losses",
        "augmentation",
    ),
    *("boundaries", "calibration", "objects", "postprocessing"),
    *("networks", "optimization", "batches", "segmentation", "likeness"),
    # files
    *("csv_tables", "georeference", "pictures", "tiffs", "images", "rasters"),
    *("folder", "store", "checkpoints", "runs"),
    # work
    *(
        "pages",
        "views",
        "inspection",
        "contact_sheet",
        "annotations",
        "conversion",
        "preparation",
        "models",
        "summary",
        "inference",
        "evaluation",
        "comparison",
        "suspects",
        "suspect_sheet",
        "onnx_export",
        "suggestions",
        "floors",
        "report",
        "html_report",
    ),
    *("events", "learner", "trainer", "training", "fold_record", "cross_validation", "reporting"),
    # face
    *("cli", "cli.console", "cli.tables", "cli.completion", "cli.options", "cli.settings"),
    *("cli.synth", "cli.check", "cli.patch", "cli.train", "cli.predict", "cli.evaluate"),
    *("cli.compare", "cli.suspects", "cli.suggest", "cli.export"),
    *("cli.info", "cli.runs", "cli.convert", "cli.app", "__main__"),
)
GROUND = ORDER[1:8]
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text("utf-8")
    )
    for path in sorted(ROOT.rglob("*.py"))
}
TREES["unetseg"] = TREES.pop("__init__")


def imports_of(tree):
    """Return the dotted names that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# The package itself names all floors to type checkers, and imports none of them.
IMPORTS = {name: imports_of(tree) for name, tree in TREES.items() if name != "unetseg"}


def ours(dotted):
    """Return the module of ours that an imported name is or lies in."""
    name = dotted.removeprefix("unetseg").removeprefix(".")
    while name and name not in TREES:
        name = name.rpartition(".")[0]
    return name or "unetseg"


def test_every_module_stands_in_the_order():
    assert sorted(TREES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_arrows_go_down_only(module):
    place = ORDER.index(module)
    used = {ours(name) for name in IMPORTS.get(module, ()) if name.split(".")[0] == "unetseg"}
    assert {name for name in used if ORDER.index(name) >= place} == set()


def test_the_ground_stands_on_the_standard_library():
    for module in GROUND:
        tops = {name.split(".")[0] for name in IMPORTS[module]} - {"unetseg"}
        assert tops <= sys.stdlib_module_names, module


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("imageio", {"images"}),
        ("tifffile", {"images", "rasters", "tiffs"}),
        ("PIL", {"images", "pixels", "drawing", "tiffs"}),
        ("h5py", {"store"}),
        ("safetensors", {"checkpoints"}),
    ],
)
def test_each_format_has_one_home(package, homes):
    users = {m for m, names in IMPORTS.items() if any(n.split(".")[0] == package for n in names)}
    assert users <= homes


def calls_of(tree):
    """Yield (dotted name of what is called, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_pillow_opens_and_saves_files_in_images_alone():
    for module in ("pixels", "drawing"):
        names = {name for name, _ in calls_of(TREES[module])}
        assert not {n for n in names if n == "Image.open" or n.endswith(".save")}, module


def test_nothing_is_unpickled():
    for module, tree in TREES.items():
        for name, call in calls_of(tree):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert "allow_pickle" not in keywords, module
            assert keywords.get("weights_only") != "False", module
            if name == "torch.load":
                assert module == "checkpoints"
                assert keywords["weights_only"] == "True"
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), module


def test_pickle_is_named_for_its_errors_alone():
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle":
                assert node.attr == "UnpicklingError", module


def test_nothing_is_printed_below_the_face():
    for module, tree in TREES.items():
        names = {name for name, _ in calls_of(tree)}
        assert "print" not in names, module
        if not module.startswith("cli"):
            assert not {n for n in names if n.startswith(("sys.stdout", "sys.stderr.write"))} - {
                "sys.stderr.isatty",
                "sys.stderr.fileno",
            }, module


def test_files_are_written_in_one_way():
    # atomic is the way; a store fills the temporary file it was given; a lock is no content.
    allowed = {"atomic": {"write_bytes"}, "store": {"open"}}
    for module, tree in TREES.items():
        for name, call in calls_of(tree):
            last = name.rpartition(".")[2]
            modes = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
            constants = [value.value for value in modes if isinstance(value, ast.Constant)]
            modes = [c for c in constants if isinstance(c, str) and MODE.fullmatch(c)]
            writes = last in ("write_text", "tofile", "savetxt", "dump")
            writes |= last == "open" and bool(modes)
            writes |= last == "write_bytes" and name not in ("atomic.write_bytes", "write_bytes")
            assert not writes or last in allowed.get(module, ()), f"{module}: {ast.unparse(call)}"


MODE = re.compile("[wax]b?t?[+]?b?|rb?[+]b?")  # of `open`, for writing


def test_every_public_name_resolves():
    assert sorted(unetseg.__all__) == list(unetseg.__all__)
    for name in unetseg.__all__:
        value = getattr(unetseg, name)
        assert value.__doc__, name
    for name in ("read_image", "Trainer", "nonsense"):
        with pytest.raises(AttributeError, match=name):
            getattr(unetseg, name)


def test_names_for_type_checkers_are_the_public_ones():
    (block,) = (n for n in ast.parse((ROOT / "__init__.py").read_text()).body if type(n) is ast.If)
    names = {alias.name for node in block.body for alias in node.names}
    assert names == set(unetseg.__all__)


def test_functions_do_not_hide_modules():
    for name in unetseg.__all__:
        assert name not in TREES, f"from unetseg import {name} is ambiguous"


def test_import_of_the_package_is_quick():
    script = (
        "import sys, unetseg; heavy = {'torch', 'numpy', 'h5py', 'imageio', 'PIL', 'rich'}; "
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_module_says_what_it_is(module):
    assert module == "cli" or ast.get_docstring(TREES[module]), module
    dotted = "unetseg" if module == "unetseg" else f"unetseg.{module}"
    if module != "__main__":
        import_module(dotted)
