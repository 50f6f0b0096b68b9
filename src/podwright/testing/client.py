"""A client of the control API without an event loop: for the commands `podwright fake`, and for tests."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    Unavailable,
)
from podwright.server.endpoint import beside as beside
from podwright.server.endpoint import knock, silence

_ERRORS: dict[int, type[PodwrightError]] = {404: NotFound, 409: FailedPrecondition, 503: Unavailable}


class Client:
    """Each call opens a connection of its own. Errors are those of `podwright.errors`, Unavailable when
    nobody listens at the socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, route: str, **query: Any) -> Any:
        """What is at `route`; `query` are its parameters, None ones left out."""
        given = {
            key: str(value).lower() if isinstance(value, bool) else value
            for key, value in query.items()
            if value is not None
        }
        return self.call("GET", f"{route}?{urlencode(given)}" if given else route)

    def post(self, route: str, **body: Any) -> Any:
        return self.call("POST", route, body)

    def delete(self, route: str) -> Any:
        return self.call("DELETE", route)

    def call(self, method: str, route: str, body: Any = None) -> Any:
        """`body` is sent as it is when it is bytes, YAML or JSON, or else as JSON."""
        if error := knock(self.path):
            raise Unavailable(
                f"no fake node is controlled at {self.path}: {silence(error)};"
                " `podwright serve --engine fake` starts one"
            )
        connection = _Connection(self.path)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, route, sent)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status == 200:
            return answer
        raise _error(response.status, answer)

    def exit(self, container: str, code: int = 0, *, oom: bool = False) -> None:
        """End the program of a container: by id, the beginning of one, "name" or "pod/name"."""
        self.post(f"/v1/containers/{quote(container, safe='')}/exit", code=code, oom=oom)

    def lose(self, pod: str) -> None:
        """Let a pod's sandbox break: by id, the beginning of one, "name" or "namespace/name"."""
        self.post(f"/v1/pods/{quote(pod, safe='')}/lose")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def _error(status: int, answer: Any) -> PodwrightError:
    words = str(answer.get("error", answer)) if isinstance(answer, dict) else str(answer)
    if status == 400:
        field = str(answer.get("field", "")) if isinstance(answer, dict) else ""
        return InvalidArgument(field, words.removeprefix(f"{field}: "))
    return _ERRORS.get(status, PodwrightError)(words)
