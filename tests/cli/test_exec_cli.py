"""exec and attach as a user meets them: on a terminal, with pipes, and when something goes wrong."""

from __future__ import annotations

import asyncio
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.host_node import LIMIT, HostNode, Terminal, command, host_node

ON_BOTH = pytest.mark.parametrize("transport", ["auto", "spdy"])


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[HostNode]:
    async with host_node(tmp_path) as made:
        yield made


@pytest.fixture
async def terminal(node: HostNode) -> AsyncIterator[Terminal]:
    made = Terminal(100, 30)
    try:
        yield made
    finally:
        await made.close()


@dataclass
class Done:
    status: int
    stdout: bytes
    stderr: bytes


async def podwright(root: Path, *arguments: str, input: bytes = b"") -> Done:
    async with started(root, *arguments) as child:
        out, err = await asyncio.wait_for(child.communicate(input), LIMIT)
    assert child.returncode is not None
    return Done(child.returncode, out, err)


@asynccontextmanager
async def started(root: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *command(root, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


# With pipes


@ON_BOTH
async def test_streams_stay_apart_and_the_status_is_passed_on(
    node: HostNode, tmp_path: Path, transport: str
) -> None:
    script = "echo out; echo err >&2; exit 7"
    done = await podwright(tmp_path, "exec", "--transport", transport, "main", "sh", "-c", script)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


@ON_BOTH
async def test_input_passes_with_all_its_bytes_and_its_end(
    node: HostNode, tmp_path: Path, transport: str
) -> None:
    data = bytes(range(256)) * 20_000
    done = await podwright(tmp_path, "exec", "-i", "--transport", transport, "pod", "cat", input=data)
    assert (done.status, done.stderr) == (0, b"")
    assert done.stdout == data


async def test_without_i_the_command_gets_no_input(node: HostNode, tmp_path: Path) -> None:
    done = await podwright(tmp_path, "exec", "main", "sh", "-c", "wc -c", input=b"not for it")
    assert done.stdout.split() == [b"0"]


@pytest.mark.parametrize("name", ["/dev/null", "file"])
async def test_input_may_be_a_file(node: HostNode, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "file":
        path.write_bytes(b"x" * 300_000)
    shell = f"exec {shlex.join(command(tmp_path, 'exec', '-i', 'main', 'count'))} < {path}"
    child = await asyncio.create_subprocess_shell(shell, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(child.communicate(), LIMIT)
    assert out == (b"300000" if name == "file" else b"0")


async def test_output_comes_as_it_is_written(node: HostNode, tmp_path: Path) -> None:
    async with started(tmp_path, "exec", "-i", "main", "cat") as child:
        assert child.stdin is not None and child.stdout is not None
        for word in (b"one\n", b"two\n"):
            child.stdin.write(word)
            assert await asyncio.wait_for(child.stdout.readline(), LIMIT) == word
        child.stdin.close()
        assert await asyncio.wait_for(child.wait(), LIMIT) == 0


async def test_a_reader_of_the_output_that_leaves_ends_the_command(node: HostNode, tmp_path: Path) -> None:
    pump = shlex.join(command(tmp_path, "exec", "main", "pump", str(1 << 40)))
    shell = f"{pump} | head -c 1000 | wc -c"
    child = await asyncio.create_subprocess_shell(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await asyncio.wait_for(child.communicate(), LIMIT)
    assert (out.split(), err) == ([b"1000"], b"")
    while node.engine.running:  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_a_signal_hangs_up_and_is_the_status(
    node: HostNode, tmp_path: Path, number: int, status: int
) -> None:
    async with started(tmp_path, "exec", "-i", "main", "hang") as child:
        await asyncio.wait_for(node.engine.started.wait(), LIMIT)
        child.send_signal(number)
        _, err = await asyncio.wait_for(child.communicate(), LIMIT)
    assert (child.returncode, err) == (status, b"")
    await asyncio.wait_for(node.engine.hung_up.wait(), LIMIT)


async def test_a_program_that_is_not_there_is_127(node: HostNode, tmp_path: Path) -> None:
    node.host.missing = ("bash",)
    done = await podwright(tmp_path, "exec", "main", "bash")
    assert done.status == 127
    assert done.stderr.startswith(b"podwright: ") and b"executable file not found" in done.stderr


async def test_an_error_is_one_line(node: HostNode, tmp_path: Path) -> None:
    done = await podwright(tmp_path, "exec", "main", "refuse")
    assert (done.status, done.stderr) == (1, b"podwright: the runtime says no\n")


async def test_a_server_that_vanishes_is_an_error(node: HostNode, tmp_path: Path) -> None:
    async with started(tmp_path, "exec", "main", "hang") as child:
        await asyncio.wait_for(node.engine.started.wait(), LIMIT)
        node.server.abort()
        _, err = await asyncio.wait_for(child.communicate(), LIMIT)
    assert child.returncode == 1
    assert err.startswith(b"podwright: the connection to the streaming server is lost")


async def test_a_terminal_that_is_none_is_told_and_not_given(node: HostNode, tmp_path: Path) -> None:
    done = await podwright(tmp_path, "exec", "-it", "main", "cat", input=b"hello")
    assert (done.status, done.stdout) == (0, b"hello")
    assert done.stderr == b"podwright: -t: there is no terminal here, so the command gets none\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--timeout", "3", "-i", "main", "cat"), b"--timeout: does not go together"),
        (("--detach-keys", "ctrl-1", "main", "cat"), b"--detach-keys: 'ctrl-1'"),
        (("--detach-keys", "ab", "main", "cat"), b"--detach-keys: 'ab'"),
        (("nobody", "cat"), b"no container has the id or name 'nobody'"),
    ],
)
async def test_options_that_cannot_be_are_refused(
    node: HostNode, tmp_path: Path, arguments: tuple[str, ...], words: bytes
) -> None:
    done = await podwright(tmp_path, "exec", *arguments)
    assert done.status == 1 and words in done.stderr


# On a terminal


@ON_BOTH
async def test_a_terminal_is_raw_meanwhile_and_every_key_is_the_commands(
    tmp_path: Path, terminal: Terminal, transport: str
) -> None:
    await terminal.run(command(tmp_path, "exec", "-it", "--transport", transport, "main", "cat"))
    await terminal.until_raw()
    terminal.type(b"\x03\x04\x1a\r")
    await terminal.until(b"\x03\x04\x1a\r")
    terminal.type(b"a\x10b")  # ctrl-p alone is a key like others
    await terminal.until(b"a\x10b")
    terminal.type(b"\x10\x11")
    assert await terminal.ended() == 0
    assert terminal.is_as_before()


async def test_detach_keys_can_be_others_or_none(tmp_path: Path, terminal: Terminal) -> None:
    await terminal.run(command(tmp_path, "exec", "-it", "--detach-keys", "", "main", "cat"))
    await terminal.until_raw()
    terminal.type(b"\x10\x11.")
    await terminal.until(b"\x10\x11.")
    terminal.child.terminate()
    assert await terminal.ended() == 143
    await terminal.run(command(tmp_path, "exec", "-it", "--detach-keys", "q,ctrl-x", "main", "cat"))
    await terminal.until_raw()
    terminal.type(b"q.")
    await terminal.until(b"q.")
    terminal.type(b"q\x18")
    assert await terminal.ended() == 0


async def test_the_size_is_told_at_the_start_and_when_it_changes(tmp_path: Path, terminal: Terminal) -> None:
    await terminal.run(command(tmp_path, "exec", "-it", "main", "sizes", "2"))
    await terminal.until(b"100x30 ")
    terminal.resize(80, 24)
    await terminal.until(b"80x24 ")
    assert await terminal.ended() == 0
    assert terminal.is_as_before()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_gives_the_terminal_back(
    node: HostNode, tmp_path: Path, terminal: Terminal, number: int, status: int
) -> None:
    await terminal.run(command(tmp_path, "exec", "-it", "main", "hang"))
    await terminal.until_raw()
    await asyncio.wait_for(node.engine.started.wait(), LIMIT)
    terminal.child.send_signal(number)
    assert await terminal.ended() == status
    assert terminal.is_as_before()
    await asyncio.wait_for(node.engine.hung_up.wait(), LIMIT)


async def test_after_a_stop_the_terminal_is_raw_again(
    node: HostNode, tmp_path: Path, terminal: Terminal
) -> None:
    import termios

    await terminal.run(command(tmp_path, "exec", "-it", "main", "cat"))
    await terminal.until_raw()
    terminal.child.send_signal(signal.SIGSTOP)
    termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)  # as a shell would
    terminal.child.send_signal(signal.SIGCONT)
    await terminal.until_raw()
    terminal.type(b"\x03!")
    await terminal.until(b"\x03!")
    terminal.type(b"\x10\x11")
    assert await terminal.ended() == 0
    assert terminal.is_as_before()


