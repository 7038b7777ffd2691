"""A client that asks the server without a network, as a page in a browser would."""

import asyncio
import gzip

import httpx
import numpy as np

ADDRESS = "http://127.0.0.1:8421"


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
        answer = self.get(f"api/images/{number}/labels")
        shape = int(answer.headers["Labels-Height"]), int(answer.headers["Labels-Width"])
        return np.frombuffer(answer.content, np.uint8).reshape(shape)

    def paint(self, number, x, y, labels, stroke=""):
        """Paint a rectangle (h, w) and return the answer."""
        height, width = labels.shape
        place = f"x={x}&y={y}&width={width}&height={height}&stroke={stroke}"
        body = gzip.compress(labels.astype(np.uint8).tobytes())
        return self.put(f"api/images/{number}/labels?{place}", content=body)
