"""The server at a real socket, before a house of a few methods: who may listen, what passes, what errors
become."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from podwright import errors
from podwright.api import Cri
from podwright.client import connect
from podwright.server import tuning
from podwright.server.calls import Gate, served_methods
from podwright.server.endpoint import socket_path
from podwright.server.errors import MESSAGE_BYTES, error_of, status_of
from podwright.server.serve import drain, listening
from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as stubs

# The generated stubs have no annotations.
RUNTIME: Any = stubs.RuntimeServiceStub
IMAGES: Any = stubs.ImageServiceStub


class House:
    """As much of a Cri as these tests ask for."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        return cri.VersionResponse(version="0.1.0", runtime_name="podwright")

    async def status_wire(self, request: cri.StatusRequest) -> bytes:
        return cri.StatusResponse(info={"kept": "as bytes"}).SerializeToString()

    async def container_status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        assert self.failure is not None
        raise self.failure

    async def stream_containers(
        self, request: cri.StreamContainersRequest
    ) -> AsyncIterator[cri.StreamContainersResponse]:
        yield cri.StreamContainersResponse(containers=[cri.Container(id="abc")])

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        return cri.ExecSyncResponse(stdout=request.cmd[0].encode(), stderr=b"e" * (16 << 20))

    async def stop_container(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def pull_image(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        raise errors.FailedPrecondition("the store is full")


@asynccontextmanager
async def served(path: Path, house: House | None) -> AsyncIterator[Cri]:
    gate = Gate()
    if house is not None:
        gate.open(cast(Cri, house))
    async with listening(str(path), gate), connect(f"unix://{path}", timeout=30) as client:
        yield client


async def test_the_socket_has_mode_0660_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "podwright.sock"
    async with served(path, House()) as client:
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        assert (await client.version(cri.VersionRequest())).runtime_name == "podwright"
    assert not path.exists()


async def test_the_umask_is_as_before(tmp_path: Path) -> None:
    before = os.umask(0o022)
    os.umask(before)
    async with served(tmp_path / "s", House()):
        now = os.umask(0o022)
        os.umask(before)
    assert now == before


async def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with served(path, House()) as client:
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"


async def test_a_second_server_at_the_same_socket_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served(path, House()) as client:
        with pytest.raises(errors.FailedPrecondition, match="another podwright serves at"):
            async with listening(str(path), Gate()):
                pass
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"


async def test_the_socket_of_another_program_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(errors.FailedPrecondition, match="another program listens"):
            async with listening(str(path), Gate()):
                pass
    assert path.exists()


async def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(errors.FailedPrecondition, match="no socket"):
        async with listening(str(path), Gate()):
            pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/run/x.sock", "/run/x.sock"),
        ("unix:/run/x.sock", "/run/x.sock"),
        ("unix:///run/x.sock", "/run/x.sock"),
    ],
)
def test_addresses_of_unix_sockets(address: str, path: str) -> None:
    assert socket_path(address) == Path(path)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "x.sock", "unix:x.sock", "", "/" + "x" * 107])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        socket_path(address)


async def test_before_recovery_has_ended_every_call_is_unavailable(tmp_path: Path) -> None:
    gate = Gate()
    path = tmp_path / "s"
    async with listening(str(path), gate), connect(str(path)) as client:
        for _, method in served_methods():
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
            request = getattr(cri, method.input_type.name)()
            with pytest.raises(errors.Unavailable, match="recovery has not finished"):
                answer = getattr(client, name)(request)
                await (anext(answer) if method.server_streaming else answer)
        gate.open(cast(Cri, House()))
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"


async def test_every_call_of_the_cri_protocol_is_served() -> None:
    methods = {name for name in vars(Cri) if not name.startswith("_")}
    assert len(list(served_methods())) == len(methods)


