"""Serves the page for labelling to the browser of the same machine only.

The server listens on the loopback address. Every URL begins with a secret token, which is printed
at the start; requests with another Host (DNS rebinding) or Origin are refused, and the page's
content security policy allows no other sources.
"""

import base64
import errno
import functools
import http.server
import json
import math
import mimetypes
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from tal_jax.report.pages import read_template
from tal_jax.report.palette import class_colours
from tal_jax.studio.recordings import Details, find_sources, read_details
from tal_jax.studio.store import Conflict, Store

_LONGEST_BODY = 16 << 20
_CHUNK = 256 << 10
_NUM_COLOURS = 60
_MOST_BINS = 4000
# Python's table of types depends on the machine.
_TYPES = {".mkv": "video/x-matroska", ".m4v": "video/mp4", ".mp4": "video/mp4"}
_TYPES |= {".webm": "video/webm", ".mov": "video/mp4", ".ogv": "video/ogg"}


class _Refused(Exception):
    """A refused request, with the status and the line of the answer."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class LabelServer(http.server.ThreadingHTTPServer):
    """The server of a labelling session, see `open_server`.

    Attributes:
      url: the address of the page, with its token.
      store: the annotation file.
    """

    daemon_threads = True

    def __init__(self, paths: Iterable[str | os.PathLike], store: Store, port: int):
        """Binds to the port; nothing is served before `serve_forever`."""
        self.sources = find_sources(paths)
        self.store = store
        self.token = secrets.token_urlsafe(24)
        self._reading = threading.Lock()
        # Bounded, since tables of long recordings are large.
        self._read = functools.lru_cache(maxsize=8)(lambda index: read_details(self.sources[index]))
        self.details(0)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OSError(errno.EADDRINUSE, f"cannot listen on port {port}: {reason}") from error
        self.hosts = {f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")}
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores closed connections; handles other errors as the base class."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def details(self, index: int) -> Details:
        """Returns the properties of a recording; raises InputError if it cannot be read."""
        with self._reading:  # otherwise two requests read a long table twice
            return self._read(index)


def open_server(
    paths: Iterable[str | os.PathLike],
    annotations: str | os.PathLike,
    *,
    classes: Sequence[str] = (),
    subset: str = "train",
    port: int = 0,
) -> LabelServer:
    """Creates the server of a page for labelling.

    Args:
      paths: videos, tables of samples, and folders of these.
      annotations: the annotation file, created with the first label. Labels of other recordings in
        it are kept.
      classes: names of classes, in addition to those of the file.
      subset: of recordings that are not in the file.
      port: to listen on; 0 for a free one.

    Returns:
      A server, to be run by `serve_forever`.

    Raises:
      InputError: if the annotation file is broken, there is no recording, two have the same name,
        or the first one cannot be read.
      OSError: if the port is taken.
    """
    return LabelServer(paths, Store(annotations, classes=classes, subset=subset), port)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version = "tal_jax"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        try:
            self._dispatch(method)
        except _Refused as refused:
            self._send_error(refused.status, str(refused))
        except Conflict as conflict:
            self._send_error(HTTPStatus.CONFLICT, str(conflict))
        except ValueError as error:
            self._send_error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except ConnectionError:
            self.close_connection = True  # the page was closed, or the video sought elsewhere
        except OSError as error:
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, error.strerror or str(error))

    def _dispatch(self, method: str) -> None:
        self._check_sender()
        parts = urlsplit(self.path)
        _, token, *rest = (parts.path or "/").split("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "no such page; open the printed address")
        match [method, *rest]:
            case ["GET", ""]:
                self._page()
            case ["GET", "state"]:
                self._state()
            case ["GET", "recording", index]:
                self._recording(self._index(index))
            case ["GET", "media", index]:
                self._media(self._index(index))
            case ["GET", "signal", index]:
                self._signal(self._index(index), parse_qs(parts.query))
            case ["POST", "save", index]:
                self._save(self._index(index))
            case _:
                raise _Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _index(self, text: str) -> int:
        if not text.isdecimal() or int(text) >= len(self.server.sources):
            raise _Refused(HTTPStatus.NOT_FOUND, "no such recording")
        return int(text)

    def _check_sender(self) -> None:
        """Refuses requests of other pages in the same browser, and of other host names."""
        if self.headers.get("Host") not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, "requested by another name than 127.0.0.1")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            raise _Refused(HTTPStatus.FORBIDDEN, "requested by another page")

    # --- answers ---

    def _page(self) -> None:
        nonce = base64.b64encode(secrets.token_bytes(16)).decode()
        page = read_template("tal_jax.studio", "page.html").replace("{{nonce}}", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; media-src 'self'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        self._send(page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def _state(self) -> None:
        names = [source.name for source in self.server.sources]
        self._send_json(
            {
                "file": str(self.server.store.path),
                "classes": self.server.store.classes(),
                "colours": class_colours(_NUM_COLOURS),
                "recordings": [
                    {"name": name, "count": count}
                    for name, count in zip(names, self.server.store.counts(names), strict=True)
                ],
            }
        )

    def _recording(self, index: int) -> None:
        source, details = self.server.sources[index], self.server.details(index)
        stored, revision = self.server.store.entry(source.name)
        entry = {"annotations": [], **(stored or {})}
        known_s = entry.get("duration", entry.get("duration_second"))
        notices = [*details.notes]
        if known_s is not None and abs(known_s - details.duration_s) > 0.5:
            notices.append(
                f"the duration of this recording is {known_s:g} s in "
                f"{self.server.store.path.name}, and {details.duration_s:.3f} s in its file"
            )
        envelope = details.envelope
        self._send_json(
            {
                "name": source.name,
                "kind": source.kind,
                "duration": details.duration_s if known_s is None else known_s,
                "frame_rate": details.frame_rate,
                "origin": details.origin_s,
                "channels": [] if envelope is None else envelope.names,
                "ranges": [] if envelope is None else envelope.ranges,
                "revision": revision,
                "annotations": entry["annotations"],
                "notice": "; ".join(notices),
            }
        )

    def _signal(self, index: int, query: dict[str, list[str]]) -> None:
        envelope = self.server.details(index).envelope
        if envelope is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "this recording is a video")
        try:
            start_s, end_s, bins = (float(query[key][0]) for key in ("start", "end", "bins"))
        except (KeyError, ValueError):
            start_s = end_s = bins = math.nan
        if not (math.isfinite(start_s) and math.isfinite(end_s) and 1 <= bins <= _MOST_BINS):
            raise _Refused(HTTPStatus.BAD_REQUEST, "expected start, end and bins")
        times_s, low, high = envelope.window(start_s, end_s, int(bins))
        # Times, then minima and maxima, channel after channel.
        parts = (times_s, low.T.ravel(), high.T.ravel())
        content = np.concatenate(parts).astype("<f8").tobytes()
        self._send(content, "application/octet-stream")

    def _save(self, index: int) -> None:
        values = self._body()
        source = self.server.sources[index]
        revision = self.server.store.save(
            source.name,
            values["annotations"],
            revision=values["revision"],
            classes=values["classes"],
            duration_s=self.server.details(index).duration_s,
        )
        self._send_json({"revision": revision, "saved": time.strftime("%H:%M:%S")})

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_BODY:
            self.close_connection = True  # its body stays unread
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too much at once")
        content = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        try:
            values = json.loads(content)
            kinds = {"annotations": list, "classes": list, "revision": str}
            good = all(isinstance(values[key], kind) for key, kind in kinds.items())
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise _Refused(HTTPStatus.BAD_REQUEST, "expected annotations, classes and a revision")
        return values

    def _media(self, index: int) -> None:
        path = self.server.sources[index].path
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last, status = _parse_range(self.headers.get("Range"), size)
            headers = {"Accept-Ranges": "bytes", "Content-Length": str(last - first)}
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                headers["Content-Range"] = f"bytes */{size}"
            elif status == HTTPStatus.PARTIAL_CONTENT:
                headers["Content-Range"] = f"bytes {first}-{last - 1}/{size}"
            self._send_head(status, _media_type(path), headers)
            if self.command == "HEAD":
                return
            file.seek(first)
            while first < last:
                chunk = file.read(min(_CHUNK, last - first))
                if not chunk:  # the file has been truncated
                    self.close_connection = True
                    return
                self.wfile.write(chunk)
                first += len(chunk)

    # --- sending ---

    def _send_json(self, values: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(values).encode(), "application/json", status=status)

    def _send_error(self, status: HTTPStatus, reason: str) -> None:
        if self.command == "POST":
            self.close_connection = True  # its body may stay unread
        self._send_json({"error": " ".join(reason.split())}, status)

    def _send(
        self,
        content: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self._send_head(status, kind, {"Content-Length": str(len(content)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_head(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        common = {
            "Content-Type": kind,
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if self.close_connection:
            common["Connection"] = "close"
        for name, value in {**common, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Logs nothing, since URLs contain the token."""


def _parse_range(header: str | None, size: int) -> tuple[int, int, HTTPStatus]:
    """Returns the first byte to send, the end (exclusive), and the status.

    >>> _parse_range("bytes=2-3", 10), _parse_range("bytes=-4", 10)
    ((2, 4, <HTTPStatus.PARTIAL_CONTENT: 206>), (6, 10, <HTTPStatus.PARTIAL_CONTENT: 206>))
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    # Several ranges and unknown units may be answered with the whole file.
    if not found or not any(found.groups()):
        return 0, size, HTTPStatus.OK
    first, last = found.groups()
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if begin >= end:
        return 0, 0, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return begin, end, HTTPStatus.PARTIAL_CONTENT


def _media_type(path: Path) -> str:
    return _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "video/mp4"