@pytest.mark.parametrize("how", ["refused", "lost"])
async def test_an_error_gives_the_terminal_back(
    node: HostNode, tmp_path: Path, terminal: Terminal, how: str
) -> None:
    program = "refuse" if how == "refused" else "hang"
    await terminal.run(command(tmp_path, "exec", "-it", "main", program))
    if how == "lost":
        await terminal.until_raw()
        await asyncio.wait_for(node.engine.started.wait(), LIMIT)
        node.server.abort()
    words = b"the runtime says no" if how == "refused" else b"is lost"
    await terminal.until(words)
    assert await terminal.ended() == 1
    assert terminal.is_as_before()


async def test_a_terminal_that_hangs_up_ends_the_command(
    node: HostNode, tmp_path: Path, terminal: Terminal
) -> None:
    await terminal.run(command(tmp_path, "exec", "-it", "main", "hang"))
    await asyncio.wait_for(node.engine.started.wait(), LIMIT)
    terminal.child.send_signal(signal.SIGKILL)
    await terminal.ended()
    await asyncio.wait_for(node.engine.hung_up.wait(), LIMIT)


# attach


async def test_attach_passes_input_and_output_and_ends_with_them(node: HostNode, tmp_path: Path) -> None:
    done = await podwright(tmp_path, "attach", "--no-stdin", "main", input=b"not for it")
    assert (done.status, done.stdout, done.stderr) == (0, b"attached\n", b"")
