"""Docker's API over its unix socket, one request after the other: nothing but HTTP and JSON."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

TIMEOUT = 300.0
"""Seconds of silence."""


class DockerApi:
    def __init__(self, path: Path) -> None:
        self._kept = _Connection(path)
        self._path = path

    def call(self, method: str, target: str, body: object = None) -> Any:
        """The answer's JSON; None for an answer without. Bytes are sent as they are. RuntimeError with
        Docker's words for a status from 400 on."""
        raw = self.raw(self._kept, method, target, body)
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            return raw  # a stream of JSON, or of a program

    def once(self, method: str, target: str, body: object = None) -> bytes:
        """The same over a connection of its own, for answers that end with it."""
        connection = _Connection(self._path)
        try:
            return self.raw(connection, method, target, body)
        finally:
            connection.close()

    @staticmethod
    def raw(connection: HTTPConnection, method: str, target: str, body: object) -> bytes:
        data, kind = (body, "application/x-tar") if isinstance(body, bytes) else (None, "application/json")
        if body is not None and data is None:
            data = json.dumps(body).encode()
        connection.request(method, target, data, {"Content-Type": kind})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"Docker: {method} {target}: {answer.status} {said.decode(errors='replace')}")
        return said

    def close(self) -> None:
        self._kept.close()


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))
