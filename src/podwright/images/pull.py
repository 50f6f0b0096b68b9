"""How image bytes get here: through skopeo, from a registry or a local source, into a directory.

skopeo knows the registries' protocols, mirrors (registries.conf), certificates and signature policies. The
directory it fills (its "dir:" transport) has the manifest and all blobs byte for byte as they were served,
so digests stay what the registry says. Nothing here knows the store.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import os
import re
import tarfile
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.errors import (
    FailedPrecondition,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    ResourceExhausted,
    SignatureValidationFailed,
    Unimplemented,
)
from podwright.images.references import LocalSource, Reference
from podwright.linux import spawn

STALLED = 300.0
"""Seconds without a new byte after which a transfer is given up."""
PASSED_ON = (
    "PATH",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""What skopeo sees of our environment: where programs, proxies and certificates are."""

_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
_REJECTED = re.compile(r"Source image rejected|rejected by policy|[Ss]ignature", re.ASCII)
_ABSENT = re.compile(
    r"manifest unknown|name unknown|not known to registry|status 404|no image found in|"
    r"no descriptor found|reference .* not found|[Tt]ag .* not found|no such file or directory"
)
_REFUSED = re.compile(
    r"unauthorized|authentication required|denied|[Ff]orbidden|invalid username/password|401"
)
_NOT_TLS = re.compile(r"server gave HTTP response to HTTPS client|x509:|certificate|tls: ")
_AWAY = re.compile(
    r"connection refused|connection reset|no such host|server misbehaving|i/o timeout|handshake timeout|"
    r"deadline exceeded|Client\.Timeout|no route to host|network is unreachable|unexpected EOF|: EOF|"
    r"unexpected HTTP status:? 5\d\d|status code from registry 5\d\d|Bad Gateway|Service Unavailable|"
    r"Gateway Time-?out|Internal Server Error"
)


@dataclass(frozen=True, slots=True)
class Access:
    """How skopeo is run for one image: files made for this one pull, nothing secret in its arguments."""

    options: tuple[str, ...]
    authfile: Path
    verify_tls: bool
    environment: Mapping[str, str]
    about: str
    """What is fetched, for error messages."""

    def tls(self, option: str) -> list[str]:
        """Options that turn verification off, if wanted. It is on by default: saying so would overrule the
        `insecure = true` that an administrator gave a registry or mirror in registries.conf."""
        return [] if self.verify_tls else [f"{option}=false"]


@contextmanager
def access(
    source: Reference | LocalSource, config: ImageConfig, credentials: Credentials | None, scratch: Path
) -> Iterator[Access]:
    """Prepare one pull in the existing private directory `scratch`; the credentials are gone afterwards.

    With `credentials` only they are used; without, the configured authfile; without that, none.
    """
    if not Path(config.policy).is_file():
        raise FailedPrecondition(
            f"images.policy: there is no signature policy {config.policy}: install golang-github-containers-"
            'common, or write {"default": [{"type": "insecureAcceptAnything"}]} there'
        )
    private = scratch / "auth.json"
    authfile = Path(config.authfile) if config.authfile and credentials is None else private
    domain = source.domain if isinstance(source, Reference) else ""
    private.touch(mode=0o600, exist_ok=False)
    try:
        private.write_text(json.dumps(_auth_tree(domain, credentials)))
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"HOME": str(scratch), "XDG_RUNTIME_DIR": str(scratch), "TMPDIR": str(scratch)}
        yield Access(
            ("--policy", config.policy, "--tmpdir", str(scratch)),
            authfile,
            domain not in config.insecure_registries and not _is_loopback(domain),
            environment,
            str(source),
        )
    finally:
        private.unlink()


