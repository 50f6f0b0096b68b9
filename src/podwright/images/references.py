"""The one place that reads image references: names as clients write them, and local sources.

Pure rules, no I/O. The grammar is the distribution project's; the defaults (docker.io, library/, :latest)
are Docker's, and of a name with both a tag and a digest only the digest counts.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from podwright.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
MAX_NAME = 255
"""Longest repository name, domain included (distribution's reference grammar)."""
SHORTEST_ID = 3
"""Fewest hex digits that are tried as an image id."""

_PORT = r"(?::[0-9]+)?"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\]){_PORT}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ID = re.compile(rf"(?:sha256:)?([0-9a-f]{{{SHORTEST_ID},64}})")
_FULL_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
TRANSPORTS = ("oci", "oci-archive", "docker-archive", "dir")
"""What local sources begin with."""
_LOCAL = re.compile(rf"({'|'.join(TRANSPORTS)}):(\.{{0,2}}/.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a registry, with everything that was left out filled in."""

    domain: str
    path: str
    tag: str
    """Empty when `digest` is given."""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    def at(self, digest: str) -> str:
        """The canonical name of `digest` in this repository."""
        return f"{self.repository}@{digest}"

    def __str__(self) -> str:
        return self.at(self.digest) if self.digest else f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """An image in a file or directory of this host, as skopeo names it."""

    transport: str
    """"oci", "oci-archive", "docker-archive" or "dir"."""
    path: str
    """Absolute."""
    selector: str = ""
    """Which of several images in it: a tag or a name; empty takes the only one."""

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}" + (f":{self.selector}" if self.selector else "")


def parse(text: str, field: str = "image.image") -> Reference:
    """The reference that `text` is; InvalidArgument, naming `field`, when it is none.

    64 hex digits, bare or after "sha256:", are refused: they can only be an image's id.
    """
    if not text:
        raise InvalidArgument(field, "an image reference is needed, this is empty")
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(field, f"{text!r}: {digest!r} is not a digest such as sha256:<64 hex digits>")
    tag = ""
    colon = name.rfind(":")
    if colon > name.rfind("/"):
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(
                field, f"{text!r}: {tag!r} is not a tag (letters, digits, . _ -; up to 128)"
            )
    domain, path = _split(name)
    if not _DOMAIN.fullmatch(domain):
        raise InvalidArgument(field, f"{text!r}: {domain!r} is not a registry's host[:port]")
    if not _PATH.fullmatch(path):
        why = "must be lower case" if _PATH.fullmatch(path.lower()) else "is not a repository name"
        raise InvalidArgument(field, f"{text!r}: {path!r} {why}")
    if len(domain) + 1 + len(path) > MAX_NAME:
        raise InvalidArgument(field, f"{text!r}: longer than {MAX_NAME} characters without its tag")
    if _FULL_ID.fullmatch(text):
        raise InvalidArgument(field, f"{text!r} is an image id, not the name of an image in a registry")
    if digest:
        return Reference(domain, path, "", digest)
    return Reference(domain, path, tag or "latest")


def parse_local(text: str, field: str = "image.image") -> LocalSource | None:
    """The local source that `text` names, None when it is a name in a registry.

    Only a path tells them apart, for "oci:latest" is an image called oci: a path begins with / or ./, which
    no tag and no port does; so whatever passes for an image name in a Pod never reads a file of the host.
    Raises InvalidArgument for a relative path: the server's directory is not the caller's.
    """
    match = _LOCAL.fullmatch(text)
    if match is None:
        return None
    transport, path = match.groups()
    selector = ""
    if transport == "oci":
        directory, slash, last = path.rpartition("/")
        last, _, selector = last.partition(":")
        path = directory + slash + last
    elif transport != "dir":
        path, _, selector = path.partition(":")
    if not path.startswith("/"):
        raise InvalidArgument(field, f"{text!r}: the path must be absolute")
    return LocalSource(transport, posixpath.normpath(path), selector)


def full_name(text: str, field: str = "image.image") -> str:
    """How pulls of `text` are called, whatever way it is written: a name in a registry or a local source."""
    return str(parse_local(text, field) or parse(text, field))


def with_absolute_path(text: str, directory: str) -> str:
    """A path, or a local source, of a caller who is in `directory`, for a server that is elsewhere."""
    scheme, colon, path = text.partition(":")
    if not colon or scheme not in TRANSPORTS:
        scheme, colon, path = "", "", text
    return text if path.startswith("/") else f"{scheme}{colon}{posixpath.join(directory, path)}"


def registry_of(text: str) -> str:
    """The registry (host[:port]) that `text` would be pulled from; "" when it is a local source."""
    return "" if parse_local(text) else parse(text).domain


def image_id_prefix(text: str) -> str | None:
    """The hex digits of `text` when it can be (the beginning of) an image's id, else None."""
    match = _ID.fullmatch(text)
    return match.group(1) if match else None


def local_name(source: LocalSource, named: str = "") -> Reference | None:
    """What to call an image from `source` which carries the name `named` ("" when it has none).

    A full name is taken as it is; a bare tag goes to localhost/<file's name>. None when the file's name
    cannot be a repository's.
    """
    if "/" in named or (":" in named and "@" not in named):
        return parse(named, source.path)
    stem = posixpath.basename(source.path)
    if source.transport != "oci" and source.transport != "dir":
        stem = stem.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    stem = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    if not stem or (named and not _TAG.fullmatch(named)):
        return None
    return Reference("localhost", stem, named or "latest")


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower() or first[:1] == "["
    )
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
