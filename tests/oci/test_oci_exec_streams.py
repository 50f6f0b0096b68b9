"""Programs run inside containers with a client's streams."""

from __future__ import annotations

import pytest

from podwright.engines.base import Container
from podwright.engines.streams import Streams
from podwright.errors import CommandFailed
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import Bench
from tests.oci.clients import Arrived, Client
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root


@pytest.fixture(params=HANDLERS)
async def container(bench: Bench, request: pytest.FixtureRequest) -> Container:
    sandbox = await bench.sandbox(handler=request.param)
    config = cri.ContainerConfig(working_dir="/tmp")
    config.envs.add(key="COLOUR", value=b"blue=green")
    config.linux.security_context.run_as_user.value = 1000
    return await bench.container(sandbox, "sleep", "1000", config=config)


@pytest.fixture(params=["crun", "runc"])
async def native(bench: Bench, request: pytest.FixtureRequest) -> Container:
    """A container of a runtime whose processes are the host's."""
    return await bench.container(await bench.sandbox(handler=request.param), "sleep", "1000")


async def test_it_runs_as_the_container_does(bench: Bench, container: Container) -> None:
    client = Client(closed=True)
    code = await bench.engine.exec(
        container, ["sh", "-c", "echo $COLOUR; pwd; id -u; echo no >&2; exit 42"], client.streams
    )
    assert code == 42
    assert client.stdout.data.split() == [b"blue=green", b"/tmp", b"1000"]
    assert client.stderr.data == b"no\n"
    assert client.stdout.closed and client.stderr.closed


async def test_a_signal_is_a_code_above_128(bench: Bench, container: Container) -> None:
    assert await bench.engine.exec(container, ["sh", "-c", "kill -9 $$"], Client().streams) == 137
    assert await bench.engine.exec(container, ["sh", "-c", "kill -15 $$"], Client().streams) == 143


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
async def test_a_command_that_cannot_run_has_the_code_that_shells_give(
    bench: Bench, container: Container, command: str, code: int
) -> None:
    client = Client()
    assert await bench.engine.exec(container, [command], client.streams) == code
    said = client.stderr.data.decode()
    assert said.endswith("\n") and "level=" not in said, said
    assert client.stdout.data == b"" and client.stdout.closed and client.stderr.closed
    with pytest.raises(CommandFailed):  # without a stream for it the reason must not get lost
        await bench.engine.exec(container, [command], Streams(stdout=Arrived()))


async def test_the_end_of_stdin_reaches_it_and_bytes_stay_as_they_are(
    bench: Bench, container: Container
) -> None:
    all = bytes(range(256)) * 1000
    client = Client(all[:1000], all[1000:], closed=True)
    assert await bench.engine.exec(container, ["cat"], client.streams) == 0
    assert client.stdout.data == all
