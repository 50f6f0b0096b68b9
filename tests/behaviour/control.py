"""The control API of a fake node, spoken with nothing but the standard library."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any


class Control:
    def __init__(self, path: Path) -> None:
        self.socket = path

    def get(self, what: str) -> Any:
        return self._ask("GET", what)

    def post(self, what: str, body: object = None) -> Any:
        return self._ask("POST", what, body)

    def patch(self, what: str, body: object) -> Any:
        return self._ask("PATCH", what, body)

    def delete(self, what: str) -> Any:
        return self._ask("DELETE", what)

    def _ask(self, method: str, what: str, body: object = None) -> Any:
        """The decoded answer; AssertionError with the server's words when it is an error."""
        connection = _Connection(self.socket)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{what}", text, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 300, f"{method} /v1/{what}: {answer.status} {content.decode()}"
            return json.loads(content) if content else None
        finally:
            connection.close()


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
