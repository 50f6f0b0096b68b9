"""How skopeo is run for one image: its options, environment and home, and the credentials it may use.

The home is a private directory made for this one pull, so that no file of a user has a say, only the host's
and the configured ones. Nothing secret is in an argument or the environment. Which credentials apply to which
host is skopeo's rule (containers-auth.json(5)): those of a call are filed under the image's registry, so no
mirror sees them.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.errors import FailedPrecondition
from podwright.images import outbound, registries
from podwright.images.gate import Gate, certificates, standing
from podwright.images.platform import Platform, wanted_platform
from podwright.images.references import LocalSource, Reference

PASSED_ON = (
    "PATH",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""What skopeo sees of our environment: where programs, proxies and certificates are."""
HOST_LOOKASIDE = "/var/lib/containers/sigstore"
"""Where signatures are looked for when no registries.d says where (containers-registries.d(5))."""


@dataclass(frozen=True, slots=True)
class Access:
    options: tuple[str, ...]
    """For every command of skopeo's, before it."""
    authfile: Path
    verify_tls: bool
    environment: Mapping[str, str]
    scratch: Path
    about: str
    """What is fetched, for error messages."""
    name: str
    """What is fetched, as skopeo writes it."""
    platform: Platform
    registry: str
    """The host[:port] that the image's name leads to; "" for a local source."""
    origin: str
    """What a credential that skopeo found is, for error messages."""
    none: str
    """What it is when skopeo found none."""
    policy: str
    registries_conf: str
    gate: Gate | None
    """What stands between skopeo and the registry, if anything does."""

    def tls(self, option: str) -> list[str]:
        """Options that turn verification off, if wanted. It is on by default: saying so would overrule the
        `insecure = true` that an administrator gave a registry or mirror in registries.conf."""
        return [] if self.verify_tls else [f"{option}=false"]

    def at(self, digest: str) -> str:
        """The image's manifest `digest`, as skopeo writes it; of a registry."""
        repository = self.name.partition("@")[0]
        if "@" not in self.name:
            repository = self.name.rpartition(":")[0]
        return f"{repository}@{digest}"


def platform_options(platform: Platform | None) -> list[str]:
    """Options by which skopeo takes `platform` of several."""
    if platform is None:
        return []
    options = ["--override-os", platform.os, "--override-arch", platform.architecture]
    return options + (["--override-variant", platform.variant] if platform.variant else [])


@asynccontextmanager
async def prepared(
    source: Reference | LocalSource, config: ImageConfig, credentials: Credentials | None, scratch: Path
) -> AsyncIterator[Access]:
    """Prepare one pull in the existing private directory `scratch`; the credentials are gone afterwards.

    With `credentials` only they are used; without, the configured authfile; without that, none.
    """
    if not Path(config.policy).is_file():
        raise FailedPrecondition(
            f"images.policy: there is no signature policy {config.policy}: install golang-github-containers-"
            'common, or write {"default": [{"type": "insecureAcceptAnything"}]} there'
        )
    none = "none"
    if credentials is not None and credentials.withheld:
        none, credentials = f"none (the call's are for {credentials.withheld})", None
    domain = source.domain if isinstance(source, Reference) else ""
    home = scratch / "home"
    authfile, origin = home / "auth.json", _described(credentials)
    insecure = domain in config.insecure_registries or is_loopback(domain)
    async with AsyncExitStack() as stack:
        # skopeo unpacks archives there, and is killed rather than asked to go.
        stack.push_async_callback(asyncio.to_thread, partial(shutil.rmtree, home, ignore_errors=True))
        _furnish(home, config)
        gate = None
        if isinstance(source, Reference) and credentials is not None and credentials.registry_token:
            gate = await stack.enter_async_context(
                _gated(source, home, config, credentials.registry_token, insecure)
            )
        _write_private(authfile, json.dumps(_auth_tree(domain, credentials)))
        if credentials is None and config.authfile:
            authfile, origin = Path(config.authfile), f"images.authfile {config.authfile}"
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "TMPDIR": str(home / "tmp"),
            # Else a database of the host's learns of every blob we fetch. Where there is no directory for
            # it, it is kept in memory.
            "_CONTAINERS_ROOTLESS_UID": "1",
        }
        options = ["--policy", config.policy, "--tmpdir", str(home / "tmp")]
        if config.registries_d:
            options += ["--registries.d", config.registries_d]
        yield Access(
            options=tuple(options),
            authfile=authfile,
            verify_tls=not insecure,
            environment=environment,
            scratch=scratch,
            about=str(source),
            name=f"docker://{source}" if isinstance(source, Reference) else str(source),
            platform=wanted_platform(config.platform),
            registry=domain,
            origin=origin,
            none=none,
            policy=config.policy,
            registries_conf=config.registries_conf or str(registries.HOSTS),
            gate=gate,
        )


