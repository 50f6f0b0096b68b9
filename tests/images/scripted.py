"""A registry that answers as a test wants, broken answers too: HTTP by hand on a port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.images.layouts import digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """What Content-Length says; None: the truth."""
    held: asyncio.Event | None = None
    """Until when the connection stands still after the body."""


Rule = Callable[[Asked], Reply | Awaitable[Reply] | None]


@dataclass
class Scripted:
    """Serves `manifests` and `blobs`, unless a rule (the last one first) has another answer."""

    port: int = 0
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """"repository:tag" or "repository@digest" to media type and content."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, layout: Path, repository: str) -> bytes:
        """Serve the OCI layout's image as `repository`:v1; its manifest."""
        for file in (layout / "blobs/sha256").iterdir():
            self.blobs[f"sha256:{file.name}"] = file.read_bytes()
        top = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        content = self.blobs[top["digest"]]
        self.serve(repository, "v1", content)
        return content

    def serve(self, repository: str, tag: str, content: bytes, media: str = MANIFEST) -> str:
        self.manifests[f"{repository}:{tag}"] = media, content
        self.manifests[f"{repository}@{digest(content)}"] = media, content
        return digest(content)

    def on(self, pattern: str, rule: Rule | Reply) -> None:
        """Answer requests whose method and target match `pattern` by `rule`."""

        def matched(asked: Asked) -> Reply | Awaitable[Reply] | None:
            if not re.search(pattern, f"{asked.method} {asked.target}"):
                return None
            return rule if isinstance(rule, Reply) else rule(asked)

        self.rules.append(matched)

    def targets(self, pattern: str) -> list[Asked]:
        return [each for each in self.asked if re.search(pattern, f"{each.method} {each.target}")]

    async def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        for rule in reversed(self.rules):
            if (reply := rule(asked)) is not None:
                return reply if isinstance(reply, Reply) else await reply
        if asked.target == "/v2/":
            return Reply()
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", asked.target):
            name = f"{found[1]}{'@' if ':' in found[2] else ':'}{found[2]}"
            if name in self.manifests:
                media, content = self.manifests[name]
                return Reply(200, content, {"Content-Type": media})
            return error_reply(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if found := re.fullmatch(r"/v2/.+/blobs/(.+)", asked.target):
            if found[1] in self.blobs:
                return Reply(200, self.blobs[found[1]])
            return error_reply(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return Reply(404)


def error_reply(status: int, code: str, message: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, body, {"Content-Type": "application/json"})


@asynccontextmanager
async def scripted(tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    registry = Scripted()
    talking: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            while asked := await _asked(reader):
                reply = await registry.answer(asked)
                length = len(reply.body) if reply.length is None else reply.length
                head = f"HTTP/1.1 {reply.status} Said\r\nContent-Length: {length}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
                writer.write(f"{head}\r\n".encode() + (b"" if asked.method == "HEAD" else reply.body))
                await writer.drain()
                if reply.held is not None:
                    await reply.held.wait()
                if length != len(reply.body):
                    return
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            talking.discard(task)
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    registry.port = server.sockets[0].getsockname()[1]
    try:
        yield registry
    finally:
        server.close()
        while talking:
            for task in talking:
                task.cancel()
            await asyncio.wait(talking)


async def _asked(reader: asyncio.StreamReader) -> Asked | None:
    """The next request; None at the end, and for a TLS client, which is to fall back to HTTP."""
    first = await reader.read(1)
    if first in (b"", b"\x16"):
        return None
    lines = (first + await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    method, target, _ = lines[0].split()
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:] if x)}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Asked(method, target, headers, body)


@dataclass(frozen=True)
class Authority:
    """A self-made certificate authority with one certificate, for 127.0.0.1 and localhost."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def certs_dir(self, top: Path, host: str) -> Path:
        """A certs.d in which `host` is trusted by this authority."""
        (top / host).mkdir(parents=True)
        (top / host / "ca.crt").write_bytes(self.ca.read_bytes())
        return top


def make_authority(directory: Path) -> Authority:
    directory.mkdir()
    ca, certificate, key = (directory / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    script = f"""
        openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=authority -keyout ca.key -out {ca} &&
        openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout {key} -out request &&
        openssl x509 -req -in request -CA {ca} -CAkey ca.key -CAcreateserial -days 1 -extfile names \
            -out {certificate}
    """
    subprocess.run(["sh", "-c", script], cwd=directory, check=True, capture_output=True)
    return Authority(ca, certificate, key)
