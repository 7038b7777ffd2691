"""The server of the labelling page: what it is asked over HTTP, and what it tells of its own."""

import asyncio
import gzip
import json
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import uvicorn
from pydantic.dataclasses import dataclass as record
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.errors import InputError, MachineError, UnetsegError, arg, as_argument, worded
from unetseg.labelling.journal import Stroke
from unetseg.labelling.project import LabelledImage, Project
from unetseg.labelling.security import Guard, Refused, inflate, read_body
from unetseg.labelling.tiles import Pictures, encode_tile
from unetseg.records import Count, Text, read_record
from unetseg.signals import catching
from unetseg.text import show

PORT = 8421  # where nothing else asks for it; else a free one is taken
_JSON_LIMIT = 2**18  # bytes; 255 classes with names of 200 characters fit
_ID = re.compile(r"[\w.:-]{0,100}", re.ASCII)
_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_PAGE = resources.files("unetseg.labelling") / "page"
_KEEP_ALIVE = 15.0  # seconds after which a proxy is reminded of an idle stream
_WATCH = 0.1  # seconds between two looks at signals


@record(frozen=True)
class GivenClass:
    """A class as the page sends it; ``was`` is its index before, None of a new one."""

    name: Text
    colour: Text
    was: Count | None


@record(frozen=True)
class GivenClasses:
    """The body of ``PUT api/classes``."""

    classes: tuple[GivenClass, ...]