async def test_an_rpc_that_the_house_does_not_have_is_unimplemented(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "s", House()),
        grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel,
    ):
        new: Any = channel.unary_unary("/podwright.v1.Node/PruneImages")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await new(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        other: Any = channel.unary_unary("/runtime.v1alpha2.RuntimeService/Version")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_generated_stubs_reach_both_services(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "s", House()),
        grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel,
    ):
        answer = await RUNTIME(channel).Version(cri.VersionRequest())
        assert answer.runtime_name == "podwright"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await IMAGES(channel).PullImage(cri.PullImageRequest())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "the store is full"


CODES: list[tuple[errors.PodwrightError, grpc.StatusCode]] = [
    (errors.NotFound("no container abc"), grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists("taken"), grpc.StatusCode.ALREADY_EXISTS),
    (errors.InvalidArgument("config.metadata.name", "is empty"), grpc.StatusCode.INVALID_ARGUMENT),
    (errors.FailedPrecondition("it is running"), grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unavailable("starting"), grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlineExceeded("after 1 s"), grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ResourceExhausted("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unimplemented("not here"), grpc.StatusCode.UNIMPLEMENTED),
    (errors.PodwrightError("something inside"), grpc.StatusCode.UNKNOWN),
    (errors.CommandFailed("crun", 1, "no"), grpc.StatusCode.UNKNOWN),
    # The kubelet compares the message's first word, and sees it bare only in an UNKNOWN status.
    (errors.RegistryUnavailable("503"), grpc.StatusCode.UNKNOWN),
    (errors.SignatureValidationFailed("unsigned"), grpc.StatusCode.UNKNOWN),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
async def test_an_error_of_the_house_becomes_its_code_and_an_error_again(
    tmp_path: Path, error: errors.PodwrightError, code: grpc.StatusCode
) -> None:
    assert status_of(error) == (code, str(error))
    house = House()
    house.failure = error
    async with served(tmp_path / "s", house) as client:
        with pytest.raises(errors.PodwrightError) as caught:
            await client.container_status(cri.ContainerStatusRequest(container_id="abc"))
    assert str(caught.value) == str(error)
    again = errors.PodwrightError if isinstance(error, errors.CommandFailed) else type(error)
    assert type(caught.value) is again


async def test_a_defect_is_internal_and_its_traceback_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()
    house.failure = ZeroDivisionError("division by zero")
    async with served(tmp_path / "s", house) as client:
        with pytest.raises(errors.PodwrightError, match="INTERNAL: ZeroDivisionError: division by zero"):
            await client.container_status(cri.ContainerStatusRequest(container_id="abc"))
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"
    (record,) = [record for record in caplog.records if record.name == "podwright.server"]
    assert "ContainerStatus abc" in record.getMessage()
    assert record.exc_info and "raise self.failure" in (caplog.text)


async def test_a_long_message_arrives_with_its_head_and_its_tail(tmp_path: Path) -> None:
    house = House()
    house.failure = errors.FailedPrecondition("head " + "ü" * 100_000 + " tail")
    async with served(tmp_path / "s", house) as client:
        with pytest.raises(errors.FailedPrecondition) as caught:
            await client.container_status(cri.ContainerStatusRequest())
    message = str(caught.value)
    assert message.startswith("head ") and message.endswith(" tail")
    assert len(message.encode()) <= MESSAGE_BYTES + len(" … ".encode())


async def test_messages_larger_than_16_mib_pass_both_ways(tmp_path: Path) -> None:
    async with served(tmp_path / "s", House()) as client:
        argument = "a" * (17 << 20)
        answer = await client.exec_sync(cri.ExecSyncRequest(cmd=[argument]))
        assert len(answer.stdout) == len(argument)
        assert len(answer.stderr) == 16 << 20


async def test_a_house_may_answer_with_a_response_serialised_before(tmp_path: Path) -> None:
    async with served(tmp_path / "s", House()) as client:
        assert (await client.status(cri.StatusRequest())).info["kept"] == "as bytes"


async def test_a_client_that_gives_up_cancels_its_call(tmp_path: Path) -> None:
    house = House()
    async with served(tmp_path / "s", house) as client:
        call = asyncio.ensure_future(client.stop_container(cri.StopContainerRequest(container_id="abc")))
        await house.entered.wait()
        call.cancel()
        async with asyncio.timeout(10):
            await house.cancelled.wait()
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"


async def test_credentials_are_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with served(tmp_path / "s", House()) as client:
        with pytest.raises(errors.FailedPrecondition):
            await client.pull_image(
                cri.PullImageRequest(
                    image=cri.ImageSpec(image="example.test/x:1"),
                    auth=cri.AuthConfig(username="user", password="hunter2", auth="c2VjcmV0"),
                )
            )
    assert "PullImage example.test/x:1" in caplog.text
    assert "hunter2" not in caplog.text and "c2VjcmV0" not in caplog.text


async def test_each_call_has_a_debug_line_with_its_object_and_duration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="podwright.server")
    house = House()
    house.failure = errors.NotFound("no such container")
    async with served(tmp_path / "s", house) as client:
        await client.version(cri.VersionRequest())
        with pytest.raises(errors.NotFound):
            await client.container_status(cri.ContainerStatusRequest(container_id="abc"))
    lines = [record for record in caplog.records if record.name == "podwright.server"]
    assert re.fullmatch(r"Version -: \d+\.\d ms", lines[0].getMessage())
    assert lines[1].levelname == "DEBUG"  # a poll that lost a race is no error of this node
    assert lines[1].getMessage().startswith("ContainerStatus abc: NOT_FOUND after ")


async def test_a_list_that_comes_as_a_stream_has_a_debug_line_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="podwright.server")
    async with served(tmp_path / "s", House()) as client:
        [part] = [each async for each in client.stream_containers(cri.StreamContainersRequest())]
    assert part.containers[0].id == "abc"
    lines = [record.getMessage() for record in caplog.records if record.name == "podwright.server"]
    assert re.fullmatch(r"StreamContainers -: \d+\.\d ms", lines[0])


async def test_connecting_where_nobody_listens_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="there is no such socket; `podwright serve` starts one"):
        async with connect(f"{tmp_path}/none"):
            pass


