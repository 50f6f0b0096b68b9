"""Whom TLS clients believe: what skopeo, docker and kubectl believe, whichever Python it is."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from podwright.tls import client_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root, an authority signed by it, and a server signed by the authority; none says its key usage."""
    path = tmp_path_factory.mktemp("tls")
    script = """
        key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        openssl req -x509 $key -days 2 -subj /CN=root -keyout root.key -out root.pem
        openssl req -x509 $key -days 2 -subj /CN=stranger -keyout stranger.key -out stranger.pem
        openssl req $key -subj /CN=authority -keyout authority.key -out authority.csr
        openssl req $key -subj /CN=server -keyout server.key -out server.csr
        echo basicConstraints=CA:TRUE >authority.ext
        echo subjectAltName=DNS:localhost >server.ext
        openssl x509 -req -in authority.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 \
            -extfile authority.ext -out authority.pem
        openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 \
            -extfile server.ext -out server.pem
        cat server.pem authority.pem >chain.pem
    """
    subprocess.run(["sh", "-ec", script], cwd=path, check=True, capture_output=True, timeout=60)
    return path


def shake_hands(client: ssl.SSLContext, files: Path, name: str) -> None:
    """Raises what the client thinks of the server when it is not `name`, or not to be believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "chain.pem", files / "server.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=name)
    answering = context.wrap_bio(there, back, server_side=True)
    for side in (asking, answering, asking, answering):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    assert asking.cipher() and asking.getpeercert()


@pytest.mark.parametrize("believed", ["root", "authority", "server"])
def test_authorities_need_neither_a_key_usage_nor_to_be_roots(believed: str, files: Path) -> None:
    shake_hands(client_context(files / f"{believed}.pem"), files, "localhost")


def test_who_is_signed_by_nobody_known_or_has_another_name_is_not_believed(files: Path) -> None:
    for authorities in (files / "stranger.pem", None):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
            shake_hands(client_context(authorities), files, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client_context(files / "root.pem"), files, "elsewhere")