def accepts_anything(policy: Path) -> bool:
    """Whether the signature policy lets every image in, so that known content needs no second look."""
    try:
        tree = json.loads(policy.read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(tree, dict) or tree.get("default") != [{"type": "insecureAcceptAnything"}]:
        return False
    scopes = [scope for transport in (tree.get("transports") or {}).values() for scope in transport.values()]
    return all(scope == [{"type": "insecureAcceptAnything"}] for scope in scopes)


async def served_digest(reference: Reference, how: Access) -> str:
    """The digest of what the registry serves under `reference` now (of the index, for several platforms)."""
    if reference.digest:
        return reference.digest
    command = ["inspect", "--raw", "--authfile", str(how.authfile), *how.tls("--tls-verify")]
    command.append(f"docker://{reference}")
    done = await _watched(_skopeo(command, how), None, how)
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"


async def copy(source: str, target: Path, how: Access) -> None:
    """Copy `source` (skopeo's notation) for this host's platform to the directory `target`, checking the
    signature policy and every digest.

    Raises NotFound, RegistryUnavailable, SignatureValidationFailed, or PodwrightError with the reason.
    """
    command = ["copy", "--quiet", "--preserve-digests", "--src-authfile", str(how.authfile)]
    if not source.startswith("docker://"):
        # An archive of Docker's has no digests to keep: its manifest is made while it is read.
        command.remove("--preserve-digests")
    target.mkdir(mode=0o700)
    command += [*how.tls("--src-tls-verify"), source, f"dir:{target}"]
    await _watched(_skopeo(command, how), target, how)


def names_in(source: LocalSource) -> list[str]:
    """The names that an archive or layout gives to the image `source` selects; may be none. Blocks."""
    try:
        if source.transport == "docker-archive":
            if source.selector:
                return [] if source.selector.startswith("@") else [source.selector]
            entries = _member(source.path, "manifest.json")
            return list(entries[0].get("RepoTags") or []) if len(entries) == 1 else []
        if source.transport == "dir":
            return []
        if source.selector:
            return [source.selector]
        layout = source.transport == "oci"
        index = (
            msgspec.json.decode((Path(source.path) / "index.json").read_bytes())
            if layout
            else _member(source.path, "index.json")
        )
        marks: Mapping[str, str] = (
            index["manifests"][0].get("annotations") or {} if len(index["manifests"]) == 1 else {}
        )
        name = marks.get("io.containerd.image.name") or marks.get("org.opencontainers.image.ref.name")
        return [name] if name else []
    except (OSError, tarfile.TarError, msgspec.DecodeError, LookupError, AttributeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"{source}: no image can be read there: {reason}") from error


def _member(archive: str, name: str) -> Any:
    with tarfile.open(archive, "r:*") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise NotFound(f"{archive}: {name} is no file in it")
        return msgspec.json.decode(file.read())


def _auth_tree(domain: str, credentials: Credentials | None) -> dict[str, Any]:
    """An authfile (containers-auth.json(5))."""
    if credentials is None:
        return {"auths": {}}
    if credentials.identity_token:
        entry = {"auth": _base64("<token>:"), "identitytoken": credentials.identity_token}
    elif credentials.username or credentials.password:
        entry = {"auth": _base64(f"{credentials.username}:{credentials.password}")}
    else:
        raise Unimplemented(
            "auth.registry_token: skopeo takes a bearer token only as an argument, which every user of this "
            "host could read; use a name and password or an identity token"
        )
    return {"auths": {domain: entry}}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _is_loopback(domain: str) -> bool:
    host = re.sub(r":[0-9]+$", "", domain).strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _skopeo(command: list[str], how: Access) -> spawn.Finished:
    try:
        done = await spawn.run(["skopeo", *how.options, *command], env=how.environment)
    except FileNotFoundError:
        raise FailedPrecondition("images are pulled by skopeo, which is not installed") from None
    if done.status != 0:
        raise _failure(how, done)
    return done


async def _watched(work: Awaitable[spawn.Finished], target: Path | None, how: Access) -> spawn.Finished:
    """Await `work` as long as `target` grows, or for STALLED seconds in all without a target."""
    task, before = asyncio.ensure_future(work), -1
    try:
        while True:
            ended, _ = await asyncio.wait({task}, timeout=STALLED)
            if ended:
                return task.result()
            size = sum(path.stat().st_size for path in target.iterdir()) if target else -1
            if size == before:
                raise RegistryUnavailable(f"{how.about}: no byte has come for {STALLED:g} s")
            before = size
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _failure(how: Access, done: spawn.Finished) -> PodwrightError:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    fatal = _FATAL.findall(text)
    if fatal:
        try:
            text = json.loads(fatal[-1])
        except ValueError:
            text = fatal[-1]
    # A signed address of a blob is a secret.
    words = f"{how.about}: " + _QUERY.sub(r"\1?…", text)
    if "loading trust policy" in text or "invalid policy" in text:
        return FailedPrecondition(f"{words} (images.policy: {how.options[1]})")
    for pattern, make in _KINDS:
        if pattern.search(text):
            return make(words)
    return PodwrightError(words or f"{how.about}: skopeo ended with status {done.status}")


def _refused(words: str) -> PodwrightError:
    return PodwrightError(f"the registry refuses access, check the pull secret: {words}")


def _untrusted(words: str) -> PodwrightError:
    return PodwrightError(
        f"{words} (if this registry has no trusted certificate, name it in images.insecure_registries)"
    )


_KINDS = (
    (_REJECTED, SignatureValidationFailed),
    (re.compile("no space left on device"), ResourceExhausted),
    (_NOT_TLS, _untrusted),
    (_AWAY, RegistryUnavailable),
    (_REFUSED, _refused),
    (_ABSENT, NotFound),
)
