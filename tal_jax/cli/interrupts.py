"""Ctrl+C while the process is inside compiled code.

A compilation takes up to a minute. KeyboardInterrupt arrives while XLA's threads are still at work,
and the end of the interpreter would free what they use: a segmentation fault. So the process ends
without it. During other long calls Python does not handle the signal at all, so a thread answers
it. Files get their final names when they are complete.
"""

import os
import signal
import socket
import sys
import threading
from typing import NoReturn

EXIT_CODE = 130  # 128 + SIGINT, as shells have it
STOPPED = "\ntal-jax: stopped; the same command goes on from here"
WAITING = "\ntal-jax: stopping when the step under way ends; Ctrl+C again stops at once"
_PATIENCE_S = 1.0


def watch() -> None:
    """Starts a thread that answers Ctrl+C: the first time by a line after a second, then by ending.

    Call it in the main thread. Does nothing where another handler than Python's own is in place.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Written to by the handler in C, which runs while Python's handler waits for its turn.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(reader, writer), daemon=True)
    thread.start()


def end(code: int = EXIT_CODE) -> NoReturn:
    """Ends the process without the end of the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _answer(reader: socket.socket, writer: socket.socket) -> None:
    del writer  # only kept open
    _next_interrupt(reader, None)
    if not _next_interrupt(reader, _PATIENCE_S):
        # Not by print: the main thread may hold the lock of the stream.
        os.write(2, f"{WAITING}\n".encode())
        _next_interrupt(reader, None)
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(EXIT_CODE)


def _next_interrupt(reader: socket.socket, timeout_s: float | None) -> bool:
    """Waits for SIGINT; other signals that Python handles arrive here too."""
    reader.settimeout(timeout_s)
    try:
        while int(signal.SIGINT) not in reader.recv(1):
            pass
    except TimeoutError:
        return False
    return True
