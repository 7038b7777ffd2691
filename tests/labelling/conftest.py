"""What tests of the labelling page share: raw images, a project, a session, a client."""

import pytest

from tests.labelling.asking import Client
from tests.support import draw, write_image
from unetseg.labelling.project import open_project
from unetseg.labelling.security import Guard
from unetseg.labelling.server import Events, LabelServer
from unetseg.labelling.session import open_session


@pytest.fixture
def folder(tmp_path):
    """Three images (64, 56) without masks."""
    (tmp_path / "images").mkdir()
    for k in range(3):
        write_image(tmp_path / "images" / f"im{k}", draw(k)[0])
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
def guard(session):
    return Guard(LabelServer(session, Events()).app)


@pytest.fixture
def client(guard):
    client = Client(guard)
    assert client.get(f"/?token={guard.token}").status_code == 200
    return client
