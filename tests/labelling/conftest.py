"""The ground of the tests of the labelling page: raw images, a project, a session, a client."""

import pytest

from tests.labelling.asking import open_page
from tests.support import write_images
from unetseg.labelling.project import open_project
from unetseg.labelling.session import open_session


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
