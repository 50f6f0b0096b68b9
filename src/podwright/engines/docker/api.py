"""The Docker Engine API as this engine speaks it: one connection pool, the version agreed on, errors in the
house's words, JSON streams, and connections that are taken over (exec, attach).

What is asked for, and what the answers mean, the other modules know. Only this one knows aiodocker.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiodocker
import aiohttp
import msgspec

from podwright.config import DockerConfig
from podwright.engines.base import Json
from podwright.engines.docker.endpoint import Endpoint
from podwright.engines.docker.hijack import Hijacked, take_over
from podwright.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    Unavailable,
    Unimplemented,
)

NEWEST = (1, 44)
"""The newest API that the requests here were written for; Docker Engine 29 takes none older."""
OLDEST = (1, 41)
"""Docker Engine 20.10's."""

Params = Mapping[str, str | int | bool]


def filters(**wanted: list[str]) -> str:
    """The value of a `filters` parameter."""
    return msgspec.json.encode(wanted).decode()


def part(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def refusal(status: int, body: Json, tried: str) -> PodwrightError:
    """What an answer from 400 on means, in Docker's own words. `tried` is what was asked, for people."""
    words = body.get("message") if isinstance(body, dict) else body
    text = f"Docker: {tried}: {str(words or '').strip() or f'status {status}'}"
    match status:
        case 400 if "client version" in text:
            spoken = " to ".join("{}.{}".format(*each) for each in (OLDEST, NEWEST))
            return FailedPrecondition(f"{text}; podwright speaks Docker's API {spoken}")
        case 400:
            return InvalidArgument("", text)
        case 404:
            return NotFound(text)
        case 409:
            return FailedPrecondition(text)
        case 501:
            return Unimplemented(text)
        case 503:
            return Unavailable(text)
    return PodwrightError(text)


class Docker:
    """A Docker Engine. Every method raises Unavailable when it does not answer at all, DeadlineExceeded when
    it answers too late, and FailedPrecondition when it is too old or both do not trust each other."""

    def __init__(self, config: DockerConfig) -> None:
        self._where = Endpoint.of(config)
        self.endpoint = self._where.address
        self._config = config
        self._client: aiodocker.Docker | None = None
        self._tls: ssl.SSLContext | None = None
        self._version: tuple[int, int] | None = None

    def open(self) -> None:
        """Prepare to connect. InvalidArgument for an endpoint or certificates that cannot be."""
        url, self._tls = self._where.target()
        self._client = aiodocker.Docker(
            url=url,
            ssl_context=self._tls,
            timeout=aiohttp.ClientTimeout(total=self._config.request_timeout, sock_connect=10),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def version(self) -> tuple[int, int]:
        """The API version spoken: the newest that both sides know."""
        if self._version is None:
            self._version = await self._negotiate()
        return self._version

    async def request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        json: Json = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, Json]:
        """The answer's status and its body: JSON decoded, other text as str, None when it is empty.

        `path` begins with "/" and has no version. `timeout`: seconds, instead of `request_timeout`.
        """
        async with self._exchange(method, path, params, json, None, headers, timeout) as answer:
            return answer.status, _decoded(answer, await answer.read())

    async def call(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        json: Json = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Json:
        """`request`'s body; raises `refusal` for a status from 400 on."""
        status, body = await self.request(method, path, params, json, headers=headers, timeout=timeout)
        if status >= 400:
            raise refusal(status, body, f"{method} {path}")
        return body

    @asynccontextmanager
    async def response(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        json: Json = None,
        *,
        data: AsyncIterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is read, and may arrive, as long as one likes; `data` is the request's body
        when that is no JSON. Raises `refusal`."""
        async with self._exchange(method, path, params, json, data, headers, 0) as answer:
            if answer.status >= 400:
                body = _decoded(answer, await answer.read())
                raise refusal(answer.status, body, f"{method} {path}")
            yield answer

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        json: Json = None,
        *,
        data: AsyncIterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """The JSON values of an answer that goes on and on: events, pulls, stats. Raises `refusal`."""
        async with self.response(method, path, params, json, data=data, headers=headers) as answer:
            yield _values(answer)

    async def hijack(
        self, method: str, path: str, params: Params | None = None, json: Json = None
    ) -> Hijacked:
        """The connection itself, once Docker has given it over: exec/ID/start, containers/ID/attach.

        Raises `refusal` when it says no.
        """
        major, minor = await self.version()
        target = f"/v{major}.{minor}{path}"
        if params:
            target += "?" + "&".join(f"{key}={quote(_text(value))}" for key, value in params.items())
        body = msgspec.json.encode(json) if json is not None else b""
        try:
            taken, status, answer = await take_over(self.endpoint, self._tls, method, target, body)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise self._away(error) from error
        if taken is None:
            raise refusal(status, _json_or_text(answer), f"{method} {path}")
        return taken

    # One exchange

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        params: Params | None,
        json: Json,
        data: AsyncIterable[bytes] | bytes | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        *,
        versioned: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        client = self._client
        if client is None:
            raise Unavailable("the connection with Docker is not open")
        prefix = ""
        if versioned:
            major, minor = await self.version()
            prefix = f"/v{major}.{minor}"
        asked = dict(headers or {})
        if json is not None:
            data = msgspec.json.encode(json)
        if data is not None:
            asked.setdefault("Content-Type", "application/json" if json is not None else "application/x-tar")
        total = self._config.request_timeout if timeout is None else timeout
        try:
            async with client.session.request(
                method,
                f"{client.docker_host}{prefix}{path}",
                params={key: _text(value) for key, value in (params or {}).items()},
                data=data,
                headers=asked,
                timeout=aiohttp.ClientTimeout(total=total or None, sock_connect=10),
            ) as answer:
                yield answer
        except TimeoutError as error:
            if not total:
                raise  # the caller's own
            raise DeadlineExceeded(
                f"Docker at {self.endpoint} did not answer {method} {path} within {total:g} s"
            ) from error
        except aiohttp.ClientError as error:
            raise self._away(error) from error

    async def _negotiate(self) -> tuple[int, int]:
        try:
            async with self._exchange(
                "HEAD", "/_ping", None, None, None, None, None, versioned=False
            ) as answer:
                text, status = answer.headers.get("Api-Version", ""), answer.status
        except Unavailable as error:
            if self._tls is not None and (distrust := await self._where.distrust(self._tls)) is not None:
                raise distrust from error
            raise
        try:
            major, minor = text.split(".")
            theirs = int(major), int(minor)
        except ValueError:
            raise self._where.no_docker(status) from None
        if theirs < OLDEST:
            raise FailedPrecondition(
                f"Docker at {self.endpoint} speaks API {text}; podwright needs at least"
                f" {OLDEST[0]}.{OLDEST[1]} (Docker Engine 20.10)"
            )
        return min(theirs, NEWEST)

    def _away(self, error: BaseException) -> PodwrightError:
        # What comes back may be another version.
        self._version = None
        return self._where.why(error)


async def _values(answer: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    rest = b""
    async for chunk, _ in answer.content.iter_chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield msgspec.json.decode(line)
    if rest.strip():
        yield msgspec.json.decode(rest)


def _decoded(answer: aiohttp.ClientResponse, raw: bytes) -> Json:
    if answer.content_type == "application/json":
        return _json_or_text(raw)
    return raw.decode(errors="replace") if raw else None


def _json_or_text(raw: bytes) -> Any:
    if not raw.strip():
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace")


def _text(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
