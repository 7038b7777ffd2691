"""The server of the labelling page: it answers HTTP requests, and sends events by itself."""

import asyncio
import gzip
import json
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as record
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from unetseg.classes import ClassTable, SegmentationClass, default_colour, free_colours
from unetseg.errors import InputError, MachineError, arg
from unetseg.labelling.journal import Stroke
from unetseg.labelling.project import LabelledImage, open_project
from unetseg.labelling.regions import find_regions
from unetseg.labelling.security import Guard, Refused, inflate, read_body
from unetseg.labelling.session import Session, open_session
from unetseg.labelling.starting_model import StartingModel
from unetseg.labelling.tiles import encode_tile
from unetseg.progress import Note, OnProgress, silent
from unetseg.records import Count, Text, read_record
from unetseg.settings import parse_duration
from unetseg.signals import Caught, catching
from unetseg.text import show

PORT = 8421  # if it is free, else any free port
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
    """A class as the page sends it.

    Attributes:
        name: Its name.
        colour: Its colour "#rrggbb"; None gives a new class a default colour that is free.
        was: Its former index; None for a new class.
    """

    name: Text
    colour: Text | None
    was: Count | None


@record(frozen=True)
class GivenClasses:
    """The body of ``PUT api/classes``.

    Attributes:
        revision: The `Project.revision` that the page has seen.
        classes: The classes that replace those.
    """

    revision: Count
    classes: tuple[GivenClass, ...]


class Events:
    """The events of the session, sent to every open page as server-sent events."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: dict[str, asyncio.Queue[str | None]] = {}  # of each page, its latest stream

    def publish(self, name: str, data: object) -> None:
        """Tell every page; may be called from any thread."""
        if self._loop is not None:
            text = f"event: {name}\ndata: {json.dumps(data)}\n\n"
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._put, text)

    def close(self) -> None:
        """End all streams; call it in the loop."""
        self._put(None)

    def leave(self, page: str) -> None:
        """End the stream of a page; a notebook's proxy keeps it open after the page has gone."""
        if page in self._pages:
            self._pages[page].put_nowait(None)

    async def stream(self, page: str) -> AsyncIterator[str]:
        """Yield the events of a page from now on, and tell all pages how many there are."""
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.leave(page)  # its earlier stream was lost
        self._pages[page] = queue
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
            if self._pages.get(page) is queue:
                del self._pages[page]
                self.publish("pages", {"count": len(self._pages)})

    def _put(self, text: str | None) -> None:
        for queue in self._pages.values():
            queue.put_nowait(text)