async def test_a_deadline_of_the_client_is_kept(tmp_path: Path) -> None:
    gate = Gate()
    gate.open(cast(Cri, House()))
    path = tmp_path / "s"
    async with listening(str(path), gate), connect(str(path), timeout=0.2) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.stop_container(cri.StopContainerRequest(container_id="abc"))


def test_settings_for_grpc_do_not_reach_children_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tuning.EXPERIMENTS, raising=False)
    tuning.before_grpc()
    assert os.environ[tuning.EXPERIMENTS]
    tuning.after_listening()
    assert tuning.EXPERIMENTS not in os.environ
    monkeypatch.setenv(tuning.EXPERIMENTS, "chosen_by_the_user")
    tuning.before_grpc()
    tuning.after_listening()
    assert os.environ[tuning.EXPERIMENTS] == "chosen_by_the_user"


def test_an_unknown_status_of_another_server_keeps_its_code_in_the_text() -> None:
    assert str(error_of(grpc.StatusCode.DATA_LOSS, "torn")) == "DATA_LOSS: torn"


# The life of the process

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from podwright.server import tuning
tuning.before_grpc()
from podwright.server.serve import serve
from podwright.wire import cri_pb2 as cri
class Engine:
    async def status(self):
        print("looking", flush=True)
        if sys.argv[2] == "broken":
            raise RuntimeError("nothing to see")
        try:
            await asyncio.Event().wait()
        finally:
            print("looked", flush=True)
class House:
    def __init__(self):
        if sys.argv[2] in ("looking", "broken"):
            self.engine = Engine()
    async def version(self, request): return cri.VersionResponse(version="0.1.0")
    async def stop_container(self, request):
        print("stopping", flush=True)
        await asyncio.sleep(1)
        return cri.StopContainerResponse()
@asynccontextmanager
async def house():
    if sys.argv[2] == "recovering":
        print("recovering", flush=True)
        await asyncio.Event().wait()
    yield House()
    print("closed", flush=True)
