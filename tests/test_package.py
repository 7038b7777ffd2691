"""The house: which module may import which, the public names, and the acts that no module does."""

import ast
import graphlib
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from importlib import import_module
from pathlib import Path

import pytest

import unetseg

ROOT = Path(unetseg.__file__).parent
# The folders that each folder may use; the modules at the root are the ground of all.
LAYERS = {
    "pictures": set(),
    "network": set(),
    "features": {"pictures", "network"},
    "objects": {"pictures"},
    "dataset": {"pictures", "features", "objects"},
    "prediction": {"pictures", "objects", "dataset", "network"},
    "scoring": {"pictures", "objects", "dataset", "prediction"},
    "training": {"pictures", "dataset", "network", "features", "prediction", "scoring"},
    "labelling": {
        *("pictures", "features", "objects", "dataset", "prediction", "scoring", "training"),
    },
    "reports": {"pictures", "objects", "dataset", "prediction", "scoring", "training"},
}
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


def folder(module):
    """Return the folder of a module: "" of "errors", "dataset" of "dataset.exports.coco"."""
    top = module.partition(".")[0]
    return top if top in FOLDERS else ""


FOLDERS = {path.parent.name for path in ROOT.glob("*/__init__.py")}
# The folders, and those inside of them.
PACKAGES = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.rglob("*/__init__.py")}
ROOMS = sorted(m for m in IMPORTS if folder(m) != "cli" and m != "__main__")


def used_by(module):
    """Return the modules of ours that a module imports, anywhere in it."""
    return {ours(name) for name in IMPORTS[module] if name.split(".")[0] == "unetseg"}


@pytest.mark.parametrize("module", ROOMS)
def test_a_module_uses_its_own_folder_the_ground_and_the_folders_below(module):
    allowed = LAYERS.get(folder(module), set()) | {"", folder(module)}
    assert {name for name in used_by(module) if folder(name) not in allowed} == set()


def test_no_module_reaches_itself():
    graphlib.TopologicalSorter({m: used_by(m) for m in IMPORTS}).prepare()


def test_every_folder_has_its_place_and_fits_on_a_screen():
    assert {*LAYERS, "cli"} == FOLDERS
    for name in PACKAGES - {"cli"}:
        assert len(list((ROOT / name.replace(".", "/")).glob("*.py"))) <= 16, name


@pytest.mark.skipif(
    not (ROOT.parent / ".git").exists() or shutil.which("git") is None, reason="this is no clone"
)
def test_nothing_else_is_kept_at_the_top_level():
    # Git alone knows which files are kept, and asks who owns a clone unless it is told not to.
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    listing = subprocess.check_output(command, cwd=ROOT.parent, text=True)
    seen = {line.partition("/")[0] for line in listing.splitlines() if not line.startswith(".")}
    assert seen == {"LICENSE", "Makefile", "README.md", "pyproject.toml", "tests", "unetseg"}


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_folder_names_its_modules_and_the_map_names_the_folder(name):
    told = ast.get_docstring(TREES[name])
    modules = {m.removeprefix(f"{name}.") for m in TREES if m.startswith(f"{name}.")}
    modules = {module for module in modules if "." not in module}
    assert {module for module in modules if f"``{module}``" not in told} == set()
    assert set(re.findall("``([a-z_]+)``", told)) <= modules
    assert name not in FOLDERS or f"| `{name}/` |" in (ROOT / "README.md").read_text("utf-8")


def test_the_map_names_the_modules_at_the_root():
    told = (ROOT / "README.md").read_text("utf-8")
    modules = {path.name for path in ROOT.glob("*.py") if not path.stem.startswith("__")}
    assert {module for module in modules if f"`{module}`" not in told} == set()


def test_folders_import_nothing_by_themselves():
    for name in PACKAGES:
        assert not IMPORTS[name], name


def test_the_ground_stands_on_the_standard_library():
    for module in ("errors", "settings", "plugins", "classes", "files", "signals", "progress"):
        tops = {name.split(".")[0] for name in IMPORTS[module]} - {"unetseg"}
        assert tops <= sys.stdlib_module_names, module


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("imageio", {"pictures.writing"}),
        ("tifffile", {"pictures.writing", "pictures.bands", "pictures.tiff"}),
        (
            "PIL",
            {f"pictures.{n}" for n in ("reading", "writing", "transforms", "drawing", "tiff")}
            | {"dataset.shapes"},  # a bitmap inside JSON is a PNG of its own
        ),
        ("h5py", {"dataset.store", "dataset.store_writer"}),
        ("safetensors", {"prediction.model_file", "features.encoder_weights"}),
    ],
)
def test_each_format_has_one_home(package, homes):
    users = {m for m, names in IMPORTS.items() if any(n.split(".")[0] == package for n in names)}
    assert users <= homes