class Events:
    """What happens here, told to every open page as server-sent events."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: set[asyncio.Queue[str | None]] = set()

    def publish(self, name: str, data: object) -> None:
        """Tell every page; may be called from any thread."""
        if self._loop is not None:
            text = f"event: {name}\ndata: {json.dumps(data)}\n\n"
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._put, text)

    def close(self) -> None:
        """End all streams; call it in the loop."""
        self._put(None)

    async def stream(self) -> AsyncIterator[str]:
        """Yield the events of one page from now on, and tell all pages how many there are."""
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._pages.add(queue)
        self.publish("pages", {"count": len(self._pages)})
        try:
            yield "retry: 1000\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(queue.get(), _KEEP_ALIVE)
                except TimeoutError:
                    text = ": still here\n\n"
                if text is None:
                    return
                yield text
        finally:
            self._pages.discard(queue)
            self.publish("pages", {"count": len(self._pages)})

    def _put(self, text: str | None) -> None:
        for queue in self._pages:
            queue.put_nowait(text)


class LabelServer:
    """The answers to the requests of the page.

    Args:
        project: What is labelled; its `on_saved` and `on_failed` are taken.

    Attributes:
        events: Reaches every open page.
        app: The ASGI app, without any guard.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.events = Events()
        self._pictures = Pictures([image.pair.image for image in project.images])
        self._key = secrets.token_hex(8)
        project.on_saved = lambda number: self.events.publish("saved", {"number": number})
        project.on_failed = lambda error: self.events.publish("failed", {"error": _said(error)})
        image = "/api/images/{number:int}"
        self.app = Starlette(
            routes=[
                Route("/", self._file),
                Route("/page/{name}", self._file),
                Route("/api/project", self._project),
                Route("/api/classes", self._classes, methods=["PUT"]),
                Route("/api/events", self._events),
                Route(image + "/tiles/{level:int}/{x:int}/{y:int}", self._tile),
                Route(image + "/range", self._range),
                Route(image + "/labels", self._labels),
                Route(image + "/labels", self._paint, methods=["PUT"]),
                Route(image + "/accept", self._accept, methods=["POST"]),
                Route(image + "/reopen", self._reopen, methods=["POST"]),
            ],
            exception_handlers={
                Refused: lambda _, error: _error(error.status, str(error)),
                InputError: lambda _, error: _error(422, _said(error)),
                MachineError: lambda _, error: _error(507, _said(error)),
                404: lambda *_: _error(404, "there is nothing at this address"),
                405: lambda *_: _error(405, "this is not done at this address"),
            },
        )

    # --- the page ---------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        kind = _TYPES.get(name.rpartition(".")[2])
        for file in _PAGE.iterdir() if kind and _PAGE.is_dir() else ():
            if file.name == name:
                headers = {"Cache-Control": "no-cache"}
                return Response(file.read_bytes(), media_type=kind, headers=headers)
        return _error(404, "there is nothing at this address")

    async def _events(self, _: Request) -> Response:
        return StreamingResponse(self.events.stream(), media_type="text/event-stream")

    # --- the project ------------------------------------------------------------------------------

    async def _project(self, _: Request) -> Response:
        project = self.project
        return JSONResponse(
            {
                "name": show(project.folder.absolute().name),
                "folder": show(project.folder.absolute()),
                "key": self._key,
                "classes": [{"name": c.name, "colour": c.colour} for c in project.table.classes],
                "images": [self._facts(image) for image in project.images],
                "next": project.next_image(-1),
            }
        )

    def _facts(self, image: LabelledImage) -> dict[str, Any]:
        return {
            "number": image.number,
            "name": show(image.name),
            "width": image.width,
            "height": image.height,
            "channels": image.channels,
            "depth": image.dtype,
            "state": image.state,
            "labelled": image.labelled,
        }

    async def _classes(self, request: Request) -> Response:
        data = _json(await read_body(request, _JSON_LIMIT))
        given = read_record(GivenClasses, {"classes": data}, "classes").classes
        was = [one.was for one in given]
        table = _changed_table(self.project.table, given)
        await run_in_threadpool(self.project.change_classes, table, was)
        classes = [{"name": c.name, "colour": c.colour} for c in table.classes]
        self.events.publish("classes", classes)
        return JSONResponse(classes)

    # --- images -----------------------------------------------------------------------------------

    def _image(self, request: Request) -> LabelledImage:
        number: int = request.path_params["number"]
        if number >= len(self.project.images):
            raise Refused(404, f"there is no image {number}")
        return self.project.images[number]

    async def _tile(self, request: Request) -> Response:
        image, query = self._image(request), request.query_params
        level, x, y = (request.path_params[name] for name in ("level", "x", "y"))
        shown = [0, 1, 2][: image.channels] if image.channels in (1, 2, 3) else [0]
        channels = _numbers(query.get("channels"), int) or shown
        lows, highs = (_numbers(query.get(name), float) for name in ("low", "high"))
        count = len(channels)
        if count > 3 or not {len(lows), len(highs)} <= {0, 1, count} or len(lows) != len(highs):
            raise Refused(400, "one to three channels are shown, each with one low and one high")
        if not all(0 <= c < image.channels for c in channels):
            raise Refused(400, f"the channels are 0 to {image.channels - 1}")
        windows = list(zip(lows, highs, strict=True)) or [_full_range(image.dtype)]
        if any(low >= high for low, high in windows):
            raise Refused(400, "low is not below high")
        windows = windows if len(windows) == count else windows * count

        def make() -> tuple[bytes, str]:
            tile = self._pictures[image.number].tile(level, x, y, channels, windows)
            return encode_tile(tile, exact=level == 0)

        try:
            data, kind = await run_in_threadpool(make)
        except IndexError as error:
            raise Refused(404, f"there is no {error}") from None
        # A later session on this port may show other images under the same numbers.
        ours = query.get("key") == self._key
        headers = {"Cache-Control": "private, max-age=86400"} if ours else {}
        return Response(data, media_type=kind, headers=headers)

    async def _range(self, request: Request) -> Response:
        number = self._image(request).number
        ranges = await run_in_threadpool(lambda: self._pictures[number].ranges())
        return JSONResponse({"channels": ranges})

    async def _labels(self, request: Request) -> Response:
        image = self._image(request)

        def pack() -> bytes:
            with image.lock:
                return gzip.compress(self.project.labels(image.number).reshape(-1).data, 1)

        data = await run_in_threadpool(pack)
        return _packed(data, {"Labels-Height": image.height, "Labels-Width": image.width})

    async def _paint(self, request: Request) -> Response:
        image, query = self._image(request), request.query_params
        x, y, width, height = (_whole(query, name) for name in ("x", "y", "width", "height"))
        name = query.get("stroke", "")
        if not _ID.fullmatch(name):
            raise Refused(400, "stroke is up to 100 letters, digits and -_.:")
        if width < 1 or height < 1 or x + width > image.width or y + height > image.height:
            raise Refused(400, f"outside of the {image.width} x {image.height} pixels of the image")
        size = width * height
        body = await read_body(request, size + size // 100 + 1024)  # nothing deflates to more

        def paint() -> bool:
            labels = np.frombuffer(inflate(body, size), np.uint8).reshape(height, width)
            return self.project.paint(image.number, Stroke(name, x, y, labels))

        if await run_in_threadpool(paint):
            place = {"x": x, "y": y, "width": width, "height": height}
            event = {"number": image.number, **place, "page": show(query.get("page", ""))[:100]}
            self.events.publish("labels", event)
            self._tell_state(image)
        return JSONResponse({"saved": True})

    async def _accept(self, request: Request) -> Response:
        image, data = self._image(request), _json(await read_body(request, _JSON_LIMIT))
        empty = data.get("empty", False) if isinstance(data, dict) else None
        if not isinstance(empty, bool):
            raise Refused(400, '{"empty": true} or {"empty": false} is due')

        def accept() -> None:
            if empty:
                self.project.accept_empty(image.number)
            else:
                self.project.accept(image.number, None)

        await run_in_threadpool(accept)
        self._tell_state(image)
        return JSONResponse({"next": self.project.next_image(image.number)})

    async def _reopen(self, request: Request) -> Response:
        image = self._image(request)
        await run_in_threadpool(self.project.reopen, image.number)
        self._tell_state(image)
        return JSONResponse({"state": image.state})

    def _tell_state(self, image: LabelledImage) -> None:
        facts = {"number": image.number, "state": image.state, "labelled": image.labelled}
        self.events.publish("state", facts)


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals alone; `signals.catching` has them."""
        return nullcontext()


def serve(
    project: Project,
    *,
    port: int | None = None,
    hosts: Iterable[str] = (),
    on_ready: Callable[[str], None],
) -> None:
    """Serve the page on this machine alone until a signal comes.

    Args:
        project: What is labelled.
        port: Where to listen; None takes 8421, or a free one where that is taken.
        hosts: Names beside localhost under which a proxy offers the page.
        on_ready: Is called with the address to open, token included.

    Raises:
        MachineError: The port is taken.
        Interrupted: A signal came; what was painted is saved when the project is closed.
    """
    server = LabelServer(project)
    guard = Guard(server.app, hosts)
    with catching() as caught, _listen(port) as listening:
        config = uvicorn.Config(
            guard,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        running = _Server(config)

        async def run() -> None:
            task = asyncio.create_task(running.serve([listening]))
            while not running.started and not task.done():
                await asyncio.sleep(0.01)
            on_ready(f"http://127.0.0.1:{listening.getsockname()[1]}/?token={guard.token}")
            while caught.signum is None and not task.done():
                await asyncio.sleep(_WATCH)
            server.events.close()
            running.should_exit = True
            await task

        asyncio.run(run())
        caught.check(project.folder, "what was painted is saved")


def _listen(port: int | None) -> socket.socket:
    for number in (PORT, 0) if port is None else (port,):
        listening = socket.socket()
        if os.name != "nt":  # where it would let two programs listen at one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", number))
            return listening
        except OSError as error:
            listening.close()
            problem = error.strerror or str(error)
    raise MachineError(arg("port", port), problem, "choose another, or leave it out")


# --- what requests hold ------------------------------------------------------------------------


def _changed_table(table: ClassTable, given: Sequence[GivenClass]) -> ClassTable:
    """Return the classes as the page wants them, with the mask values that they have."""
    kept = [one.was for one in given if one.was is not None]
    if kept != sorted(set(kept)) or any(was >= len(table.classes) for was in kept):
        raise InputError("classes", "not in their order", "reload the page")
    if [one.was for one in given][: len(kept)] != kept:
        raise InputError("classes", "a new one stands before an old one", "reload the page")
    taken = {c.value for c in table.classes} | set(table.ignore)
    free = iter(v for v in range(256) if v not in taken)
    classes = []
    for one in given:
        if one.name != show(one.name).strip():
            raise InputError("classes", f"the name {one.name!r}", "write it without odd characters")
        if one.was is not None:
            classes.append(replace(table.classes[one.was], name=one.name, colour=one.colour))
            if table.encoding == "colours" and one.colour != table.classes[one.was].colour:
                text = "its colour stands for it in the masks"
                raise InputError(f"class {one.name}", text, "keep it")
        elif table.encoding == "colours":
            classes.append(SegmentationClass(one.name, None, one.colour))
        else:
            classes.append(SegmentationClass(one.name, next(free, None), one.colour))
    return replace(table, classes=tuple(classes))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None


def _numbers(text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    try:
        found = [kind(part[:30]) for part in text.split(",")[:4]] if text else []
    except ValueError:
        raise Refused(400, f"{text!r:.60} is no list of numbers") from None
    if not all(np.isfinite(found)):
        raise Refused(400, f"{text!r:.60} is not finite")
    return found


def _whole(query: Any, name: str) -> int:
    text = query.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Refused(400, f"{name} is no whole number")
    return int(text)


def _full_range(dtype: str) -> tuple[float, float]:
    return (0.0, 1.0) if dtype == "float32" else (0.0, float(np.iinfo(dtype).max))


def _packed(data: bytes, headers: dict[str, Any]) -> Response:
    named = {name: str(value) for name, value in headers.items()}
    named["Content-Encoding"] = "gzip"
    return Response(data, media_type="application/octet-stream", headers=named)


def _said(error: UnetsegError) -> str:
    return worded(error.message, as_argument)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
