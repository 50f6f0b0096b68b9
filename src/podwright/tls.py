"""TLS of clients: whom they believe, the same with every Python."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(authorities: Path | str | None = None) -> ssl.SSLContext:
    """A context that verifies certificates and names of servers, by the PEM file `authorities` or the host's.

    Raises OSError and ssl.SSLError for a file without certificates.
    """
    context = ssl.create_default_context(cafile=authorities)
    # As skopeo, docker and kubectl verify, whose certificates these are. Python 3.13 would refuse authorities
    # without a key usage (`openssl req -x509` makes such), Python 3.12 those that are no roots.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