def calls_of(tree):
    """Yield (dotted name of the called object, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_pillow_opens_and_saves_files_in_images_alone():
    for module in ("pictures.transforms", "pictures.drawing"):
        names = {name for name, _ in calls_of(TREES[module])}
        assert not {n for n in names if n == "Image.open" or n.endswith(".save")}, module


def test_nothing_is_unpickled():
    for module, tree in TREES.items():
        for name, call in calls_of(tree):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert "allow_pickle" not in keywords, module
            assert keywords.get("weights_only") != "False", module
            if name == "torch.load":
                assert module in ("training.checkpoint", "features.encoder_weights")
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
    # `files` is the way; a store fills the temporary file it was given; a lock is no content.
    allowed = {"files": {"open"}, "dataset.store_writer": {"open"}}
    for module, tree in TREES.items():
        for name, call in calls_of(tree):
            last = name.rpartition(".")[2]
            modes = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
            constants = [value.value for value in modes if isinstance(value, ast.Constant)]
            modes = [c for c in constants if isinstance(c, str) and MODE.fullmatch(c)]
            writes = last in ("write_text", "tofile", "savetxt", "dump")
            writes |= last == "open" and bool(modes)
            writes |= last == "write_bytes" and name not in ("files.write_bytes", "write_bytes")
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


def test_no_text_tells_anybody_to_install_the_other_project_of_that_name():
    # On the public index `unetseg` is a stranger's project; this distribution is `unetseg-cli`.
    wrong = re.compile(r"pip install [^\n;]*\bunetseg(?![-\w./])|\bunetseg" + r"\[")
    home = ROOT.parent
    folders = [home / name for name in ("unetseg", "tests", ".ci", ".github")]
    files = [*home.glob("*"), *(path for place in folders for path in place.rglob("*"))]
    kinds = {".py", ".md", ".toml", ".yml", ".txt", ".html", ""}
    texts = {p: p.read_text("utf-8") for p in files if p.is_file() and p.suffix in kinds}
    assert len(texts) > 100
    assert [p for p, text in texts.items() if wrong.search(text)] == []


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
    assert ast.get_docstring(TREES[module]), module
    dotted = "unetseg" if module == "unetseg" else f"unetseg.{module}"
    if module != "__main__":
        import_module(dotted)


SECTION = re.compile("(Args|Attributes|Returns|Yields|Raises|Example):")
CODE = re.compile("``.+?``|`[^`]+`")
END = re.compile(r"(?<!\bal)(?<!\beq)(?<!\.\.)(?<=[.!?])[\"')]*\s+")


def paragraphs_of_docstring(text):
    """Yield each paragraph, item of a list and entry of a section, without examples and figures."""
    section = ""
    for block in text.split("\n\n"):
        lines = []
        for line in block.split("\n"):
            depth, line = len(line) - len(line.lstrip()), line.strip()
            if not depth:
                section = line if SECTION.fullmatch(line) else ""
            elif not section and not lines:
                break  # a figure is indented
            entry = depth == 4 and section in ("Args:", "Attributes:", "Raises:")
            if entry or line == section or re.match(r"[-*] |\d+\. ", line):
                yield " ".join(lines)
                lines = []
            if section != "Example:" and line != section:
                lines.append(line.partition(": ")[2] or line if entry else line)
        yield " ".join(lines)


def paragraphs_of_comments(source):
    """Yield each comment; lines that stand alone, one below the other, are one comment."""
    words, last = [], None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            alone = not token.line[:column].strip()
            if (row - 1, column, True) != last or not alone:
                yield " ".join(words)
                words = []
            words.append(token.string.lstrip("#: "))
            last = (row, column, alone)
    yield " ".join(words)


def docstrings(tree):
    """Yield the docstrings of a module, its classes and its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def strings(tree):
    """Yield the texts of a line, such as messages and help; a value in one of them is a word."""
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    for node in joined:
        yield "".join(
            part.value if isinstance(part, ast.Constant) else "value" for part in node.values
        )
    parts = {id(part) for node in joined for part in node.values}
    for node in ast.walk(tree):
        text = getattr(node, "value", None)
        if isinstance(text, str) and "\n" not in text and id(node) not in parts:
            yield text


def paragraphs_of_page(page):
    """Yield the paragraphs and the items of lists of Markdown, without code and tables."""
    for block in re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE).split("\n\n"):
        for part in re.split(r"^(?=[-*] |\d+\. |\||#)", block, flags=re.MULTILINE):
            if not part.startswith(("|", "    ")):
                yield " ".join(re.sub(r"\]\([^)]*\)", "]", part).split())


def long_among(texts):
    """Return the sentences over 25 words."""
    return [
        s for s in sentences_of(texts) if sum(bool(re.search(r"\w", w)) for w in s.split()) > 25
    ]


