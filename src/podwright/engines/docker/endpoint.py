"""Where the Docker Engine listens and how the connection with it is secured: settings, the environment of
Docker's own client, and what a connection that fails has to do with either. Nothing connects here."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from podwright.config import DockerConfig
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError, Unavailable
from podwright.tls import client_context

DEFAULT = "unix:///var/run/docker.sock"

SECURE_PORT = 2376
"""The usual one with TLS."""
_WORDS = 2.0
"""Seconds in which a server refuses a certificate; one that accepts it says nothing."""
_KEYS = ("tls_ca", "tls_cert", "tls_key")
_FILES = ("ca.pem", "cert.pem", "key.pem")
_NAME_MISMATCH, _IP_MISMATCH, _EXPIRED, _NOT_YET = 62, 64, 10, 9
"""Of X509_verify_cert(3)."""
_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "UNKNOWN_CA",
    "HANDSHAKE_FAILURE",
)
"""With these a server refuses a client's certificate; Go says some of them of every fault (RFC 8446, 6.2)."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    """As it was set: "tcp://10.0.0.1:2376"."""
    ca: str = ""
    cert: str = ""
    key: str = ""
    """PEM files."""

    @classmethod
    def of(cls, config: DockerConfig, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """As configured. Without `docker.endpoint` as Docker's own client has it: DOCKER_HOST, with
        DOCKER_TLS_VERIFY or DOCKER_CERT_PATH the files ca.pem, cert.pem and key.pem (docker(1), "Environment
        variables"); who the Docker Engine is is verified in any case. A configured file comes first."""
        files = [getattr(config, key) for key in _KEYS]
        if config.endpoint:
            return cls(config.endpoint, *files)
        address = environment.get("DOCKER_HOST", "") or DEFAULT
        folder = environment.get("DOCKER_CERT_PATH", "")
        if address.startswith("unix://") or not (folder or environment.get("DOCKER_TLS_VERIFY")):
            return cls(address, *files)
        place = Path(folder) if folder else Path(environment.get("HOME", "/root")) / ".docker"
        there = (str(place / name) for name in _FILES)
        return cls(address, *(file or found for file, found in zip(files, there, strict=True)))

    @property
    def secured(self) -> bool:
        return self.address.startswith("https://") or bool(self.ca or self.cert or self.key)

    def target(self) -> tuple[str, ssl.SSLContext | None]:
        """The URL that aiodocker takes, and how the connection is secured. InvalidArgument for an address or
        files that cannot be."""
        scheme, _, rest = self.address.partition("://")
        if scheme == "unix" and rest:
            if self.secured:
                raise InvalidArgument(
                    "docker.tls_ca", f"{self.address} is a socket of this host, without TLS"
                )
            return self.address, None
        if scheme not in ("tcp", "http", "https") or not rest:
            raise InvalidArgument(
                "docker.endpoint",
                f"{self.address!r} is neither unix:///PATH nor tcp://HOST:PORT nor https://HOST:PORT",
            )
        if not self.secured:
            return f"http://{rest}", None
        return f"https://{rest}", self._context()

    def why(self, error: BaseException) -> PodwrightError:
        """What a connection that has failed with `error` means: FailedPrecondition when both do not trust
        each other, with the setting to look at; else Unavailable."""
        for each in _causes(error):
            # aiohttp's own errors are some of these, too, without what openssl says.
            if isinstance(each, ssl.SSLCertVerificationError) and hasattr(each, "verify_code"):
                return FailedPrecondition(self._not_trusted(each))
            if isinstance(each, ssl.SSLError) and (
                words := self._refused(getattr(each, "reason", None) or "")
            ):
                return FailedPrecondition(words)
        if getattr(error, "status", 0) == 400:
            return self.no_docker(400)  # with a body where HTTP has none
        # aiohttp's words have its own settings in them.
        reason = getattr(getattr(error, "os_error", None), "strerror", None) or error
        return Unavailable(
            f"no Docker Engine answers at {self.address} ({reason}): is dockerd running, and may this user"
            " open its socket?"
        )

    async def distrust(self, context: ssl.SSLContext) -> FailedPrecondition | None:
        """Why a server refuses our certificate after the handshake, None when it does not. It is not spoken
        to: what a refused client sends is answered with a reset, which may come before the server's words."""
        parts = urlsplit(self.address)
        try:
            async with asyncio.timeout(_WORDS):
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or SECURE_PORT, ssl=context
                )
                try:
                    await reader.read(1)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            found = self.why(error)
            return found if isinstance(found, FailedPrecondition) else None
        return None

    def no_docker(self, status: int) -> FailedPrecondition:
        """Somebody answers with `status` and without an API version."""
        if status == 400 and not self.secured and not self.address.startswith("unix://"):
            return FailedPrecondition(
                f"{self.address} refuses requests without TLS: set docker.tls_ca, docker.tls_cert and"
                " docker.tls_key"
            )
        return FailedPrecondition(f"{self.address} answers, but says no API version: it is no Docker Engine")

    def _context(self) -> ssl.SSLContext:
        for key, file in zip(_KEYS, (self.ca, self.cert, self.key), strict=True):
            try:
                if file:
                    Path(file).open("rb").close()
            except OSError as error:
                raise InvalidArgument(f"docker.{key}", f"{file}: {error.strerror}") from error
        if self.key and not self.cert:
            raise InvalidArgument(
                "docker.tls_cert", f"is missing: docker.tls_key is the key of one, {self.key}"
            )
        try:
            context = client_context(self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument("docker.tls_ca", f"{self.ca}: no PEM certificates: {error}") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key or None)
            except (OSError, ssl.SSLError) as error:
                raise InvalidArgument(
                    "docker.tls_cert, docker.tls_key",
                    f"{self.cert} and {self.key or 'no key'}: no PEM certificate with its key: {error}",
                ) from error
        return context

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> str:
        who = f"the certificate of the Docker Engine at {self.address}"
        match error.verify_code:
            case code if code in (_NAME_MISMATCH, _IP_MISMATCH):
                return f"docker.endpoint: {who} is for another name: {error.verify_message}"
            case code if code in (_EXPIRED, _NOT_YET):
                return f"docker.tls_ca: {who}, or its authority's, is out of date: {error.verify_message}"
        authorities = self.ca or "the host's"
        return f"docker.tls_ca: {who} is signed by none of {authorities}: {error.verify_message}"

    def _refused(self, reason: str) -> str:
        """`reason` as openssl has it; "" when that says nothing of certificates."""
        words = reason.lower().replace("_", " ")
        who = f"the Docker Engine at {self.address}"
        if any(each in reason for each in _ALERTS):
            if not self.cert:
                return f"docker.tls_cert: {who} wants a certificate of its clients: {words}"
            return (
                f"docker.tls_cert: {who} does not accept {self.cert}: {words}; it may be out of date, or of"
                " another authority"
            )
        if reason in _NO_TLS:
            return f"docker.endpoint: nobody speaks TLS at {self.address}: {words}"
        return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        inner = getattr(each, "os_error", None) or getattr(each, "certificate_error", None)
        each = inner if isinstance(inner, BaseException) else each.__cause__ or each.__context__
