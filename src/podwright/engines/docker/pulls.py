"""Pulls by a Docker Engine: what is asked for, how far it is by its stream of progress, what went wrong."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import msgspec

from podwright.config import ImageConfig
from podwright.engines.base import Credentials, Image, Json
from podwright.engines.docker.api import Docker
from podwright.engines.docker.keyring import Keyring
from podwright.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PodwrightError,
    RegistryUnavailable,
    Unavailable,
)
from podwright.images.attempts import of_registry
from podwright.images.progress import Progress, Pulls
from podwright.images.references import DEFAULT_DOMAIN, Reference
from podwright.images.signatures import accepts_anything
from podwright.images.transfers import Shared, Work
from podwright.steps import step
from podwright.wire import podwright_pb2 as own

DOCKER_HUB = "https://index.docker.io/v1/"
"""How Docker calls docker.io where credentials are meant."""
UNAVAILABLE = (502, 503, 504)
"""Codes in a stream that tell of a registry that is away."""
_LAYER = re.compile(r"[0-9a-f]{12}")
_STAGES: Mapping[str, own.LayerStage] = {
    "Pulling fs layer": own.LAYER_WAITING,
    "Waiting": own.LAYER_WAITING,
    "Downloading": own.LAYER_DOWNLOADING,
    "Verifying Checksum": own.LAYER_DOWNLOADING,
    "Download complete": own.LAYER_DOWNLOADED,
    "Extracting": own.LAYER_UNPACKING,
    "Pull complete": own.LAYER_DONE,
    "Already exists": own.LAYER_PRESENT,
}


class DockerPulls:
    def __init__(self, docker: Docker, config: ImageConfig) -> None:
        self._docker = docker
        self._config = config
        self._keyring = Keyring(config.authfile)
        self._shared: Shared[Image] = Shared()
        self._board = Pulls()

    def watch(self, image: str) -> AsyncIterator[own.PullProgress]:
        return self._board.watch(image)

    async def pull(
        self, name: Reference, credentials: Credentials | None, found: Callable[[], Awaitable[Image]]
    ) -> Image:
        """Have Docker fetch `name`; `found` tells what it has then. Pulls of the same name with the same
        credentials are one; the last caller who gives up ends it. Raises as ImageService.pull does."""

        async def begin(_: Work[Image]) -> Image:
            progress = self._board.begin(str(name))
            with progress.failing():
                await self._pull(name, credentials, progress)
                progress.recording()
                image = await found()
            progress.done(image.id)
            return image

        async with self._shared.part((name, credentials), begin) as (work, joined):
            with step("wait for pull", str(name)) if joined else nullcontext():
                return await work.result()

    async def close(self) -> None:
        await self._shared.close()

    async def _pull(self, name: Reference, credentials: Credentials | None, progress: Progress) -> None:
        policy = Path(self._config.policy)
        if policy.exists() and not accepts_anything(policy):
            raise FailedPrecondition(
                f"images.policy: {policy} asks for signatures, which a Docker Engine does not look at; use"
                " engine 'oci', or a policy that accepts anything"
            )
        parameters = {"fromImage": name.repository, "tag": name.digest or name.tag}
        if self._config.platform:
            parameters["platform"] = self._config.platform
        header, whose = await self._authorization(name, credentials)
        try:
            with step("pull", str(name)):
                async with self._unless_silent(name) as stalls:
                    await self._follow(parameters, header, progress, stalls)
        except (RegistryUnavailable, FailedPrecondition):
            raise
        except (Unavailable, DeadlineExceeded):
            raise  # of Docker itself
        except PodwrightError as error:
            words = str(error).removeprefix("Docker: POST /images/create: ")
            text = f"{name}: {words} (credentials: {whose})"
            raise of_registry(words, text) from error

    async def _follow(
        self, parameters: Mapping[str, str], header: str, progress: Progress, stalls: Stalls
    ) -> None:
        headers = {"X-Registry-Auth": header}
        places: dict[str, int] = {}
        async with self._docker.stream("POST", "/images/create", parameters, headers=headers) as answers:
            stalls.heard(places_busy=False)
            async for each in answers:
                if error := each.get("error") or each.get("errorDetail"):
                    detail = each.get("errorDetail") or {}
                    words = str(detail.get("message") or error)
                    if detail.get("code") in UNAVAILABLE:
                        raise RegistryUnavailable(words)
                    raise PodwrightError(words)
                _tell(progress, places, each)
                stalls.heard(places_busy=_only_unpacks(progress))

    async def _authorization(self, name: Reference, credentials: Credentials | None) -> tuple[str, str]:
        """X-Registry-Auth, and whose credentials they are."""
        whose = "the call's"
        if credentials is None:
            credentials, whose = await self._keyring.credentials(name)
        elif credentials.withheld:
            whose, credentials = f"none (the call's are for {credentials.withheld})", None
        if credentials is None:
            return _encoded({}), whose
        told: dict[str, str] = {
            "username": credentials.username,
            "password": credentials.password,
            "identitytoken": credentials.identity_token,
            "registrytoken": credentials.registry_token,
            "serveraddress": DOCKER_HUB if name.domain == DEFAULT_DOMAIN else name.domain,
        }
        return _encoded({key: value for key, value in told.items() if value}), whose

    @asynccontextmanager
    async def _unless_silent(self, name: Reference) -> AsyncIterator[Stalls]:
        """RegistryUnavailable when nothing is heard of the pull for so long that it has stalled."""
        patience = self._config.progress_timeout
        try:
            async with asyncio.timeout(None) as bound:
                stalls = Stalls(bound, patience)
                stalls.heard(places_busy=False)
                yield stalls
        except TimeoutError:
            if not bound.expired():
                raise
            raise RegistryUnavailable(
                f"{name}: nothing was heard of it for {patience:g} s (images.progress_timeout)"
            ) from None


class Stalls:
    """When a pull has stalled: so many seconds after anything was heard of it, unless it only unpacks."""

    def __init__(self, bound: asyncio.Timeout, patience: float) -> None:
        self._bound = bound
        self._patience = patience

    def heard(self, *, places_busy: bool) -> None:
        if self._patience:
            now = asyncio.get_running_loop().time()
            self._bound.reschedule(None if places_busy else now + self._patience)


def _tell(progress: Progress, places: dict[str, int], answer: Json) -> None:
    """Layers are known by the first digits of their digests: Docker tells no more."""
    stage, id = _STAGES.get(str(answer.get("status"))), str(answer.get("id", ""))
    if stage is None or not _LAYER.fullmatch(id):
        return
    if id not in places:
        places[id] = len(places)
        progress.layers([(f"sha256:{id}", 0)])
    detail = answer.get("progressDetail") or {}
    downloads = stage == own.LAYER_DOWNLOADING and "current" in detail
    progress.layer(
        places[id],
        stage,
        fetched=int(detail["current"]) if downloads else None,
        total=int(detail["total"]) if downloads and detail.get("total", 0) > 0 else None,
    )


def _only_unpacks(progress: Progress) -> bool:
    stages = {layer.stage for layer in progress.state().layers}
    return own.LAYER_UNPACKING in stages and not stages & {own.LAYER_WAITING, own.LAYER_DOWNLOADING}


def _encoded(tree: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(tree)).decode()
