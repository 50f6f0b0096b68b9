"""A built-in web server for files: GET and HEAD, a connection for each request, as busybox's httpd."""

from __future__ import annotations

import asyncio
import posixpath
from email.utils import formatdate
from urllib.parse import unquote

from podwright.engines.fake.programs.context import CHUNK, Context
from podwright.engines.fake.programs.net import Listening, port_number
from podwright.engines.fake.programs.options import UsageError, parse
from podwright.engines.fake.programs.ports import Socket
from podwright.engines.fake.programs.streams import BrokenPipe

LONGEST_HEAD = 1 << 16
"""Bytes of a request's lines."""
_WORDS = {200: "OK", 400: "Bad Request", 404: "Not Found", 501: "Not Implemented"}
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".txt": "text/plain",
}


async def httpd(context: Context) -> int:
    """`httpd [-f] [-p [IP:]PORT] [-h DIRECTORY]`: without -f in the background."""
    try:
        options, _ = parse(context.argv[1:], "fv", "ph")
        port = port_number(options.get("p", "80").rpartition(":")[2])
    except UsageError as error:
        await context.error(str(error))
        return 1
    home = context.path(options.get("h", "."))
    kind = context.kind(home)
    if kind is None or kind.letter != "d":
        await context.error(f"can't change directory to '{options.get('h', '.')}': No such file or directory")
        return 1
    if "f" not in options:
        # Not before it listens, or fails to: clients come next.
        listening = asyncio.get_running_loop().create_future()

        async def daemon(inner: Context) -> int:
            return await _serve(inner, port, home, listening)

        shared = {number: stream.share() for number, stream in context.fds.items()}
        process = context.inside.spawn(
            daemon, context.argv, shared, env=context.env, cwd=context.cwd, parent=context.process
        )
        await asyncio.wait([listening, process.ending()], return_when=asyncio.FIRST_COMPLETED)
        return process.code or 0
    return await _serve(context, port, home)


async def _serve(
    context: Context, port: int, home: str, listening: asyncio.Future[None] | None = None
) -> int:
    try:
        held = Listening(context, port)
    except OSError as error:
        await context.error(f"bind: {error.strerror}")
        return 1
    if listening is not None and not listening.done():
        listening.set_result(None)
    with held as listener:
        async with asyncio.TaskGroup() as connections:
            while True:
                connections.create_task(_connection(context, home, await listener.accept()))


async def _connection(context: Context, home: str, socket: Socket) -> None:
    try:
        await _answer(context, home, socket)
        socket.end()
        while await socket.read(CHUNK):
            pass  # what it still sends would be answered with a reset
    except (BrokenPipe, OSError):
        pass
    finally:
        socket.close()


async def _answer(context: Context, home: str, socket: Socket) -> None:
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        data = await socket.read(CHUNK)
        head += data
        if not data or len(head) > LONGEST_HEAD:
            if head:
                await _say(context, socket, 400)
            return
    words = bytes(head).split(b"\n")[0].decode(errors="surrogateescape").split()
    if len(words) < 2 or not words[1].startswith("/"):
        await _say(context, socket, 400)
        return
    method, target = words[:2]
    if method not in ("GET", "HEAD"):
        await _say(context, socket, 501)
        return
    # normpath keeps ".." inside "/".
    path = posixpath.normpath(home + "/" + posixpath.normpath("/" + unquote(target.partition("?")[0])))
    kind = context.kind(path)
    if kind is not None and kind.letter == "d":
        path = posixpath.join(path, "index.html")
        kind = context.kind(path)
    if kind is None or kind.letter != "f":
        await _say(context, socket, 404, body=method == "GET")
        return
    stream = context.open(path)
    try:
        await _head(
            context,
            socket,
            200,
            kind.size,
            _TYPES.get(posixpath.splitext(path)[1], "application/octet-stream"),
        )
        while method == "GET" and (data := await stream.read(CHUNK)):
            await socket.write(data)
    finally:
        stream.close()


async def _say(context: Context, socket: Socket, status: int, *, body: bool = True) -> None:
    text = f"<h1>{status} {_WORDS[status]}</h1>\n".encode()
    await _head(context, socket, status, len(text), "text/html")
    if body:
        await socket.write(text)


async def _head(context: Context, socket: Socket, status: int, length: int, kind: str) -> None:
    date = formatdate(context.clock.now() // 1_000_000_000, usegmt=True)
    await socket.write(
        f"HTTP/1.1 {status} {_WORDS[status]}\r\nDate: {date}\r\nConnection: close\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()
    )
