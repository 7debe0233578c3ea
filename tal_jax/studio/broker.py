"""Server-sent events: what one thread publishes, every open page gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

_HEARTBEAT_S = 15.0  # a page that is gone shows when something is sent to it
_MOST_WAITING = 200  # of a page that does not read; it reloads when it reads again


class Broker:
    """Passes events on to all pages."""

    def __init__(self) -> None:
        """There is no page yet."""
        self._pages: dict[asyncio.Queue[bytes | None], asyncio.AbstractEventLoop] = {}

    def publish(self, event: str, data: Any) -> None:
        """Sends an event to all pages; from any thread."""
        content = f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
        self._send(content)

    def close(self) -> None:
        """Ends the streams of all pages."""
        self._send(None)

    async def stream(self) -> AsyncIterator[bytes]:
        """The events of one page, as they are sent."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._pages[queue] = asyncio.get_running_loop()
        try:
            yield b": open\n\n"
            while True:
                try:
                    content = await asyncio.wait_for(queue.get(), _HEARTBEAT_S)
                except TimeoutError:
                    content = b": here\n\n"
                if content is None:
                    return
                yield content
        finally:
            del self._pages[queue]

    def _send(self, content: bytes | None) -> None:
        for queue, loop in list(self._pages.items()):
            try:
                loop.call_soon_threadsafe(_put, queue, content)
            except RuntimeError:  # the loop is closed, and so is the page
                continue


def _put(queue: "asyncio.Queue[bytes | None]", content: bytes | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(content)
