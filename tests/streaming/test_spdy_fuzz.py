"""A hostile SPDY peer: recorded input, mutated. Nothing may be raised, nothing may grow without bound.

The corpus is `corpus/*.hex`: bytes in hexadecimal, lines with # are notes. What has once broken something
belongs there. `PODWRIGHT_FUZZ_ROUNDS=100000 pytest tests/streaming/test_spdy_fuzz.py` looks longer, with new
mutations.
"""

from __future__ import annotations

import asyncio
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from podwright.streaming.spdy import Limits, Session, events, frames
from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.frames import (
    Data,
    HeadersFrame,
    Ping,
    RstStream,
    Setting,
    Settings,
    SynStream,
    WindowUpdate,
)
from podwright.streaming.spdy.headers import Compressor
from tests.streaming.spdy_ends import HeldPipe, echo_all

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.hex"))
ROUNDS = int(os.environ.get("PODWRIGHT_FUZZ_ROUNDS", "2000"))
SEED = random.SystemRandom().randrange(1 << 32) if "PODWRIGHT_FUZZ_ROUNDS" in os.environ else 1
LIMITS = Limits(streams=5, control_frame=9000, header_block=20_000)


def octets(file: Path) -> bytes:
    return bytes.fromhex("".join(line for line in file.read_text().splitlines() if not line.startswith("#")))


def split(data: bytes) -> list[bytes]:
    """The frames of well-formed input."""
    found = []
    while data:
        length = 8 + int.from_bytes(data[5:8], "big")
        found.append(data[:length])
        data = data[length:]
    return found


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Whole frames moved about, then bytes within them."""
    found = split(data)
    for _ in range(chance.randrange(4)):
        at, to = chance.randrange(len(found)), chance.randrange(len(found))
        chance.choice(
            (
                lambda at=at, to=to: found.insert(to, found[at]),
                lambda at=at, to=to: found.insert(to, found.pop(at)),
                lambda at=at: len(found) > 1 and found.pop(at),
                lambda at=at: found.insert(at, found[at][:4] + chance.randbytes(4) + found[at][8:]),
            )
        )()
    mutated = bytearray(b"".join(found))
    for _ in range(chance.choice([0, 0, 1, 1, 2, 8])):
        at = chance.randrange(len(mutated))
        match chance.randrange(5):
            case 0:
                mutated[at] ^= 1 << chance.randrange(8)
            case 1:
                mutated[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del mutated[at : at + chance.randrange(1, 9)]
            case 3:
                mutated[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 4:
                mutated[at : at + 4] = chance.choice([b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"])
        if not mutated:
            break
    return bytes(mutated)


def chunks(chance: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 1, 5, 50])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def check(chance: random.Random, client: bool, data: bytes) -> None:
    connection = Connection(client, LIMITS)
    if client:
        for name in ("stdin", "stdout"):
            connection.open_stream({"streamtype": name})
    ours = len(b"".join(connection.output()))
    written, failed = 0, False
    for chunk in chunks(chance, data):
        told = connection.receive(chunk)
        assert not (failed and told)
        failed = failed or any(isinstance(event, events.Failed) for event in told)
        assert not failed or not told or isinstance(told[-1], events.Failed)
        for event in told:
            if isinstance(event, events.DataReceived):
                connection.consumed(event.stream_id, len(event.data))
        written += sum(map(len, connection.output()))
        assert connection.open_streams <= LIMITS.streams + 2
    assert written <= 2 * len(data) + ours + 100


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_mutated_input_is_an_event_or_an_error_of_the_session(file: Path) -> None:
    original = octets(file)
    for client in (True, False):
        for number in range(ROUNDS):
            chance = random.Random(f"{SEED}-{file.stem}-{number}")
            data = mutate(chance, original) if number else original
            try:
                check(chance, client, data)
            except BaseException:
                print(f"client={client}, the input in hexadecimal: {data.hex()}")
                raise


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
async def test_sessions_survive_mutated_input(file: Path) -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    original = octets(file)
    for number in range(ROUNDS // 2):
        chance = random.Random(f"{SEED}-session-{file.stem}-{number}")
        data = mutate(chance, original)
        session = Session(client=False, limits=LIMITS)
        pipe = HeldPipe(session)
        session.connection_made(pipe)
        acting = asyncio.create_task(echo_all(session))
        for chunk in chunks(chance, data):
            if chance.random() < 0.2:
                chance.choice((session.pause_writing, session.resume_writing))()
            session.data_received(chunk)
            await asyncio.sleep(0)
        session.abort()
        await asyncio.wait_for(acting, 10)
        await session.closed
        assert not session._streams
    assert not unhandled, unhandled[0]


def test_the_corpus_reaches_every_part() -> None:
    """Unchanged, the seeds mean what their notes say: else the mutations would start from noise."""
    told = {}
    for file in CORPUS:
        connection = Connection(file.stem == "answers")
        if file.stem == "answers":
            for name in ("stdin", "stdout"):
                connection.open_stream({"streamtype": name})
        told[file.stem] = [type(event).__name__ for event in connection.receive(octets(file))]
    assert told["exec"].count("StreamOpened") == 4
    assert told["exec"][-1] == "GoneAway"
    assert told["portforward"].count("StreamOpened") == 4
    assert told["portforward"].count("DataReceived") == 4
    assert told["answers"].count("StreamReplied") == 2
    assert {"WindowOpened", "StreamOpened", "StreamReset", "GoneAway"} <= set(told["answers"])
    assert told["malformed"] == ["StreamOpened"]
    assert told["bomb"] == ["Failed"]


def test_a_long_hostile_session_keeps_little() -> None:
    chance = random.Random(7)
    connection = Connection(False, Limits(streams=50))
    compressor = Compressor()
    number = 1
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            some = chance.randrange(1, number + 40)
            frame: frames.Frame
            match chance.randrange(8):
                case 0 | 1:
                    number += 2
                    frame = SynStream(number, compressor.block({"n": str(number)}), chance.random() < 0.3)
                case 2:
                    frame = RstStream(some, 5)
                case 3:
                    frame = Data(some, b"x" * 10, chance.random() < 0.3)
                case 4:
                    frame = HeadersFrame(some, compressor.block({}))
                case 5:
                    frame = Ping(some)
                case 6:
                    frame = Settings(((Setting.INITIAL_WINDOW_SIZE, some),))
                case _:
                    frame = WindowUpdate(some, 1)
            told = connection.receive(frames.encode(frame))
            assert not any(isinstance(event, events.Failed) for event in told), told
            connection.output()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert connection.open_streams <= 50
    assert kept < 1 << 20
