"""The modules of the page that need no browser, tried by Node where it is."""

import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_modules_of_the_page_paint_undo_send_and_place_as_they_promise(tmp_path):
    for file in (resources.files("unetseg.labelling") / "page").iterdir():
        if file.name.endswith(".js"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    shutil.copy(Path(__file__).with_name("page.test.js"), tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    command = ["node", "--test", "--test-reporter=tap", "page.test.js"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout
