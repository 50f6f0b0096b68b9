"""Where the Docker Engine is, and TLS with it: settings, the environment of Docker's client, a real dockerd
that verifies its clients, and clear words when the two do not trust each other."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from podwright.config import DockerConfig
from podwright.engines.base import Presence
from podwright.engines.docker.api import Docker
from podwright.engines.docker.endpoint import DEFAULT, Endpoint
from podwright.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.docker import certificates
from tests.docker.conftest import configured, docker_opened, left_over
from tests.docker.daemon import Daemon, running
from tests.docker.double import Double, serve
from tests.oci.bench import POD
from tests.oci.clients import PATIENCE


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    certificates.make(path)
    return path


# Where it is


def of(config: DockerConfig, **environment: str) -> Endpoint:
    return Endpoint.of(config, environment)


def test_the_environment_of_dockers_client_counts_where_nothing_is_configured() -> None:
    none, mine = DockerConfig(), DockerConfig(endpoint="unix:///x")
    tcp = "tcp://10.0.0.1:2376"
    assert of(none).address == DEFAULT
    assert of(none, DOCKER_HOST=tcp) == Endpoint(tcp)
    assert of(mine, DOCKER_HOST=tcp, DOCKER_CERT_PATH="/c", DOCKER_TLS_VERIFY="1") == Endpoint("unix:///x")
    found = Endpoint(tcp, "/c/ca.pem", "/c/cert.pem", "/c/key.pem")
    assert of(none, DOCKER_HOST=tcp, DOCKER_CERT_PATH="/c") == found
    assert of(none, DOCKER_HOST=tcp, DOCKER_CERT_PATH="/c", DOCKER_TLS_VERIFY="1") == found
    home = of(none, DOCKER_HOST=tcp, DOCKER_TLS_VERIFY="1", HOME="/home/me")
    assert home.ca == "/home/me/.docker/ca.pem"
    assert of(DockerConfig(tls_ca="/own.pem"), DOCKER_HOST=tcp, DOCKER_CERT_PATH="/c").ca == "/own.pem"
    # A socket of this host has no TLS, wherever the client's files are.
    assert of(none, DOCKER_CERT_PATH="/c", DOCKER_TLS_VERIFY="1") == Endpoint(DEFAULT)


@pytest.mark.parametrize("where", ["ftp://x", "/run/docker.sock", "unix://", "tcp://"])
def test_an_endpoint_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(InvalidArgument, match=r"docker\.endpoint"):
        Docker(DockerConfig(endpoint=where)).open()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"tls_ca": "/no/such.pem"}, "tls_ca"),
        ({"tls_ca": "{files}/client.key"}, "tls_ca"),
        ({"tls_cert": "/no/such.pem"}, "tls_cert"),
        ({"tls_cert": "{files}/client.pem", "tls_key": "/no/such.key"}, "tls_key"),
        ({"tls_cert": "{files}/client.pem", "tls_key": "{files}/server.key"}, "tls_cert, docker.tls_key"),
        ({"tls_cert": "{files}/client.pem"}, "tls_cert, docker.tls_key"),
        ({"tls_key": "{files}/client.key"}, "tls_cert"),
        ({"tls_ca": "{files}/ca.pem", "endpoint": "unix:///x"}, "tls_ca"),
    ],
)
def test_files_that_cannot_be_used_are_named(settings: dict[str, str], key: str, files: Path) -> None:
    told = {"endpoint": "tcp://127.0.0.1:1"} | {
        name: value.replace("{files}", str(files)) for name, value in settings.items()
    }
    with pytest.raises(InvalidArgument) as raised:
        Docker(DockerConfig(**told)).open()  # type: ignore[arg-type]
    assert str(raised.value).startswith(f"docker.{key}: ")


# A server of the test's own


@asynccontextmanager
async def server(files: Path, name: str, directory: Path) -> AsyncIterator[str]:
    """Speaks TLS with the certificate `name` ("" is no TLS), and wants its clients'; its endpoint."""
    context = None
    served = Double(directory / "none", [], directory, upgrades=True)
    answering: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = _plain
    if name:
        answering = partial(serve, served)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(files / "ca.pem")
        context.load_cert_chain(files / f"{name}.pem", files / f"{name}.key")
        context.verify_mode = ssl.CERT_REQUIRED
    listening = await asyncio.start_server(answering, "127.0.0.1", 0, ssl=context)
    try:
        yield f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def _plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As Go's servers answer what is no HTTP."""
    await reader.read(1 << 16)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
    await writer.drain()
    writer.close()


