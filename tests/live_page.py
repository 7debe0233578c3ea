"""A server of the page in a thread, and what a page asks it."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator


@contextlib.contextmanager
def serving(server) -> Iterator:
    """Serves in a thread until the end of the context."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path, *, method="GET", body=None, **headers):
    """Returns the status, the headers and the content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class Page:
    """The requests of a page, by the address and the port of a server."""

    def __init__(self, host: str, root: str) -> None:
        self.host, self.root = host, root

    @classmethod
    def of(cls, server) -> "Page":
        return cls(f"127.0.0.1:{server.server_port}", f"/{server.token}/")

    def try_get(self, path):
        """The status and the values of an answer."""
        return self._ask("GET", path, None)

    def try_post(self, path, values):
        return self._ask("POST", path, json.dumps(values))

    def get(self, path):
        """The values of an answer that must be good."""
        status, values = self.try_get(path)
        assert status == 200, values
        return values

    def post(self, path, values):
        status, values = self.try_post(path, values)
        assert status == 200, values
        return values

    def save(self, index, **labels):
        """Saves labels of a recording over those that it has now."""
        before = self.get(f"recording/{index}")
        values = {"annotations": before["annotations"], "classes": [], **labels}
        return self.post(f"save/{index}", {"revision": before["revision"], **values})

    def wait(self, *, seconds=300):
        """Waits for the end of the job at work; returns the state."""
        until = time.monotonic() + seconds
        while (state := self.get("state"))["job"] is not None:
            assert time.monotonic() < until, state["job"]
            time.sleep(0.1)
        return state

    def _ask(self, method, path, body):
        connection = http.client.HTTPConnection(self.host, timeout=60)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request(method, self.root + path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