asyncio.run(serve(sys.argv[1], house(), ready=lambda: print("ready", flush=True)))
"""

Start = Callable[[str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    children: list[asyncio.subprocess.Process] = []

    async def start(mode: str) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(tmp_path / "s"), mode),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(20):
        return (await child.stdout.readline()).decode().strip()


async def test_sigterm_lets_calls_in_flight_end_and_then_closes_the_house(
    tmp_path: Path, start: Start
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        child = await start("served")
        assert await line(child) == "ready"
        assert await asyncio.to_thread(notify.recv, 100) == b"READY=1"
        async with connect(str(tmp_path / "s"), timeout=20) as client:
            call = asyncio.ensure_future(client.stop_container(cri.StopContainerRequest()))
            assert await line(child) == "stopping"
            child.send_signal(signal.SIGTERM)
            assert isinstance(await call, cri.StopContainerResponse)
        assert await line(child) == "closed"
        assert await child.wait() == 0
        assert await asyncio.to_thread(notify.recv, 100) == b"STOPPING=1"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("mode", ["looking", "broken"])
async def test_the_engine_looks_at_its_host_while_calls_are_served(
    tmp_path: Path, start: Start, mode: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        child = await start(mode)
        # Nobody waits for it.
        assert [await line(child), await line(child)] == ["ready", "looking"]
        async with connect(str(tmp_path / "s"), timeout=20) as client:
            assert (await client.version(cri.VersionRequest())).version == "0.1.0"
        child.send_signal(signal.SIGTERM)
        if mode == "looking":
            assert await line(child) == "looked"
        assert await line(child) == "closed"
    assert await child.wait() == 0


async def test_sigterm_during_recovery_ends_the_server(tmp_path: Path, start: Start) -> None:
    child = await start("recovering")
    assert await line(child) == "recovering"
    async with connect(str(tmp_path / "s"), timeout=20) as client:
        with pytest.raises(errors.Unavailable, match="recovery"):
            await client.version(cri.VersionRequest())
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await child.wait() == 0
    assert not (tmp_path / "s").exists()


async def test_sighup_does_not_end_the_server(tmp_path: Path, start: Start) -> None:
    child = await start("served")
    assert await line(child) == "ready"
    child.send_signal(signal.SIGHUP)
    async with connect(str(tmp_path / "s"), timeout=20) as client:
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"
    child.send_signal(signal.SIGINT)
    assert await child.wait() == 0


async def test_after_kill_9_the_next_server_takes_the_socket(tmp_path: Path, start: Start) -> None:
    first = await start("served")
    assert await line(first) == "ready"
    first.kill()
    await first.wait()
    assert (tmp_path / "s").exists()
    second = await start("served")
    assert await line(second) == "ready"
    async with connect(str(tmp_path / "s"), timeout=20) as client:
        assert (await client.version(cri.VersionRequest())).version == "0.1.0"


async def test_calls_that_wait_when_the_server_stops_are_told_so(tmp_path: Path) -> None:
    """gRPC itself would cancel what is in its queue: a client cannot tell that from its own cancelling."""
    gate = Gate()
    gate.open(cast(Cri, House()))
    ends: list[errors.PodwrightError] = []
    all_answered = asyncio.Barrier(51)

    async def ask_on() -> None:
        async with connect(str(tmp_path / "s")) as client:
            await client.version(cri.VersionRequest())
            await all_answered.wait()
            try:
                while True:
                    await client.version(cri.VersionRequest())
            except errors.PodwrightError as error:
                ends.append(error)

    async with listening(str(tmp_path / "s"), gate) as server:
        clients = [asyncio.create_task(ask_on()) for _ in range(50)]
        await asyncio.wait_for(all_answered.wait(), 30)
        await drain(server, gate)
        await asyncio.wait_for(asyncio.gather(*clients), 30)
    assert {(type(error), str(error)) for error in ends} == {(errors.Unavailable, "stopping")}
    assert len(ends) == 50