async def ask(config: DockerConfig) -> str:
    """The Docker Engine's version."""
    docker = Docker(config)
    docker.open()
    try:
        async with asyncio.timeout(PATIENCE):
            return str((await docker.call("GET", "/info"))["ServerVersion"])
    finally:
        await docker.close()


async def test_a_connection_is_given_over_through_tls(files: Path, tmp_path: Path) -> None:
    async with server(files, "server", tmp_path) as where, asyncio.timeout(PATIENCE):
        docker = Docker(certificates.config(files, where))
        docker.open()
        try:
            assert (await docker.call("GET", "/info"))["ServerVersion"]
            taken = await docker.hijack("POST", "/exec/x/start")
            await taken.write(b"tls")
            assert await taken.read_exactly(6) == b"HI TLS"
            # TLS connections have one end for both directions.
            assert not taken.end_input()
            taken.close()
        finally:
            await docker.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("old-server", r"docker\.tls_ca: the certificate .* out of date: certificate has expired"),
        ("elsewhere", r"docker\.endpoint: the certificate .* another name"),
        ("", r"docker\.endpoint: nobody speaks TLS at tcp://127"),
    ],
)
async def test_a_server_that_is_not_trusted(name: str, words: str, files: Path, tmp_path: Path) -> None:
    async with server(files, name, tmp_path) as where:
        with pytest.raises(FailedPrecondition, match=words):
            await ask(certificates.config(files, where))
        docker = Docker(certificates.config(files, where))
        docker._version = (1, 41)
        docker.open()
        with pytest.raises(FailedPrecondition, match=words):
            await docker.hijack("POST", "/exec/x/start")
        await docker.close()


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match="no Docker Engine answers"):
            await ask(DockerConfig(endpoint=where))


# A real dockerd


@pytest.fixture(scope="module")
def secured(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str]]:
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine needs root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    options = ["--tlsverify", f"--host={where}", f"--tlscacert={files / 'ca.pem'}"]
    options += [f"--tlscert={files / 'server.pem'}", f"--tlskey={files / 'server.key'}"]
    with running(tmp_path_factory.mktemp("dockerd"), options) as daemon:
        yield daemon, where


@pytest.mark.root
async def test_a_pod_runs_through_tls(secured: tuple[Daemon, str], files: Path, tmp_path: Path) -> None:
    daemon, where = secured
    config = configured(daemon, tmp_path)
    told = certificates.config(files, where)
    docker = msgspec.structs.replace(
        config.docker, endpoint=where, tls_ca=told.tls_ca, tls_cert=told.tls_cert, tls_key=told.tls_key
    )
    config = msgspec.structs.replace(config, docker=docker)
    async with docker_opened(config) as bench:
        sandbox = await bench.sandbox(network=POD)
        assert await bench.run(sandbox, "echo over tls") == "over tls\n"
        container = await bench.container(sandbox, "sleep", "1000")
        assert (await bench.engine.observe_container(container)).presence is Presence.RUNNING
        done = await bench.engine.exec_sync(container, ["echo", "run"], PATIENCE, 1000)
        assert (done.stdout, done.code) == (b"run\n", 0)
        await bench.engine.signal_container(container, 9)
        # Told by Docker's stream of events.
        assert (await bench.exit_of(container)).code == 137
    assert not left_over(daemon, config)


@pytest.mark.root
@pytest.mark.parametrize(
    ("ca", "client", "words"),
    [
        ("stranger", "client", r"docker\.tls_ca: the certificate .* signed by none of .*stranger\.pem"),
        ("", "client", r"docker\.tls_ca: the certificate .* signed by none of the host's"),
        ("ca", "", r"docker\.tls_cert: the Docker Engine at tcp://.* wants a certificate"),
        ("ca", "old-client", r"docker\.tls_cert: .* does not accept .*old-client\.pem.* out of date"),
        ("ca", "strange-client", r"docker\.tls_cert: .* does not accept .*strange-client\.pem"),
        ("", "", r"set docker\.tls_ca, docker\.tls_cert and docker\.tls_key"),
    ],
)
async def test_who_is_not_trusted_is_told_by_which_setting(
    ca: str, client: str, words: str, secured: tuple[Daemon, str], files: Path
) -> None:
    _, where = secured
    with pytest.raises(FailedPrecondition, match=words):
        await ask(certificates.config(files, where, ca=ca, client=client))


@pytest.mark.root
async def test_dockers_own_environment_is_enough(
    secured: tuple[Daemon, str], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("ca.pem", "ca.pem"), ("cert.pem", "client.pem"), ("key.pem", "client.key")):
        (tmp_path / name).symlink_to(files / file)
    monkeypatch.setenv("DOCKER_HOST", secured[1])
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert (await ask(DockerConfig())).startswith("20.")
