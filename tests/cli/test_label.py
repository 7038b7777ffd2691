"""``unetseg label`` as a process: its address, its events, its end, and its refusals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.labelling.asking import connect, painting
from tests.support import draw, read, wait_until, write_images
from unetseg.cli.app import main

ROOT = Path(unetseg.__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path / "set", 2)


class Server:
    """A process of ``unetseg label`` and a client that has its cookie.

    Attributes:
        ending: The line that says how to end it. A signal that comes earlier would cut it off.
    """

    def __init__(self, folder, *options):
        line = [sys.executable, "-m", "unetseg", "label", str(folder), "--no-train", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        env.pop("DISPLAY", None)
        self.process = subprocess.Popen(line, env=env, text=True, stdout=-1, stderr=-1)
        first = self.process.stdout.readline()
        assert first.startswith("Open http://127.0.0.1:"), first + self.process.stderr.read()
        self.ending = self.process.stdout.readline()
        self.client = connect(first.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)


def paint(client, labels, stroke):
    path, body = painting(0, 0, 0, labels, stroke)
    assert client.put(path, content=body).json() == {"saved": True}


def test_a_session_from_the_address_to_ctrl_c(folder):
    heard = []
    with Server(folder, "--no-browser") as server:

        def listen():
            with server.client.stream("GET", "/api/events", timeout=None) as stream:
                for line in stream.iter_lines():
                    heard.append(line)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        second = subprocess.run(
            [sys.executable, "-m", "unetseg", "label", str(folder), "--no-browser", "--no-train"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert second.returncode == 3
        assert f"set: in use by process {server.process.pid} on " in second.stderr
        wait_until(lambda: "event: pages" in heard)
        paint(server.client, draw(0)[1] > 0, "s1")
        # Events come by another thread, and the line of the data after that of the name.
        wait_until(lambda: "event: saved" in heard and "event: labels" in heard[:-1])
        data = heard[heard.index("event: labels") + 1].removeprefix("data: ")
        assert json.loads(data) == {"number": 0, "page": ""}
        paint(server.client, draw(0)[1] == 2, "s2")
        _, said = server.stop()
        listener.join(10)
        assert not listener.is_alive()  # the stream ends with the server
        assert server.process.returncode == 130
        assert said.splitlines()[-1] == (
            f"unetseg: error: {folder}: stopped by SIGINT; all strokes are saved in {folder}/masks"
        )
        np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), draw(0)[1] == 2)


# A browser that takes the address and the name of a file, in which it leaves the page.
BROWSER = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
page = opener.open(sys.argv[1], timeout=5).read()
open(sys.argv[2], "wb").write(page)
"""


def test_a_browser_for_which_the_system_waits_gets_the_page(folder, tmp_path, monkeypatch):
    script, page = tmp_path / "browser.py", tmp_path / "page.html"
    script.write_text(BROWSER)
    monkeypatch.setenv("BROWSER", f"{sys.executable} {script} %s {page}")
    monkeypatch.setenv("WAYLAND_DISPLAY", "any")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    with Server(folder):
        wait_until(lambda: page.exists() and b"<title>unetseg" in page.read_bytes())


def test_a_model_answers_before_any_stroke_and_brings_its_classes(home):
    folder = write_images(home / "set", 1)
    with Server(folder, "--no-browser", "--from", "default") as server:
        assert server.client.get("/api/images/0/labels").status_code == 200  # the page opens it
        found = wait_until(lambda: given(server.client.get("/api/images/0/answer")), 240)
        assert found.headers["Answer-By"] == "model"
        classes = server.client.get("/api/project").json()["classes"]
        assert [one["name"] for one in classes] == ["ground", "square", "stripe"]
        _, said = server.stop()
    path = Path("runs/default/model.safetensors")
    assert f"starting from {path} (default, trained on 9 images)" in said


def given(answer):
    return answer if answer.status_code == 200 else None


def test_the_end_says_how_the_network_predicts_other_images(home):
    folder = write_images(home / "set", 1)
    shutil.copytree("runs/default", "runs/label")
    (folder / ".unetseg").mkdir()
    (folder / ".unetseg" / "run").write_text(str(Path("runs/label").resolve()))
    for option, next_lines in (
        ("--train", ["Next:", "  unetseg predict NEWIMAGES --model label"]),
        ("--no-train", []),
    ):
        with Server(folder, "--no-browser", option) as server:
            shown, _ = server.stop()
        assert shown.splitlines() == next_lines


def test_a_page_in_the_background_of_a_shell_ends_on_sigterm_alone(folder):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does at "&"
    try:
        server = Server(folder, "--no-browser")
    finally:
        signal.signal(signal.SIGINT, before)
    with server:
        assert server.ending.startswith(f"kill {server.process.pid} ends it")
        server.process.send_signal(signal.SIGINT)  # Ctrl-C was meant for another program
        paint(server.client, draw(0)[1] > 0, "s1")
        _, said = server.stop(signal.SIGTERM)
        assert server.process.returncode == 143
        assert said.splitlines()[-1] == (
            f"unetseg: error: {folder}: stopped by SIGTERM; all strokes are saved in {folder}/masks"
        )
        np.testing.assert_array_equal(read(folder / "masks" / "im0.png"), draw(0)[1] > 0)


def test_a_port_that_is_taken_is_told_and_a_free_one_is_found(folder, tmp_path, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["label", str(folder), "--no-train", "--no-browser", "--port", port]) == 3
    assert f"--port {port}: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 2, "nowhere: not found"),
        (["."], 2, "no images"),
        (["set", "--budget", "soon"], 2, "--budget"),
        (["set", "--classes", "none.toml"], 2, "none.toml: not found"),
        (["set", "--from", "wide"], 2, "wide: no model of this name"),
    ],
)
def test_what_cannot_be_labelled_is_one_line(folder, capfd, words, code, said):
    assert main(["label", *words, "--no-browser", "--no-train"]) == code
    lines = [n for n in capfd.readouterr().err.splitlines() if "error" in n]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (folder / "masks").exists()


def test_a_picture_of_over_a_hundred_megapixels_is_refused(folder, capfd):
    wide = np.zeros((10_001, 10_000), bool)
    Image.fromarray(wide).save(folder / "large.png", compress_level=0)
    assert main(["label", str(folder), "--no-browser", "--no-train"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "large.png: 10,000 x 10,001 pixels" in line
    assert "cut it into parts" in line
    assert "--scale" in line
