"""Certificates for the Docker Engine's TLS, made by openssl for one run of the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from podwright.config import DockerConfig

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make(directory: Path) -> None:
    """Two authorities, "ca" and "stranger"; of the first a server and a client, both also "old" (their time
    is over), and a server of another name; of the second a client. Each is NAME.pem with NAME.key."""
    for name in ("ca", "stranger"):
        own = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        _openssl(directory, "req", *_KEY, "-x509", "-days", "2", *own)
    for name, signer, days, address in (
        ("server", "ca", "2", "127.0.0.1"),
        ("elsewhere", "ca", "2", "10.99.99.99"),
        ("client", "ca", "2", "127.0.0.1"),
        ("old-server", "ca", "-1", "127.0.0.1"),
        ("old-client", "ca", "-1", "127.0.0.1"),
        ("strange-client", "stranger", "2", "127.0.0.1"),
    ):
        request = f"{name}.csr"
        _openssl(directory, "req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", request)
        (directory / "extensions").write_text(
            f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        by = ("-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-CAcreateserial")
        more = ("-days", days, "-extfile", "extensions", "-out", f"{name}.pem")
        _openssl(directory, "x509", "-req", "-in", request, *by, *more)


def config(directory: Path, endpoint: str, *, ca: str = "ca", client: str = "client") -> DockerConfig:
    """The settings of podwright with these certificates; "" is none."""
    return DockerConfig(
        endpoint=endpoint,
        tls_ca=str(directory / f"{ca}.pem") if ca else "",
        tls_cert=str(directory / f"{client}.pem") if client else "",
        tls_key=str(directory / f"{client}.key") if client else "",
    )


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)
