"""Serves the page to the browser of the same machine only.

The server listens on the loopback address. Every URL begins with a secret token, which is printed
at the start; requests with another Host (DNS rebinding) or Origin are refused, and the page's
content security policy allows no other sources.
"""

import contextlib
import errno
import functools
import json
import math
import mimetypes
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np

from tal_jax._errors import InputError
from tal_jax.studio.address import Address, read_address, write_address
from tal_jax.studio.project import Project
from tal_jax.studio.recordings import find_sources
from tal_jax.studio.runner import Busy
from tal_jax.studio.session import Absent, Session
from tal_jax.studio.store import PARTS, Conflict, Store

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    raise InputError(
        'the page needs starlette and uvicorn; run pip install "tal_jax[studio]"'
    ) from error

_LONGEST_BODY = 16 << 20
_MOST_BINS = 4000
_MOST_PLACES = 500
_SHUTDOWN_S = 1  # for answers under way
_POLL_S = 0.5  # so that Ctrl+C is noticed
# Python's table of types depends on the machine.
_TYPES = {".mkv": "video/x-matroska", ".m4v": "video/mp4", ".mp4": "video/mp4"}
_TYPES |= {".webm": "video/webm", ".mov": "video/mp4", ".ogv": "video/ogg"}
_STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_STATIC_TYPES |= {".woff2": "font/woff2", ".txt": "text/plain", ".json": "application/json"}
# Of the report: what its pages and this one share.
_SHARED = ("charts.js", "common.css", "common.js", "timeline.js")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_App = Callable[[Any, Any, Any], Awaitable[None]]


