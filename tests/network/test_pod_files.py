"""hostname, hosts and resolv.conf."""

from __future__ import annotations

import pytest

from podwright.network import files
from podwright.wire import cri_pb2 as cri


@pytest.mark.parametrize(
    ("dns", "text"),
    [
        (None, "# host\nnameserver 192.0.2.53\n"),
        (cri.DNSConfig(), ""),
        (
            cri.DNSConfig(
                servers=["10.0.0.1", "fd00::1"], searches=["a.b", "c"], options=["ndots:5", "edns0"]
            ),
            "search a.b c\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:5 edns0\n",
        ),
        (cri.DNSConfig(options=["rotate"]), "options rotate\n"),
    ],
)
def test_resolv_conf(dns: cri.DNSConfig | None, text: str) -> None:
    assert files.resolv_conf(dns, "# host\nnameserver 192.0.2.53\n") == text


def test_hostname_falls_back_to_the_hosts() -> None:
    assert files.hostname("pod", "node") == "pod\n"
    assert files.hostname("", "node") == "node\n"


def test_hosts_are_the_hosts_own_or_name_the_pod() -> None:
    assert files.hosts("127.0.0.1 localhost\n") == "127.0.0.1 localhost\n"
    written = files.pod_hosts("web", ("10.0.0.2", "fd00::2"), {"192.0.2.9": ["db", "db.local"]}).splitlines()
    assert "127.0.0.1\tlocalhost" in written
    assert written[-3:] == ["10.0.0.2\tweb", "fd00::2\tweb", "192.0.2.9\tdb db.local"]
