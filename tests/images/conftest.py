"""Stores in temporary directories, and real registries on loopback."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from podwright.config import Config, ImageConfig
from podwright.images.store import ImageStore
from podwright.state.database import Database


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Opens the test's store (again); the one before is closed without ceremony, as a crash would."""
    opened: list[tuple[ImageStore, Database]] = []

    async def again(**images: object) -> ImageStore:
        while opened:
            store, database = opened.pop()
            await store.close()
            database.close()
        database = Database.open(tmp_path / "podwright.db")
        config = Config(images=ImageConfig(**images))  # type: ignore[arg-type]
        store = ImageStore(tmp_path / "images", database, config)
        await store.open()
        opened.append((store, database))
        return store

    yield again
    for store, database in opened:
        await store.close()
        database.close()


@pytest.fixture
async def store(open_store: Callable[..., object]) -> ImageStore:
    return await open_store()  # type: ignore[no-any-return, misc]


@dataclass(frozen=True)
class Registry:
    address: str
    requests: Path
    """Its access log."""

    def push(self, layout: Path, name: str, *options: str) -> None:
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options]  # noqa: RUF005
            + [f"oci:{layout}:v1", f"docker://{self.address}/{name}"],
            check=True,
            capture_output=True,
        )

    def blob_requests(self) -> list[str]:
        return re.findall(r"GET /v2/\S+/blobs/(sha256:[0-9a-f]+)", self.requests.read_text())


@contextmanager
def run_registry(directory: Path, http: str = "", auth: str = "") -> Iterator[Registry]:
    """A docker-registry on a free port of 127.0.0.1, ended by its own pid."""
    directory.mkdir()
    (directory / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {directory}/blobs}}}}\n"
        f"http: {{addr: '127.0.0.1:0'{http}}}\n{auth}"
    )
    with ExitStack() as stack:
        access = stack.enter_context((directory / "requests").open("wb"))
        program = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")],
            stdout=access,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
        stack.callback(program.wait)
        stack.callback(program.terminate)
        assert program.stderr is not None
        log = b""
        while not (found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", log)):
            line = program.stderr.readline()
            assert line, f"docker-registry has ended: {log.decode()}"
            log += line
        # Read on, or the registry would block on a full pipe.
        drain = stack.enter_context((directory / "log").open("wb"))
        copier = subprocess.Popen(["cat"], stdin=program.stderr, stdout=drain)
        stack.callback(copier.wait)
        try:
            yield Registry(f"127.0.0.1:{int(found[1])}", directory / "requests")
        finally:
            program.terminate()  # before anybody waits for the end of its words


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with run_registry(tmp_path_factory.mktemp("registry") / "run") as started:
        yield started


@pytest.fixture
def private_registry(tmp_path: Path) -> Iterator[Registry]:
    """Lets in nobody but reader with the password secret."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    users = tmp_path / "htpasswd"
    users.write_bytes(b"reader:" + crypt(b"secret", b"$2y$05$abcdefghijklmnopqrstuu") + b"\n")
    auth = f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n"
    with run_registry(tmp_path / "registry", auth=auth) as started:
        yield started


@pytest.fixture
def tls_registry(tmp_path: Path) -> Iterator[Registry]:
    """Speaks TLS with a certificate that nobody trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]  # noqa: RUF005
        + ["-keyout", str(key), "-out", str(certificate), "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    with run_registry(tmp_path / "registry", f", tls: {{certificate: {certificate}, key: {key}}}") as started:
        yield started
