"""A person at the labelling page: `unetseg label` in a process of its own, and a real Chromium."""

import base64
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NOTEBOOK = "notebook.example"  # the name of this machine beside localhost
SHAPE = (240, 320)  # of the images that are painted
NOTHING = 255  # no class
# The answer to an image is fetched once the image is shown.
AT_REST = "!unetseg.session.busy && !unetseg.session.isLoading"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {NOTEBOOK} 127.0.0.1",
)


@contextmanager
def serving(folder, *options, train="--no-train"):
    """Run `unetseg label FOLDER` and yield its address; it is ended at the end."""
    command = [
        sys.executable,
        "-m",
        "unetseg",
        "label",
        str(folder),
        "--no-browser",
        train,
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while found is None:
                line = process.stdout.readline()
                assert line, "the server ended before it was ready"
                found = re.search(r"http://\S+", line)
            yield found.group()
        finally:
            if process.poll() is None:
                process.terminate()
            process.stdout.read()
            process.wait(60)


def free_port():
    """Return a port that no program has. The usual one may go to a server of another test."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


class Window:
    """A tab with the page. Its complaints, and its requests to other hosts, are kept.

    Args:
        page: A page of Playwright.
        address: The address of the server, token included.
    """

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.errors, self.strangers = [], []
        self.expects_errors = False  # a test breaks the connection on purpose
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._listen)
        page.on("request", self._see)
        self.open()

    def _listen(self, message):
        if message.type == "error" and not self.expects_errors:
            self.errors.append(f"{message.text} {message.location}")

    def _see(self, request):
        if not request.url.startswith((self.address.partition("?")[0], "blob:")):
            self.strangers.append(request.url)

    def open(self):
        """Load the page, until an image is shown, with its answer if there is one."""
        self.page.goto(self.address)
        self.until(f"window.unetseg?.session.image && {AT_REST}")

    def go(self, number, *keys):
        """Wait until an image is shown that keys lead to; without keys, open it."""
        if keys:
            self.press(*keys)
        else:
            self.ask(f"void unetseg.session.open({number})")
        self.until(f"unetseg.session.image.number === {number} && {AT_REST}")

    def route(self, pattern, react):
        """Give requests to a function of Playwright's routes, and wait until the browser does so.

        A busy browser obeys a key before that.
        """
        place = self.address.partition("?")[0]
        self.page.route(pattern, react)
        self.page.route(place, lambda route: route.fulfill(body="routed"))
        self.page.wait_for_function(
            "async (place) => (await (await fetch(place)).text()) === 'routed'", arg=place
        )
        self.page.unroute(place)

    def until(self, condition, seconds=60):
        """Wait until a condition of JavaScript holds."""
        self.page.wait_for_function(f"() => Boolean({condition})", timeout=seconds * 1000)

    def ask(self, expression):
        """Return the value of an expression of JavaScript."""
        return self.page.evaluate(expression)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def name_class(self, key, name):
        """Press the key that opens the field for a name of a class, and fill it in."""
        self.press(key)
        self.page.keyboard.type(name)
        self.press("Enter")

    def place(self, x, y):
        """Return where on the page a point of the image is."""
        return self.ask(
            f"(() => {{ const {{ stage }} = unetseg; const [x, y] = stage.place({x}, {y});"
            " const box = stage.root.getBoundingClientRect();"
            " return [box.left + x / stage.ratio, box.top + y / stage.ratio]; })()"
        )

    def paint(self, *points, button="left"):
        """Press the tool at the first point of the image, move over the others, let go."""
        places = [self.place(*point) for point in points]
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down(button=button)
        for place in places[1:]:
            mouse.move(*place)
        mouse.up(button=button)

    def click(self, x, y):
        self.page.mouse.click(*self.place(x, y))

    def choose(self, tool=None, size=None, index=None):
        if tool:
            self.ask(f"unetseg.session.choose('{tool}')")
        if size:
            self.ask(f"unetseg.session.resize({size})")
        if index is not None:
            self.press(str(index + 1))

    def actual(self):
        """Show a pixel as a pixel: then the mouse can be put on each of them."""
        self.press("d")
        self.until("unetseg.stage.view.scale === 1")

    def labels(self):
        """Return the labels (H, W) of the open image, as the page has them."""
        return self._map("labels")

    def answer(self):
        """Return the answer (H, W) to the strokes so far, in the size of the labels."""
        answer, shape = self._map("answer"), self.labels().shape
        rows, columns = (np.arange(n) * m // n for n, m in zip(shape, answer.shape, strict=True))
        return answer[np.ix_(rows, columns)]

    def _map(self, name):
        width, height, text = self.ask(
            f"(() => {{ const {{ width, height, data }} = unetseg.session.{name};"
            " let text = ''; for (let i = 0; i < data.length; i += 32768)"
            " text += String.fromCharCode(...data.subarray(i, i + 32768));"
            " return [width, height, btoa(text)]; })()"
        )
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)

    def saved(self, seconds=60):
        """Wait until the server has all strokes."""
        self.until("!unetseg.session.unsaved", seconds)

    def close(self):
        """Close the tab, and check that it complained of nothing and asked nobody else."""
        self.page.context.close()
        assert not self.errors, self.errors
        assert not self.strangers, self.strangers


def blank():
    """Return the labels of an image that nobody painted."""
    return np.full(SHAPE, NOTHING, np.uint8)


def mask_on_disk(path, like, seconds=60):
    """Return a mask once it equals the expected one, or as it is after that time."""
    end = time.monotonic() + seconds
    while True:
        found = np.asarray(Image.open(path)) if path.exists() else None
        if found is not None and np.array_equal(found, like):
            return found
        if time.monotonic() > end:
            return found
        time.sleep(0.05)


def stroke(shape, points, size):
    """Return (H, W) bool: pixels whose centres are within size / 2 of a line, by the formula."""
    odd = size % 2
    snapped = [(np.floor(v) + 0.5 if odd else np.floor(v + 0.5)) for v in np.asarray(points, float)]
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    found = np.zeros(shape, bool)
    for (ax, ay), (bx, by) in zip(snapped, [*snapped[1:], snapped[-1]], strict=True):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1) if length else 0
        found |= np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)) <= size / 2
    return found
