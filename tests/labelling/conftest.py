"""The ground of the tests of the labelling page: images, a project, a session, a client, a tab."""

import os

import pytest

from tests.labelling.asking import open_page
from tests.labelling.browsing import ARGUMENTS, CHROMIUM, SHAPE, Window, serving
from tests.support import write_images
from unetseg.labelling import project as projects
from unetseg.labelling.project import open_project
from unetseg.labelling.session import open_session

# Python runs it when it starts. Waiting goes on by the clock of the wall: its modules come first.
PROCESSOR_TIME = """
import os, queue, subprocess, sys, threading, time
os.setpriority = lambda *_: None
if "unetseg.labelling.child" in sys.orig_argv:
    if hasattr(time, "CLOCK_BOOTTIME"):
        del time.CLOCK_BOOTTIME  # the process began when it began to compute
    time.monotonic = time.process_time
"""


@pytest.fixture
def processor_time_of_rounds(tmp_path, monkeypatch):
    """Let the clocks of rounds run only while they compute, and let them compute like others.

    Other work leaves them their time so, however slow it makes them.
    """
    home = tmp_path / "clock"
    home.mkdir()
    (home / "sitecustomize.py").write_text(PROCESSOR_TIME)
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=os.pathsep)
    monkeypatch.setattr(os, "setpriority", lambda *_: None, raising=False)


@pytest.fixture
def folder(tmp_path):
    """Three images (64, 56) without masks."""
    write_images(tmp_path / "images", 3)
    return tmp_path


@pytest.fixture
def project(folder):
    with open_project(folder) as project:
        yield project


@pytest.fixture
def masks_on_demand(monkeypatch):
    """Let masks be written where a test asks for it and at the end alone, however slow it is."""
    for name in ("_QUIET", "_LONGEST"):
        monkeypatch.setattr(projects, name, 3600.0)


@pytest.fixture
def told():
    """The events so far, as (name, data)."""
    return []


@pytest.fixture
def session(project, told):
    publish = lambda name, data: told.append((name, data))  # noqa: E731
    with open_session(project, publish, run=None, budget="1m") as session:
        yield session


@pytest.fixture
def page(session):
    """The guard of the server, and a client that has opened the page."""
    return open_page(session)


@pytest.fixture
def guard(page):
    return page[0]


@pytest.fixture
def client(page):
    return page[1]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def window(browser):
    """Return a function that opens the page of a server in a tab."""
    tabs = []

    def show(address, **how):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | how))
        tabs.append(Window(context.new_page(), address))
        return tabs[-1]

    yield show
    for tab in tabs:
        tab.close()


@pytest.fixture
def address(browser, folder):
    """The address of a server of the test's own folder."""
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def shared(browser, tmp_path_factory):
    """A server for the tests that only paint, each on an image of its own: (folder, address)."""
    folder = tmp_path_factory.mktemp("shared")
    write_images(folder / "images", 20, shape=SHAPE)
    with serving(folder) as address:
        yield folder, address


@pytest.fixture
def tab(shared, window):
    """A tab with an image that no test has painted."""
    tab = window(shared[1])
    first = tab.ask("unetseg.session.project.images.findIndex((i) => i.state === 'untouched')")
    tab.go(first)
    tab.actual()
    tab.mask = shared[0] / "masks" / f"im{first}.png"
    return tab
