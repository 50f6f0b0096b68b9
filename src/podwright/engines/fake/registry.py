"""The registries of a fake world: which images can be pulled, what each is, who may have it.

What a reference means follows from the scenario and the reference alone, so every node of a test gives an
image the same id, whether it was asked for by tag or by digest. What a node has pulled is in `images`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

import msgspec

from podwright.engines.base import Credentials
from podwright.engines.fake.faults import FaultError
from podwright.engines.fake.values import Rate, Size, Span
from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.images import references
from podwright.images.references import LocalSource, Reference
from podwright.spec.signals import parse_signal

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageConfig(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"
):
    """The `config` section of an OCI image configuration, with its names."""

    env: list[str] = []
    """`NAME=value`."""
    entrypoint: list[str] = []
    """The command, or its beginning."""
    cmd: list[str] = []
    """The command without an entrypoint, else its arguments."""
    user: str = ""
    """`user[:group]`, names or numbers; empty: root."""
    working_dir: str = ""
    """Absolute; empty: `/`."""
    stop_signal: str = ""
    """`SIGQUIT`; empty: SIGTERM."""
    exposed_ports: dict[str, dict[str, str]] = {}
    """`80/tcp: {}`."""
    volumes: dict[str, dict[str, str]] = {}
    """`/data: {}`."""
    labels: dict[str, str] = {}
    """Shown in a verbose ImageStatus."""

    def __post_init__(self) -> None:
        for text in self.env:
            if not text.partition("=")[0] or "=" not in text:
                raise ValueError(f"Env: {text!r} is not NAME=value")
        if self.stop_signal:
            try:
                parse_signal(self.stop_signal)
            except InvalidArgument as error:
                raise ValueError(f"StopSignal: {error}") from error


_parse = lru_cache(maxsize=4096)(references.parse)

DEFAULT_CONFIG = ImageConfig(env=[PATH], cmd=["sleep", "inf"])


class ImageScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """An image, or all images whose names fit a pattern."""

    reference: str
    """Its name, `nginx:1.27` or `registry.example/team/app@sha256:…`; or a pattern for full names with `*`
    and `?`, `registry.example/private/*`."""
    aliases: list[str] = []
    """Other names of the same image."""
    present: bool = False
    """It is on the node already when the scenario begins."""
    build: str = ""
    """Another word here makes another image of the same name: change it, pull again, and the tag moves."""
    size: Size | None = None
    """Bytes on disk, above 0; `images.size` if not given."""
    config: ImageConfig = DEFAULT_CONFIG
    """How containers of it run."""
    pinned: bool = False
    """The kubelet's garbage collection spares it."""
    username: str = ""
    """With `password`: only who gives both gets the image."""
    password: str = ""
    """With `username`."""
    identity_token: str = ""
    """Who gives this token gets the image as well."""
    registry_token: str = ""
    """Who gives this token gets the image as well."""
    pull: Span | None = None
    """How long its transfer takes; by `images.pull` and `images.rate` if not given."""
    error: FaultError | None = None
    """Every pull of it fails so, after the time of the transfer. A fault on PullImage can fail some."""

    def __post_init__(self) -> None:
        if not self.is_pattern:
            _full_name("reference", self.reference)
        elif self.aliases or self.present:
            raise ValueError(
                f"reference: {self.reference!r} is a pattern: it has no aliases and is not present"
            )
        for alias in self.aliases:
            if "@" in _full_name("aliases", alias):
                raise ValueError(f"aliases: {alias!r} is a digest; an alias is another tag or repository")
        if self.size is not None and self.size <= 0:
            raise ValueError("size: an image has at least one byte")
        if bool(self.username) != bool(self.password):
            raise ValueError("username: goes with a password, and a password with it")

    @property
    def is_pattern(self) -> bool:
        return "*" in self.reference or "?" in self.reference

    @property
    def names(self) -> list[str]:
        """In full, the first one first."""
        return [str(_parse(each)) for each in (self.reference, *self.aliases)]

    @property
    def digest(self) -> str:
        """Of the manifest; not of a pattern."""
        return digest_of(_parse(self.reference), self.build)

    def fits(self, source: Reference) -> bool:
        name = str(source)
        if self.is_pattern:
            return fnmatchcase(name, self.reference)
        if name in self.names:
            return True
        repositories = {_parse(each).repository for each in self.names}
        return bool(source.digest) and source.repository in repositories and source.digest == self.digest

    def admits(self, credentials: Credentials | None) -> bool:
        if not (self.username or self.identity_token or self.registry_token):
            return True
        return credentials is not None and (
            (
                bool(self.username)
                and (credentials.username, credentials.password) == (self.username, self.password)
            )
            or (bool(self.identity_token) and credentials.identity_token == self.identity_token)
            or (bool(self.registry_token) and credentials.registry_token == self.registry_token)
        )


class ImagesScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """The images: those that registries have, those that are here already, and the disk they are on."""

    unknown: Literal["pull", "refuse"] = "pull"
    """What a pull of an image does that is not among the items: there is such an image, or NotFound."""
    items: list[ImageScript] = []
    """Those of which something is to be said; the first that fits a reference counts."""
    size: Size = Size(70_000_000)
    """Of images that say nothing else."""
    pull: Span = Span()
    """How long a transfer takes at least. An image that is here already takes no time."""
    rate: Rate | None = None
    """Of each transfer: it takes as much longer as the image is large. Not given: size does not matter."""
    mountpoint: str = "/var/lib/podwright"
    """Of the filesystem that images and writable layers are on."""
    capacity: Size | None = None
    """Of that filesystem: a pull that does not fit fails with ResourceExhausted. Not given: everything
    fits."""

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError("size: an image has at least one byte")
        names: set[str] = set()
        for item in self.items:
            for name in [] if item.is_pattern else item.names:
                if name in names:
                    raise ValueError(f"items: {name} is there twice")
                names.add(name)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a registry has under a name."""

    id: str
    size: int
    config: Mapping[str, Any]
    pinned: bool
    names: tuple[str, ...]
    """What the image is called once pulled, in full: by tag and by digest."""
    script: ImageScript | None


def offered(images: ImagesScript, source: Reference | LocalSource) -> Offer:
    """NotFound when no registry has `source`."""
    if isinstance(source, LocalSource):
        if images.unknown == "refuse":
            raise NotFound(f"{source}: no image can be read there: the scenario refuses unknown images")
        name = references.local_name(source, source.selector)
        return _offer(images, None, _hash("manifest of", str(source)), (str(name),) if name else ())
    script = next((item for item in images.items if item.fits(source)), None)
    if script is None and images.unknown == "refuse":
        raise NotFound(f"{source}: manifest unknown: the scenario refuses images that it does not list")
    if source.digest:
        return _offer(images, script, source.digest, (str(source),))
    exact = script is not None and not script.is_pattern
    digest = (
        script.digest if script is not None and exact else digest_of(source, script.build if script else "")
    )
    return _offer(images, script, digest, (source.at(digest), str(source)))


def present(images: ImagesScript) -> list[Offer]:
    """What is on the node when the scenario begins."""
    found = []
    for item in images.items:
        if item.present:
            sources = [_parse(each) for each in item.names]
            names = {name for source in sources for name in (str(source), source.at(item.digest))}
            found.append(_offer(images, item, item.digest, tuple(sorted(names))))
    return found


def require_access(script: ImageScript | None, source: object, credentials: Credentials | None) -> None:
    """PodwrightError, in a registry's words, unless `credentials` are what the image wants."""
    if script is None or script.admits(credentials):
        return
    why = (
        "unauthorized: authentication required"
        if credentials is None or credentials.withheld
        else "unauthorized: incorrect username or password"
    )
    raise PodwrightError(f"the registry refuses access, check the pull secret: {source}: {why}")


def duration(images: ImagesScript, offer: Offer, chance: random.Random) -> float:
    """Seconds that the transfer of `offer` takes."""
    if offer.script is not None and offer.script.pull is not None:
        return offer.script.pull.draw(chance)
    return images.pull.draw(chance) + (offer.size / images.rate if images.rate is not None else 0.0)


def layers(offer: Offer) -> list[tuple[str, int]]:
    """Digests and sizes of the layers of `offer`, one to five, bottom first: for who watches its transfer."""
    seed = bytes.fromhex(offer.id.removeprefix("sha256:"))
    weights = [1 + weight for weight in seed[1 : 2 + seed[0] % 5]]
    sizes = [offer.size * weight // sum(weights) for weight in weights]
    sizes[0] += offer.size - sum(sizes)
    return [(_hash(f"layer {index} of", offer.id), size) for index, size in enumerate(sizes)]


def digest_of(name: Reference, build: str = "") -> str:
    """Of the manifest that registries have under `name`."""
    if name.digest:
        return name.digest
    return _hash("manifest of", f"{name} {build}" if build else str(name))


def _offer(images: ImagesScript, script: ImageScript | None, digest: str, names: tuple[str, ...]) -> Offer:
    size, config, pinned = images.size, DEFAULT_CONFIG, False
    if script is not None:
        size, config, pinned = script.size or size, script.config, script.pinned
    # The id follows from the digest: a pull by digest gives the same one without any memory of the tag.
    return Offer(
        _hash("configuration of", digest), int(size), msgspec.to_builtins(config), pinned, names, script
    )


def _hash(what: str, name: str) -> str:
    return f"sha256:{hashlib.sha256(f'{what} {name}'.encode()).hexdigest()}"


def _full_name(field: str, text: str) -> str:
    try:
        return str(references.parse(text, field))
    except InvalidArgument as error:
        raise ValueError(str(error)) from error