def texts_of(source, with_strings=True):
    """Return the paragraphs of docstrings and comments, and the texts of a line."""
    tree = ast.parse(source)
    texts = [*paragraphs_of_comments(source), *(strings(tree) if with_strings else ())]
    for docstring in docstrings(tree):
        texts += paragraphs_of_docstring(docstring)
    return texts


def paragraphs_of_script(text):
    """Yield the comments of a script or a style sheet; lines of "//" are one comment each."""
    for block, line in re.findall(r"/\*+(.*?)\*/|(?<!:)//([^\n]*)", text, re.DOTALL):
        for part in re.split(r"\n[ *]*\n", block) if block else [line]:
            yield " ".join(re.sub(r"\n *\*", " ", part).split())


def texts_of_all():
    """Yield the texts of the package and of the tests; strings of tests are code and data, too."""
    for kind in ("*.js", "*.css"):
        for path in ROOT.rglob(kind):
            yield from paragraphs_of_script(path.read_text("utf-8"))
    for path in ROOT.rglob("*.py"):
        yield from texts_of(path.read_text("utf-8"))
    for path in (ROOT.parent / "tests").rglob("*.py"):
        yield from texts_of(path.read_text("utf-8"), with_strings=False)


def sentences_of(texts):
    """Return the sentences of paragraphs; a piece of code is one word."""
    return sorted({sentence for text in texts for sentence in END.split(CODE.sub("code", text))})


def test_no_sentence_of_a_docstring_comment_message_or_help_has_over_25_words():
    assert long_among(texts_of_all()) == []


def pages():
    """Yield (path, paragraphs) of each page of Markdown."""
    home = ROOT.parent
    folders = [home / ".github", ROOT, home / "tests"]
    for path in (home / "README.md", *(page for place in folders for page in place.rglob("*.md"))):
        yield path, [*paragraphs_of_page(path.read_text("utf-8"))]


def test_no_sentence_of_a_page_has_over_25_words():
    assert {path: found for path, texts in pages() if (found := long_among(texts))} == {}
    assert len([*pages()]) == 9
    words = " ".join(["word"] * 25)
    for text in (f"# A\n\nShort. One {words}.", f"- a\n- One {words}\n  two.\n\n| a |"):
        assert len(long_among(paragraphs_of_page(text))) == 1
    assert long_among(paragraphs_of_page(f"    One {words}\n\n| One {words} |")) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""It is {}."""',
        'def f(a):\n    """Do.\n\n    Args:\n        a: {}\n            b. Short.\n    """',
        'class A:\n    """Do.\n\n    - Short.\n    - {}\n      b.\n    """',
        'def f():\n    """Do.\n\n    Returns:\n        Short. {}\n        b.\n    """',
        "a = 1\n# Short.\n# {}\n# and b",
        "a = 1  # {}",
        'a = "Short. {}"',
        'a = f"{{a}}. {}"',
    ],
)
def test_a_sentence_of_26_words_is_found_wherever_it_stands(source):
    assert len(long_among(texts_of(source.format(" ".join(["word"] * 26))))) == 1
    assert (
        long_among(texts_of(source.format(" ".join(["word"] * 12 + ["end. And"] + ["word"] * 8))))
        == []
    )
    assert (
        long_among(texts_of(source.format(" ".join(["word"] * 10 + ["``so many words``"] * 9))))
        == []
    )


# `what` asks: it stands in a question, before "to", or after to say, tell, ask or know.
WHAT = re.compile(
    r"\bwhatever\b"
    r"|^(?!.*\?[\"')]*$)(?:(?!\b(?:say|said|tell|told|ask|know)).)*\bwhat\b(?! to\b)",
    re.IGNORECASE,
)


def vague_among(texts):
    """Return the sentences in which `what` stands for a noun."""
    return [s for s in sentences_of(texts) if WHAT.search(s)]


def test_what_asks_and_does_not_stand_for_a_noun():
    assert vague_among(texts_of_all()) == []
    assert {path: found for path, texts in pages() if (found := vague_among(texts))} == {}


def test_what_for_a_noun_is_found():
    for text in ("Return what it holds.", "What is left.", "Any file, whatever its name.", "What"):
        assert vague_among([f"Short. {text}"]) == [text]
    for text in ("It tells what it holds, and what not.", "What is left?", "what to do", "`what`"):
        assert vague_among([text]) == []


def test_no_paragraph_or_entry_of_a_docstring_begins_without_a_noun():
    bare = re.compile("(As|Of|Per|What|Whose|Likewise)\\b")
    for module, tree in TREES.items():
        for docstring in docstrings(tree):
            found = [text for text in paragraphs_of_docstring(docstring) if bare.match(text)]
            assert found == [], module