class StudioServer:
    """The server of a page, see `open_server` and `open_studio`; a context manager.

    Attributes:
      session: what it works on.
      token: the secret part of the address.
      server_port: that it listens on.
      url: the address of the page, with its token.
    """

    def __init__(self, session: Session, port: int, address: Path):
        """Binds to the port; nothing is served before `serve_forever`.

        Args:
          session: what it works on.
          port: to listen on; 0 for that of the last start, or a free one.
          address: the file that keeps port and token for the next start.
        """
        self.session = session
        self.socket, self.token = _listen(port, read_address(address))
        self.server_port = self.socket.getsockname()[1]
        write_address(address, Address(self.server_port, self.token))
        hosts = {f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")}
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"
        config = uvicorn.Config(
            make_app(session, self.token, hosts),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # no requests, since URLs contain the token
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        self._server = uvicorn.Server(config)

    sources = property(lambda self: self.session.sources)
    store = property(lambda self: self.session.store)

    def serve_forever(self) -> None:
        """Serves until `shutdown`, or an exception such as that of Ctrl+C."""
        # In a thread, where uvicorn leaves signals alone: it would raise them once more.
        thread = threading.Thread(target=self._server.run, args=([self.socket],), daemon=True)
        thread.start()
        try:
            self.session.begin()
            while thread.is_alive():
                thread.join(_POLL_S)
        finally:
            self.shutdown()
            thread.join()

    def shutdown(self) -> None:
        """Ends `serve_forever` soon; from any thread."""
        self.session.broker.close()
        self._server.should_exit = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.socket.close()


def _listen(port: int, before: Address | None) -> tuple[socket.socket, str]:
    """A socket and a token: those of the last start, so that open pages can go on.

    The token is a new one where another program has the port: open pages have shown theirs to it.
    """
    if before is not None and port in (0, before.port):
        with contextlib.suppress(OSError):
            return _bind(before.port), before.token
    return _bind(port), secrets.token_urlsafe(24)


def _bind(port: int) -> socket.socket:
    found = socket.socket()
    try:
        # As servers do, so that a port can be used again at once.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("127.0.0.1", port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise OSError(errno.EADDRINUSE, f"cannot listen on port {port}: {reason}") from error
    return found


def open_server(
    paths: Iterable[str | os.PathLike],
    annotations: str | os.PathLike,
    *,
    classes: Sequence[str] = (),
    subset: str = "train",
    port: int = 0,
) -> StudioServer:
    """Creates the server of a page for labelling, without training.

    Args:
      paths: videos, tables of samples, and folders of these.
      annotations: the annotation file, created with the first label. Labels of other recordings in
        it are kept.
      classes: names of classes, in addition to those of the file.
      subset: of recordings that are not in the file.
      port: to listen on; 0 for that of the last start, or a free one.

    Returns:
      A server, to be run by `serve_forever`.

    Raises:
      InputError: if the annotation file is broken, there is no recording, two have the same name,
        or the first one cannot be read.
      OSError: if the port is taken.
    """
    store = Store(annotations, classes=classes, subset=subset)
    address = store.path.with_name(f".{store.path.name}.address")
    return StudioServer(Session(find_sources(paths), store), port, address)


def open_studio(
    project: Project, *, classes: Sequence[str] = (), subset: str = "train", port: int = 0
) -> StudioServer:
    """Creates the server of a page for labelling and training.

    In recordings that are not in the annotation file nothing is done: what is not labelled in them
    is unknown, not background.

    Args:
      project: from `open_project`.
      classes: names of classes, in addition to those of the labels.
      subset: of recordings without labels.
      port: to listen on; 0 for that of the last start, or a free one.

    Raises:
      InputError: as `open_server`.
      OSError: if the port is taken.
    """
    store = Store(project.annotations, classes=classes, subset=subset, begin_done=False)
    session = Session(project.sources(), store, project)
    return StudioServer(session, port, project.folder / ".address")


def make_app(session: Session, token: str, hosts: set[str]) -> _App:
    """The application: all answers are below the token, to requests of the page itself.

    Args:
      session: what it works on.
      token: the first part of every path.
      hosts: names by which it may be requested, with the port.
    """
    pages = _Pages(session)
    routes = [
        Route("/", pages.page),
        Route("/static/{name:path}", pages.static),
        Route("/state", pages.state),
        Route("/recording/{index}", pages.recording),
        Route("/media/{index}", pages.media),
        Route("/signal/{index}", pages.signal),
        Route("/prediction/{index}", pages.prediction),
        Route("/skeleton/{index}", pages.skeleton),
        Route("/events", pages.events),
        Route("/changes", pages.changes),
        Route("/queue", pages.queue),
        Route("/summary", pages.summary),
        Route("/save/{index}", pages.save, methods=["POST"]),
        Route("/classes", pages.classes, methods=["POST"]),
        Route("/extract", pages.extract, methods=["POST"]),
        Route("/train", pages.train, methods=["POST"]),
        Route("/stop", pages.stop, methods=["POST"]),
        Route("/settings", pages.settings, methods=["POST"]),
        Route("/preview", pages.preview, methods=["POST"]),
        Route("/export", pages.export, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: _refuse,
        Absent: functools.partial(_answer_error, HTTPStatus.NOT_FOUND),
        Conflict: functools.partial(_answer_error, HTTPStatus.CONFLICT),
        Busy: functools.partial(_answer_error, HTTPStatus.CONFLICT),
        ValueError: functools.partial(_answer_error, HTTPStatus.UNPROCESSABLE_ENTITY),
        ClientDisconnect: functools.partial(_answer_error, HTTPStatus.BAD_REQUEST),
        OSError: functools.partial(_answer_error, HTTPStatus.INTERNAL_SERVER_ERROR),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _guarded(app, token, hosts)


def _guarded(app: _App, token: str, hosts: set[str]) -> _App:
    """Refuses other pages and names, and removes the token from the path."""
    origins = {f"http://{host}" for host in hosts}

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        given, slash, rest = scope["path"].removeprefix("/").partition("/")
        origin = request.headers.get("origin")
        reason = None
        if request.headers.get("host") not in hosts:
            reason = "requested by another name than 127.0.0.1"
        elif origin is not None and origin not in origins:
            reason = "requested by another page"
        elif not secrets.compare_digest(given.encode(), token.encode()):
            reason = "no such page; open the printed address"

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        if reason is not None:
            await _error(HTTPStatus.FORBIDDEN, reason)(scope, receive, send_safely)
            return
        path = slash + rest
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        await app(inner, receive, send_safely)

    return answer


def _error(status: int, reason: str) -> Response:
    # A request's body may stay unread, so that the connection cannot be used again.
    closing = {"Connection": "close"}
    return _Json({"error": " ".join(reason.split())}, status, headers=closing)


def _refuse(request: Request, error: Any) -> Response:
    reason = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and reason == HTTPStatus.NOT_FOUND.phrase:
        reason = "no such page"
    return _error(error.status_code, reason)


def _answer_error(status: HTTPStatus, request: Request, error: Exception) -> Response:
    reason = str(error)
    if isinstance(error, OSError):
        reason = error.strerror or reason
    return _error(status, reason)


class _Json(JSONResponse):
    """In ASCII, since names of files may be no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class _Pages:
    """The answers. Functions without `async` run in threads, as they read and write files."""

    def __init__(self, session: Session):
        self._session = session
        self._static = _static_files()

    # --- the page ---

    def page(self, request: Request) -> Response:
        index = resources.files("tal_jax.studio") / "page" / "index.html"
        headers = {"Content-Security-Policy": _POLICY}
        return Response(index.read_bytes(), media_type="text/html", headers=headers)

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        kind = _STATIC_TYPES[Path(name).suffix]
        return Response(self._static[name].read_bytes(), media_type=kind)

    # --- recordings ---

    def state(self, request: Request) -> Response:
        return _Json(self._session.state())

    def recording(self, request: Request) -> Response:
        return _Json(self._session.recording(self._index(request)))

    def media(self, request: Request) -> Response:
        path = self._session.sources[self._index(request)].path
        with open(path, "rb"):
            pass  # that it can be read
        kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "video/mp4"
        return FileResponse(path, media_type=kind)

    def signal(self, request: Request) -> Response:
        envelope = self._session.details(self._index(request)).envelope
        if envelope is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "this recording is a video")
        start_s, end_s, bins = _numbers(request, "start", "end", "bins")
        if not 1 <= bins <= _MOST_BINS:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"expected bins from 1 to {_MOST_BINS}")
        times_s, low, high = envelope.window(start_s, end_s, int(bins))
        # Times, then minima and maxima, channel after channel.
        parts = (times_s, low.T.ravel(), high.T.ravel())
        content = np.concatenate(parts).astype("<f8").tobytes()
        return Response(content, media_type="application/octet-stream")

    def skeleton(self, request: Request) -> Response:
        start_s, end_s = _numbers(request, "start", "end")
        found = self._session.skeleton(self._index(request), start_s, end_s)
        return _Json(found)

    def prediction(self, request: Request) -> Response:
        return _Json(self._session.prediction(self._index(request)))

    # --- all of them ---

    async def events(self, request: Request) -> Response:
        stream = self._session.broker.stream()
        return StreamingResponse(stream, media_type="text/event-stream")

    def changes(self, request: Request) -> Response:
        return _Json(self._session.changes())

    def queue(self, request: Request) -> Response:
        (count,) = _numbers(request, "count") if "count" in request.query_params else (20,)
        if not 1 <= count <= _MOST_PLACES:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"expected count from 1 to {_MOST_PLACES}")
        return _Json(self._session.queue(int(count)))

    def summary(self, request: Request) -> Response:
        return _Json(self._session.summary())

    # --- changes ---

    async def save(self, request: Request) -> Response:
        kinds = {"annotations": list, "classes": list, "revision": str}
        values = await _body(request, kinds, "annotations, classes and a revision")
        labels = {key: values[key] for key in PARTS if key in values}

        def save() -> dict[str, Any]:
            session, index = self._session, self._index(request)
            revision = session.save(index, labels, values["revision"], values["classes"])
            return {"revision": revision, "saved": time.strftime("%H:%M:%S")}

        return _Json(await run_in_threadpool(save))

    async def classes(self, request: Request) -> Response:
        values = await _body(request, {}, "a change of a class")
        await run_in_threadpool(self._session.change_classes, values)
        return _Json({"classes": self._session.store.classes()})

    async def extract(self, request: Request) -> Response:
        return _Json(await run_in_threadpool(self._session.start, "extract"))

    async def train(self, request: Request) -> Response:
        return _Json(await run_in_threadpool(self._session.start, "train"))

    async def stop(self, request: Request) -> Response:
        return _Json({"stopped": await run_in_threadpool(self._session.stop)})

    async def settings(self, request: Request) -> Response:
        values = await _body(request, {}, "settings")
        await run_in_threadpool(self._session.change_settings, values)
        return _Json({})

    async def preview(self, request: Request) -> Response:
        kinds = {"recording": int, "settings": dict}
        values = await _body(request, kinds, "a recording and settings")
        index = self._known(values["recording"])
        found = await run_in_threadpool(self._session.preview, index, values["settings"])
        return _Json(found)

    async def export(self, request: Request) -> Response:
        values = await _body(request, {"formats": list, "clips": bool}, "formats and clips")
        found = await run_in_threadpool(self._session.export, values["formats"], values["clips"])
        return _Json(found)

    # --- what is asked for ---

    def _index(self, request: Request) -> int:
        text = request.path_params["index"]
        return self._known(int(text) if text.isascii() and text.isdecimal() else -1)

    def _known(self, index: int) -> int:
        if not 0 <= index < len(self._session.sources):
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such recording")
        return index


def _numbers(request: Request, *keys: str) -> list[float]:
    """Finite numbers of the query."""
    try:
        found = [float(request.query_params[key]) for key in keys]
    except (KeyError, ValueError):
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"expected {', '.join(keys)}")
    return found


async def _body(request: Request, kinds: Mapping[str, type], expected: str) -> dict[str, Any]:
    """An object of the request's body; its keys of these kinds."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _LONGEST_BODY:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too much at once")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
    try:
        values = json.loads(await request.body())
        good = isinstance(values, dict) and all(
            isinstance(values[key], kind) for key, kind in kinds.items()
        )
    except (ValueError, KeyError, RecursionError):
        good = False
    if not good:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"expected {expected}")
    return values


def _static_files() -> dict[str, Any]:
    """The files that pages may load, by their names."""
    report, page = resources.files("tal_jax.report"), resources.files("tal_jax.studio") / "page"
    found: dict[str, Any] = {name: report / name for name in _SHARED}

    def add(folder: Any, prefix: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            for one in folder.iterdir():
                if one.is_dir():
                    add(one, f"{prefix}{one.name}/")
                elif Path(one.name).suffix in _STATIC_TYPES:
                    found[f"{prefix}{one.name}"] = one

    add(page, "")
    return found
