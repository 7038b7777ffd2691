"""Clients that ask the server as a page in a browser would, most without a network."""

import asyncio
import gzip
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np

from unetseg.labelling.project import open_project
from unetseg.labelling.security import Guard
from unetseg.labelling.server import Events, LabelServer
from unetseg.labelling.session import open_session

ADDRESS = "http://127.0.0.1:8421"


def painting(number, x, y, labels, stroke=""):
    """Return the address and the body of a request that paints a rectangle (h, w)."""
    height, width = labels.shape
    place = f"x={x}&y={y}&width={width}&height={height}&stroke={stroke}"
    return f"api/images/{number}/labels?{place}", gzip.compress(labels.astype(np.uint8).tobytes())


def map_of(answer, name, dtype=np.uint8):
    """Return the map (H, W) of an answer whose headers begin with ``name``."""
    shape = [int(answer.headers[f"{name}-{side}"]) for side in ("Height", "Width")]
    return np.frombuffer(answer.content, dtype).reshape(shape)


def connect(address, timeout=60):
    """Return a client over the network that has opened the page at its address with the token."""
    at = urlsplit(address)
    origin = f"http://{at.netloc}"
    client = httpx.Client(base_url=origin, headers={"Origin": origin}, timeout=timeout)
    assert client.get(f"/?{at.query}").status_code == 200
    return client


@contextmanager
def open_folder(folder):
    """Open a folder as `unetseg label` does, without training; yield its session."""
    with (
        open_project(folder) as project,
        open_session(project, lambda *_: None, run=None, budget="1m") as session,
    ):
        yield session


def open_page(session):
    """Return the guard of a session, and a client that has opened the page."""
    guard = Guard(LabelServer(session, Events()).app)
    client = Client(guard)
    assert client.get(f"/?token={guard.token}").status_code == 200
    return guard, client


class Client:
    """Sends requests to an ASGI app; `cookies` are kept from one to the next.

    Args:
        app: The app.
        address: The address under which the page was opened; "" of ``origin`` sends none.
    """

    def __init__(self, app, address=ADDRESS, origin=None):
        self._app, self._address = app, address
        self.headers = {"Origin": address if origin is None else origin}
        self.cookies = httpx.Cookies()

    def request(self, method, path, headers=None, **given):
        async def ask():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url=self._address, cookies=self.cookies
            ) as client:
                sent = {k: v for k, v in (self.headers | (headers or {})).items() if v is not None}
                answer = await client.request(method, path, headers=sent, **given)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path, **given):
        return self.request("GET", path, **given)

    def put(self, path, **given):
        return self.request("PUT", path, **given)

    def post(self, path, **given):
        return self.request("POST", path, **given)

    def labels(self, number=0):
        """Return the labels (H, W) of an image."""
        return map_of(self.get(f"api/images/{number}/labels"), "Labels")

    def paint(self, number, x, y, labels, stroke=""):
        """Paint a rectangle (h, w) and return the answer."""
        path, body = painting(number, x, y, labels, stroke)
        return self.put(path, content=body)