class LabelServer:
    """The answers to the requests of the page.

    Args:
        session: The session that the requests are about.
        events: The events, which reach every open page.

    Attributes:
        app: The ASGI app, without any guard.
    """

    def __init__(self, session: Session, events: Events) -> None:
        self.session, self.project, self.events = session, session.project, events
        self._pictures = session.pictures
        self._key = secrets.token_hex(8)
        self._changing = asyncio.Lock()  # one change of the classes at a time
        image = "/api/images/{number:int}"
        self.app = Starlette(
            routes=[
                Route("/", self._file),
                Route("/page/{name}", self._file),
                Route("/api/project", self._project),
                Route("/api/classes", self._classes, methods=["PUT"]),
                Route("/api/events", self._events),
                Route("/api/leave", self._leave, methods=["POST"]),
                Route("/api/suspects", self._suspects),
                Route("/api/train", self._train, methods=["POST"]),
                Route(image + "/tiles/{level:int}/{x:int}/{y:int}", self._tile),
                Route(image + "/range", self._range),
                Route(image + "/labels", self._labels),
                Route(image + "/labels", self._paint, methods=["PUT"]),
                Route(image + "/answer", self._answer),
                Route(image + "/regions", self._regions),
                Route(image + "/accept", self._accept, methods=["POST"]),
                Route(image + "/reopen", self._reopen, methods=["POST"]),
            ],
            exception_handlers={
                Refused: lambda _, error: _error(error.status, str(error)),
                InputError: lambda _, error: _error(422, str(error)),
                MachineError: lambda _, error: _error(507, str(error)),
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

    async def _events(self, request: Request) -> Response:
        stream = self.events.stream(request.query_params.get("page", ""))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _leave(self, request: Request) -> Response:
        self.events.leave(request.query_params.get("page", ""))
        return Response(status_code=204)

    # --- the project ------------------------------------------------------------------------------

    async def _project(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._all_facts))

    def _all_facts(self) -> dict[str, Any]:
        project = self.project
        return {
            "name": show(project.folder.absolute().name),
            "folder": show(project.folder.absolute()),
            "key": self._key,
            "classes": _named(project.table),
            "revision": project.revision,
            "images": [self._facts(image) for image in project.images],
            "next": self.session.next_image(-1),
            "score": self.session.score(),
            "training": self.session.training_state(),
        }

    def _facts(self, image: LabelledImage) -> dict[str, Any]:
        return {
            "number": image.number,
            "name": show(image.name),
            "width": image.width,
            "height": image.height,
            "channels": image.channels,
            "depth": image.dtype,
            "state": image.state,
            "labelled": image.share,
        }

    async def _classes(self, request: Request) -> Response:
        data = _json(await read_body(request, _JSON_LIMIT))
        given = read_record(GivenClasses, data, "classes")
        was = [one.was for one in given.classes]
        async with self._changing:
            if given.revision != self.project.revision:
                raise InputError("classes", "changed elsewhere meanwhile", "try again")
            table = _changed_table(self.project.table, given.classes)
            await run_in_threadpool(self.session.change_classes, table, was)
            changed = {"classes": _named(table), "was": was, "revision": self.project.revision}
            self.events.publish("classes", changed)
        return JSONResponse(changed)

    async def _suspects(self, _: Request) -> Response:
        found = await run_in_threadpool(self.session.suspects)
        return JSONResponse(
            [
                {
                    "number": number,
                    "score": suspect.score,
                    "why": suspect.text,
                    "box": [suspect.box[1], suspect.box[0], suspect.box[3], suspect.box[2]],
                }
                for number, suspect in found
            ]
        )

    async def _train(self, request: Request) -> Response:
        on = _flag(await read_body(request, _JSON_LIMIT), "on", None)
        if self.session.training is None or self.session.training_state() is None:
            raise Refused(404, "no network is trained; start without --no-train")
        self.session.training.turn(on)
        return JSONResponse(self.session.training_state())

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
        given = list(zip(lows, highs, strict=True))
        if any(low >= high for low, high in given):
            raise Refused(400, "low is not below high")

        def make() -> tuple[bytes, str]:
            pyramid = self._pictures[image.number]
            windows = given or [pyramid.windows[c] for c in channels]
            windows = windows if len(windows) == count else windows * count
            return encode_tile(pyramid.tile(level, x, y, channels, windows), exact=level == 0)

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
        ranges = await run_in_threadpool(lambda: self._pictures[number].ranges)
        return JSONResponse({"channels": ranges})

    async def _labels(self, request: Request) -> Response:
        image = self._image(request)

        def pack() -> Response:
            following = self.session.open(image.number)
            more = {} if following is None else {"Labels-Next": str(following)}
            with image.lock:
                return _packed("Labels", self.project.labels(image.number), more)

        return await run_in_threadpool(pack)

    async def _answer(self, request: Request) -> Response:
        image = self._image(request)

        def pack() -> Response:
            answer = self.session.answer(image.number)
            if answer is None:
                return Response(status_code=204)
            made = {"Answer-Version": str(answer.version), "Answer-By": answer.by}
            return _packed("Answer", answer.labels, made)

        return await run_in_threadpool(pack)

    async def _regions(self, request: Request) -> Response:
        number = self._image(request).number

        def pack() -> Response:
            return _packed("Regions", find_regions(self._pictures.image(number)).astype("<i4"))

        return await run_in_threadpool(pack)

    async def _paint(self, request: Request) -> Response:
        image, query = self._image(request), request.query_params
        x, y, width, height = (_whole(query, name) for name in ("x", "y", "width", "height"))
        name = query.get("stroke", "")
        if not _ID.fullmatch(name):
            raise Refused(400, "stroke is up to 100 letters, digits and -_.:")
        revision = _whole(query, "revision") if "revision" in query else None
        if width < 1 or height < 1 or x + width > image.width or y + height > image.height:
            raise Refused(400, f"outside of the {image.width} x {image.height} pixels of the image")
        size = width * height
        body = await read_body(request, size + size // 100 + 1024)  # nothing deflates to more

        def paint() -> bool:
            labels = np.frombuffer(inflate(body, size), np.uint8).reshape(height, width)
            return self.session.paint(image.number, Stroke(name, x, y, labels), revision)

        if await run_in_threadpool(paint):
            self._tell_labels(request)
        return JSONResponse({"saved": True})

    def _tell_labels(self, request: Request) -> None:
        """Tell all pages of new labels; the page that is named has them already."""
        page = show(request.query_params.get("page", ""))[:100]
        self.events.publish("labels", {"number": request.path_params["number"], "page": page})

    async def _accept(self, request: Request) -> Response:
        image = self._image(request)
        empty = _flag(await read_body(request, _JSON_LIMIT), "empty", False)

        def accept() -> dict[str, Any]:
            score = self.session.accept(image.number, is_empty=empty)
            return {
                "image": self.session.state(image.number),
                "next": self.session.next_image(image.number),
                "score": score,
            }

        found = await run_in_threadpool(accept)
        self._tell_labels(request)
        return JSONResponse(found)

    async def _reopen(self, request: Request) -> Response:
        image = self._image(request)
        await run_in_threadpool(self.session.reopen, image.number)
        return JSONResponse(self.session.state(image.number))


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals alone; `signals.catching` has them."""
        return nullcontext()


def label_folder(
    folder: Path,
    *,
    classes: Path | None = None,
    ignored: Sequence[int | str] = (),
    port: int | None = None,
    hosts: Iterable[str] = (),
    run: str | None = None,
    budget: str = "2m",
    start_from: str | None = None,
    on_progress: OnProgress = silent,
    on_ready: Callable[[str], None] = silent,
) -> None:
    """Serve the labelling page of a folder on this machine alone until a signal comes.

    Args:
        folder: Images, labelled or not; see `project.open_project`.
        classes: A ``classes.toml`` to take instead of the folder's own.
        ignored: Values or colours of masks that are no class.
        port: The port; None takes 8421, or a free one where that is taken.
        hosts: Names beside localhost under which a proxy offers the page.
        run: The name of the run that is trained behind the page; None trains none.
        budget: The time of a round of training, such as "2m".
        start_from: A model (name of a run, folder or file) that predicts images from the start, and
            whose weights are the start of the first round.
        on_progress: Receives `Progress` while the folder is opened, and a `Note` about the model.
        on_ready: A function that takes the address to open, token included.

    Raises:
        InputError: The folder holds nothing to label, or masks that cannot be painted in. Or the
            model does not fit its images or classes.
        MachineError: The folder or the port is taken, or the folder cannot be written.
        Interrupted: A signal came; every stroke is saved.
    """
    parse_duration(budget)
    events = Events()
    model = StartingModel(start_from) if start_from else None
    if model:
        on_progress(Note(f"starting from {model}"))
    with (
        open_project(
            folder, classes=classes, ignored=ignored, model=model, on_progress=on_progress
        ) as project,
        open_session(project, events.publish, run=run, budget=budget, model=model) as session,
        _listen(port) as listening,
        catching() as caught,
    ):
        guard = Guard(LabelServer(session, events).app, hosts)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={guard.token}"
        asyncio.run(_serve(guard, listening, events, caught, lambda: on_ready(address)))
        caught.check(folder, f"all strokes are saved in {project.images[0].pair.mask.parent}")


async def _serve(
    app: ASGIApp,
    listening: socket.socket,
    events: Events,
    caught: Caught,
    on_ready: Callable[[], None],
) -> None:
    """Answer requests until a signal comes."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listening]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    on_ready()
    while caught.signum is None and not task.done():
        await asyncio.sleep(_WATCH)
    events.close()
    server.should_exit = True
    await task


def _listen(port: int | None) -> socket.socket:
    for number in (PORT, 0) if port is None else (port,):
        listening = socket.socket()
        if os.name != "nt":  # where it would let two programs listen at one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", number))
            listening.listen()  # two programs may bind the same port before, at the same moment
            return listening
        except OSError as error:
            listening.close()
            problem = error.strerror or str(error)
    raise MachineError(arg("port", port), problem, "choose another, or leave it out")


# --- the content of requests -------------------------------------------------------------------


def _changed_table(table: ClassTable, given: Sequence[GivenClass]) -> ClassTable:
    """Return the classes as the page wants them, with the mask values that they have."""
    kept = [one.was for one in given if one.was is not None]
    if kept != sorted(set(kept)) or any(was >= len(table.classes) for was in kept):
        raise InputError("classes", "not in their order", "reload the page")
    if [one.was for one in given][: len(kept)] != kept:
        raise InputError("classes", "a new class stands before an old class", "reload the page")
    taken = {c.value for c in table.classes} | set(table.ignore)
    free = iter(v for v in range(256) if v not in taken)
    black = default_colour(0)  # it would hide the picture
    colours = free_colours({black, *(one.colour for one in given if one.colour)})
    classes: list[SegmentationClass] = []
    for one in given:
        colour = one.colour or next(colours)
        if one.name != show(one.name).strip():
            raise InputError("classes", f"the name {one.name!r}", "write it without odd characters")
        if one.was is not None:
            classes.append(replace(table.classes[one.was], name=one.name, colour=colour))
            if table.encoding == "colours" and colour != table.classes[one.was].colour:
                text = "its colour stands for it in the masks"
                raise InputError(f"class {one.name}", text, "keep it")
        elif table.encoding == "colours":
            classes.append(SegmentationClass(one.name, None, colour))
        else:
            classes.append(SegmentationClass(one.name, next(free, None), colour))
    return replace(table, classes=tuple(classes))


def _named(table: ClassTable) -> list[dict[str, str]]:
    """Return the classes as the page shows them."""
    return [{"name": c.name, "colour": c.colour} for c in table.classes]


def _json(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None


def _flag(body: bytes, name: str, default: bool | None) -> bool:
    """Return the flag in a body such as ``{"on": true}``; without a default it must be there."""
    data = _json(body)
    value = data.get(name, default) if isinstance(data, dict) else None
    if not isinstance(value, bool):
        raise Refused(400, f'{{"{name}": true}} or {{"{name}": false}} is due')
    return value


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


def _packed(name: str, array: NDArray[Any], more: Mapping[str, str] | None = None) -> Response:
    """Return an array (h, w) as rows, with headers for height and width named by ``name``."""
    height, width = array.shape
    data = gzip.compress(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, 1)
    size = {f"{name}-Height": str(height), f"{name}-Width": str(width)}
    headers = {**size, **(more or {}), "Content-Encoding": "gzip"}
    return Response(data, media_type="application/octet-stream", headers=headers)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
