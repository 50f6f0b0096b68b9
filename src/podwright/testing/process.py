"""A fake node in a process of its own, `podwright serve --engine fake`: for tests of any style."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

from podwright.errors import Unavailable
from podwright.testing.client import Client, beside

PATIENCE = 30.0
"""Seconds that it may take to start, and to end after a signal to stop."""


class FakeServer:
    """`with FakeServer(directory) as server:` serves at `server.socket` until the block is left.

    `options` are those of `podwright serve`: "--scenario", "x.yaml", …. Unavailable, with its last words,
    when it does not start.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        """For everything that it keeps."""
        self.socket = directory / "podwright.sock"
        """Of the CRI."""
        self.control = Client(beside(self.socket))
        """Steers it: `server.control.post("/v1/crash")`."""
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The socket as clients of the CRI want it: "unix:///…"."""
        return f"unix://{self.socket}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, and wait until it serves."""
        directories = ("--root", str(self.directory / "root"), "--run", str(self.directory / "run"))
        with (self.directory / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "podwright", *directories, "--socket", str(self.socket)),
                    *("serve", "--engine", "fake", *self._options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        # It writes one line when it serves, or ends.
        readable, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        if not readable or not self._process.stdout.readline():
            self.stop()
            raise Unavailable(f"the fake server has not started: {self.log.strip() or 'it says nothing'}")

    def stop(self) -> int:
        """End it as SIGTERM does; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
