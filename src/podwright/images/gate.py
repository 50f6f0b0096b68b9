"""Between skopeo and one registry: a server on loopback that adds a bearer token to what skopeo asks.

skopeo takes a bearer token in its arguments only, which every process of the host may read. So it is led
here, by a private registries.conf, to a path that cannot be guessed, and here the token is added for the
registry, and for no other host: where the registry sends on to (its blobs' storage), the token does not go.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import h11

from podwright.images import outbound
from podwright.images.loopback import Request, Response, listening

PASSED = ("accept", "range", "user-agent")
"""Headers of a request that are passed on."""
RETURNED = ("content-type", "content-length", "content-range", "docker-content-digest", "retry-after")
REDIRECTS = 5


class Gate:
    """See `standing`."""

    def __init__(self, location: str, token: str, trust: outbound.Trust) -> None:
        self.real = location
        """Where it leads."""
        self.location = ""
        """Where it is itself, likewise; plain HTTP."""
        self.scheme = "https"
        """By which the registry was asked last."""
        self.failed = ""
        """Why it gave no answer then; "" when it did."""
        self._token = token
        self._trust = trust
        host, _, path = location.partition("/")
        self._host = outbound.registry_host(host)
        self._path = f"/{path}" if path else ""

    @property
    def host(self) -> str:
        return self.location.partition("/")[0]

    async def ask(self, request: Request, inside: str) -> Response:
        """What the registry, or whom it sends on to, answers."""
        place = f"/v2{self._path}/{inside}"
        failures: list[str] = []
        for scheme in ("https", "http") if self._trust.insecure else ("https",):
            self.scheme, self.failed = scheme, ""
            try:
                return await self._follow(request, f"{scheme}://{self._host}{place}")
            except (OSError, h11.ProtocolError) as error:
                failures.append(f"{scheme}://{self._host}: {outbound.words(error)}")
        self.failed = "; ".join(failures)
        return Response(502)

    async def _follow(self, request: Request, url: str) -> Response:
        first = urlsplit(url)
        for _ in range(REDIRECTS):
            parts = urlsplit(url)
            headers = [(name, request.headers[name]) for name in PASSED if name in request.headers]
            if (parts.scheme, parts.netloc) == (first.scheme, first.netloc):
                headers.append(("Authorization", f"Bearer {self._token}"))
            elif parts.scheme != "https" and not self._trust.insecure:
                raise ConnectionError(
                    f"the registry sends on to {parts.scheme}://{parts.netloc}, without TLS"
                )
            stack = AsyncExitStack()
            try:
                answer = await stack.enter_async_context(
                    outbound.asked(request.method, url, headers, self._trust)
                )
                if answer.status not in (301, 302, 303, 307, 308) or not answer.headers.get("location"):
                    kept = [(name, answer.headers[name]) for name in RETURNED if name in answer.headers]
                    return Response(answer.status, kept, answer.body(), stack.pop_all())
                url = urljoin(url, answer.headers["location"])
            finally:
                await stack.aclose()
        raise ConnectionError(f"the registry sends on more than {REDIRECTS} times")


@asynccontextmanager
async def standing(location: str, token: str, trust: outbound.Trust) -> AsyncIterator[Gate]:
    """A gate to the registry (or part of one) at `location`, as registries.conf writes it."""
    secret = secrets.token_hex(16)
    gate = Gate(location, token, trust)

    async def answer(request: Request) -> Response:
        if request.target == "/v2/":
            return Response(200)
        inside = request.target.removeprefix(f"/v2/{secret}/")
        if inside == request.target or request.method not in ("GET", "HEAD"):
            return Response(404)
        return await gate.ask(request, inside)

    async with listening(answer) as port:
        gate.location = f"127.0.0.1:{port}/{secret}"
        yield gate


def certificates(configured: str, host: str) -> Path | None:
    """The directory with the certificates for `host` (containers-certs.d(5)); None when there is none."""
    for top in (configured, "/etc/containers/certs.d", "/etc/docker/certs.d"):
        if top and (directory := Path(top) / host).is_dir():
            return directory
    return None
