"""The server answers only the person at this machine, through the page that it serves.

Any web page in the same browser can send requests to a local server, and any name can be made to
lead to it. So a request must name this machine as its host, and must not come from another page. It
must also carry the secret of this session, first in the printed address, then in a cookie.
"""

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = {"localhost", "127.0.0.1", "::1"}
_READING = {"GET", "HEAD"}
_HEADERS = {
    # Scripts, styles and requests of this page alone; pictures may also be made by its scripts.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the first address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# The page is loaded by itself, not by a redirect: where another site led here, a browser would
# not send the new cookie along.
_ENTER = b"""<!doctype html><title>unetseg</title><link rel="icon" href="page/icon.svg">
<meta http-equiv="refresh" content="0;url=./">"""


class Refused(Exception):  # noqa: N818 - the word says that it is an error
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """Lets requests through to ``app`` that come from the page of this session; an ASGI app.

    Args:
        app: Answers the requests.
        hosts: Names beside localhost under which a proxy offers the page.

    Attributes:
        token: The secret of this session, for the first address.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = _LOCAL | {host.lower() for host in hosts}
        self.token = secrets.token_urlsafe(24)
        # Cookies do not know ports: another session on this machine must not overwrite this one.
        self._cookie = f"unetseg-{secrets.token_hex(4)}"
        self._secret = hashlib.sha256(self.token.encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with the headers that a browser needs to keep others out."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["type"] != "http":
            return
        answer = self._judge(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _judge(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not reach the app; None lets it through."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            text = f"the host {host!r} is not this machine; start with --host-name to allow it"
            return _refusal(403, text)
        if not self._is_own(headers.get("origin"), host, scope["method"]):
            return _refusal(403, "the request comes from another page")
        if self._has_cookie(headers):
            return None
        given = QueryParams(scope["query_string"]).get("token", "")
        is_start = scope["method"] == "GET" and scope["path"] == "/"
        if is_start and hmac.compare_digest(given.encode(), self.token.encode()):
            answer = Response(_ENTER, media_type="text/html")
            answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="strict")
            return answer
        if headers.get("sec-fetch-site") == "cross-site":
            return _refusal(403, "the request comes from another page")
        return _refusal(401, "open the address that 'unetseg label' has printed")

    def _is_own(self, origin: str | None, host: str, method: str) -> bool:
        """Tell whether a request comes from a page that was loaded from the same place."""
        if origin is None:  # browsers send it with every request that changes something
            return method in _READING
        name = urlsplit(origin).netloc.lower() if origin != "null" else ""
        # A proxy may change the host; the names that it was announced under are good, too.
        return bool(name) and (name == host.lower() or _name(name) in self._hosts - _LOCAL)

    def _has_cookie(self, headers: Headers) -> bool:
        """Tell whether a request carries the secret of this session in its cookie."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(
            cookie.value.encode(), self._secret.encode()
        )


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: The body has more than ``limit`` bytes; no more than that is read.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > limit:
        raise Refused(413, f"a body of {announced[:20]} bytes, at most {limit} are read")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise Refused(413, f"a body of over {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def inflate(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that a gzip or raw deflate stream holds.

    Raises:
        Refused: The bytes are no such stream, or it holds fewer or more bytes. ``size`` bounds the
            memory.
    """
    kind = 16 + zlib.MAX_WBITS if data[:2] == b"\x1f\x8b" else -zlib.MAX_WBITS
    try:
        stream = zlib.decompressobj(kind)
        found = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise Refused(400, f"the labels are not compressed as they must be ({error})") from None
    if len(found) != size or not stream.eof or stream.unused_data:
        raise Refused(400, f"the labels are not {size} bytes")
    return found


def _name(netloc: str) -> str:
    """Return the name in ``name:port``; "" for any other text."""
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # raises where it is no number
    except ValueError:
        return ""
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return parts.hostname or ""


def _refusal(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
