"""The parts of our client that need no server: what statuses mean, pipes inside a process; and TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright import errors
from podwright.api import Cri
from podwright.engines.streams import Streams
from podwright.errors import InvalidArgument, PodwrightError, Unavailable
from podwright.streaming import client, status
from podwright.streaming.client import Options, Transport
from podwright.streaming.client_http import Tls
from podwright.streaming.client_status import exit_code
from podwright.streaming.pipe import Pipe
from tests.images.scripted import Authority, make_authority
from tests.streaming.stand_in import Node, node
from tests.streaming.test_client import Kept

# Statuses


@given(st.integers(0, 255))
def test_exit_codes_pass_through_the_status(code: int) -> None:
    assert exit_code(status.exited(code, structured=True)) == code


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("gone"),
        errors.FailedPrecondition("not running"),
        errors.Unavailable("later"),
        errors.DeadlineExceeded("too late"),
        errors.ResourceExhausted("too many"),
        errors.Unimplemented("never"),
        PodwrightError("something"),
    ],
)
def test_errors_pass_through_the_status(error: PodwrightError) -> None:
    with pytest.raises(type(error), match=f"^{error}$") as raised:
        exit_code(status.failed(error, structured=True))
    assert type(raised.value) is type(error)


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (b"", Unavailable, "without saying how"),
        (b"  \n", Unavailable, "without saying how"),
        (b"exec failed: no such file", PodwrightError, "exec failed: no such file"),
        (b"[1]", PodwrightError, r"\[1\]"),
        (b'{"status": "Failure"}', PodwrightError, "Failure"),
        (
            b'{"status":"Failure","reason":"NonZeroExitCode","message":"odd",'
            b'"details":{"causes":[{"reason":"ExitCode","message":"many"}]}}',
            PodwrightError,
            "odd",
        ),
        (b'{"status":"Failure","message":"no","code":400}', InvalidArgument, "^no$"),
    ],
)
def test_odd_statuses_are_errors(document: bytes, kind: type[PodwrightError], words: str) -> None:
    with pytest.raises(kind, match=words):
        exit_code(document)


# Pipes


async def test_a_pipe_holds_its_writer_up_and_ends() -> None:
    pipe = Pipe(room=4)
    await pipe.write(b"1234")
    writing = asyncio.ensure_future(pipe.write(b"5"))
    await asyncio.sleep(0)
    assert not writing.done()
    assert await pipe.read() == b"1234"
    await writing
    await pipe.close()
    assert (await pipe.read(), await pipe.read(), await pipe.read()) == (b"5", b"", b"")
    with pytest.raises(BrokenPipeError):
        await pipe.write(b"x")


async def test_a_reader_that_leaves_breaks_the_pipe() -> None:
    pipe = Pipe(room=1)
    writing = asyncio.ensure_future(pipe.write(b"too much"))
    await asyncio.sleep(0)
    pipe.leave()
    with pytest.raises(BrokenPipeError):
        await writing


async def test_what_failed_behind_a_pipe_is_raised_after_its_bytes() -> None:
    pipe = Pipe()
    await pipe.write(b"half")
    pipe.fail(Unavailable("gone"))
    assert await pipe.read() == b"half"
    with pytest.raises(Unavailable, match="gone"):
        await pipe.read()


async def test_what_was_written_to_a_pipe_may_be_used_again() -> None:
    pipe, data = Pipe(), bytearray(b"one")
    await pipe.write(data)
    data[:] = b"two"
    assert await pipe.read() == b"one"


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "authority")


async def _code(node: Node, transport: Transport, tls: Tls) -> int:
    cri = cast(Cri, SimpleNamespace(exec=node.runtime.exec))
    work = client.exec(cri, node.container, ["exit", "5"], Streams(stdout=Kept()), Options(transport, tls))
    return await asyncio.wait_for(work, 60)


@pytest.mark.parametrize("transport", list(Transport))
async def test_a_server_with_tls_is_verified(
    tmp_path: Path, authority: Authority, transport: Transport
) -> None:
    config: dict[str, Any] = {"tls_cert": str(authority.certificate), "tls_key": str(authority.key)}
    async with node(tmp_path, **config) as made:
        assert await _code(made, transport, Tls(ca=authority.ca)) == 5
        assert await _code(made, transport, Tls(insecure=True)) == 5
        with pytest.raises(Unavailable, match=r"not believed: .*--ca"):
            await _code(made, transport, Tls())


async def test_a_client_shows_its_certificate(tmp_path: Path, authority: Authority) -> None:
    config: dict[str, Any] = {"tls_cert": str(authority.certificate), "tls_key": str(authority.key)}
    async with node(tmp_path, tls_client_ca=str(authority.ca), **config) as made:
        tls = Tls(ca=authority.ca, cert=authority.certificate, key=authority.key)
        assert await _code(made, Transport.AUTO, tls) == 5
        with pytest.raises(Unavailable, match="--cert, --key"):
            await _code(made, Transport.AUTO, Tls(ca=authority.ca))


async def test_a_certificate_that_is_none_is_named(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    config: dict[str, Any] = {"tls_cert": str(authority.certificate), "tls_key": str(authority.key)}
    async with node(tmp_path, **config) as made:
        for tls in (Tls(ca=tmp_path / "ca.pem"), Tls(ca=tmp_path / "missing.pem")):
            with pytest.raises(InvalidArgument, match="certificates cannot be loaded"):
                await _code(made, Transport.AUTO, tls)