def _furnish(home: Path, config: ImageConfig) -> None:
    containers, data = home / ".config/containers", home / ".local/share/containers"
    for directory in (home, home / "tmp", containers, data):
        directory.mkdir(mode=0o700, parents=True)
    (data / "cache").touch()
    (data / "sigstore").symlink_to(HOST_LOOKASIDE)
    if config.certs_dir:
        (containers / "certs.d").symlink_to(config.certs_dir)
    if config.registries_conf:
        _link_registries(containers, registries.files(config.registries_conf))


def _link_registries(containers: Path, files: Sequence[Path]) -> None:
    """Let skopeo find `files` as a user's registries.conf and drop-ins: it reads no others then."""
    main, drop_ins = containers / "registries.conf", containers / "registries.conf.d"
    if drop_ins.exists():
        return
    drop_ins.mkdir()
    for file in files:
        if file.parent.name.endswith(".d"):
            (drop_ins / file.name).symlink_to(file)
        else:
            main.symlink_to(file)
    if not main.is_symlink():
        main.touch()


@asynccontextmanager
async def _gated(
    source: Reference, home: Path, config: ImageConfig, token: str, insecure: bool
) -> AsyncIterator[Gate]:
    """A gate for `token` to where registries.conf says that `source` is, and skopeo led to it."""
    files = registries.files(config.registries_conf)
    entry = registries.entry_for(source.repository, files)
    # An entry without a location, such as one for *.example, leaves the names as they are.
    location = entry.location or source.domain
    prefix = entry.prefix if entry.location else source.domain
    if source.domain.startswith(f"{prefix}:"):
        # skopeo takes the prefix "host" for "host:port", too, and leaves the port in its place.
        location, prefix = location + source.domain[len(prefix) :], source.domain
    host = location.partition("/")[0]
    trust = outbound.Trust(
        insecure or entry.insecure, certificates(config.certs_dir, host), outbound.registry_host(host)
    )
    async with standing(location, token, trust) as gate:
        _link_registries(home / ".config/containers", files)
        led = registries.replaced(replace(entry, prefix=prefix), gate.location)
        _write_private(home / ".config/containers/registries.conf.d/~gate.conf", led)
        yield gate


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def _auth_tree(domain: str, credentials: Credentials | None) -> dict[str, Any]:
    """An authfile (containers-auth.json(5))."""
    if credentials is None:
        return {"auths": {}}
    if credentials.identity_token:
        entry = {"auth": _base64("<token>:"), "identitytoken": credentials.identity_token}
    elif credentials.username or credentials.password:
        entry = {"auth": _base64(f"{credentials.username}:{credentials.password}")}
    else:
        return {"auths": {}}
    return {"auths": {domain: entry}}


def _described(credentials: Credentials | None) -> str:
    if credentials is None:
        return "none"
    if credentials.identity_token:
        return "the call's identity token"
    if credentials.registry_token:
        return "the call's registry token"
    if not credentials.username:
        return "the call's password, without a username"
    return f"the call's username {credentials.username}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def is_loopback(domain: str) -> bool:
    host = re.sub(r":[0-9]+$", "", domain).strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
