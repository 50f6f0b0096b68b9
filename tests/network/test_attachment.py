"""What a pod asks of its network, as plugins read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.network import attachment
from podwright.network.attachment import EGRESS, INGRESS, Attachment
from podwright.wire import cri_pb2 as cri


def test_cni_args_name_the_pod() -> None:
    pod = Attachment(id="0123", netns="/n", name="web", namespace="default", uid="u-1")
    assert attachment.cni_args(pod) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=0123;K8S_POD_UID=u-1"
    )


def test_a_name_that_would_add_an_argument_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"config\.metadata\.name"):
        attachment.cni_args(Attachment(id="1", netns="", name="a;IgnoreUnknown=0"))


def test_only_mappings_with_a_host_port_are_sent_in_lower_case() -> None:
    ports = [
        cri.PortMapping(protocol=cri.UDP, host_port=53, container_port=5353, host_ip="127.0.0.1"),
        cri.PortMapping(protocol=cri.TCP, container_port=80),
        cri.PortMapping(protocol=cri.SCTP, host_port=9, container_port=9),
    ]
    assert attachment.port_mappings(ports) == [
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
        {"hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": ""},
    ]


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1k", 1000),
        ("1000", 1000),
        ("10M", 10_000_000),
        ("1.5M", 1_500_000),
        ("1Ki", 1024),
        ("1P", 10**15),
        ("1e6", 10**6),
        ("2E3", 2000),
        ("1000.5", 1001),
        ("+.5M", 500_000),
        ("1000000m", 1000),
    ],
)
def test_bandwidth_annotations_are_bits_a_second(text: str, bits: int) -> None:
    assert attachment.bandwidth({INGRESS: text, EGRESS: "1M"}) == {
        "ingressRate": bits,
        "ingressBurst": 4294967295,
        "egressRate": 1000000,
        "egressBurst": 4294967295,
    }


@pytest.mark.parametrize("text", ["999", "1.1P", "1Pi", "0", "-1M", "", "fast", "1MM", "1e", "10 M", "1e999"])
def test_bandwidth_out_of_range_names_the_annotation(text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        attachment.bandwidth({EGRESS: text})
    assert error.value.field == f"config.annotations[{EGRESS}]"


@given(st.text(max_size=12))
def test_any_bandwidth_text_is_a_rate_or_an_invalid_argument(text: str) -> None:
    try:
        limits = attachment.bandwidth({INGRESS: text})
    except InvalidArgument:
        return
    assert 10**3 <= limits["ingressRate"] <= 10**15


def test_every_capability_argument_and_none_for_an_ordinary_pod() -> None:
    assert attachment.capability_args(Attachment(id="1", netns="")) == {}
    pod = Attachment(
        id="1",
        netns="",
        ports=[cri.PortMapping(host_port=1, container_port=2)],
        annotations={INGRESS: "1M"},
        dns=cri.DNSConfig(servers=["192.0.2.1"], searches=["x"], options=["ndots:5"]),
        cgroup_parent="/kubepods/pod1",
    )
    assert attachment.capability_args(pod, ["10.1.0.0/24", "fd00::/64"]) == {
        "portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "tcp", "hostIP": ""}],
        "bandwidth": {"ingressRate": 10**6, "ingressBurst": 4294967295},
        "dns": {"servers": ["192.0.2.1"], "searches": ["x"], "options": ["ndots:5"]},
        "ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "io.kubernetes.cri.pod-annotations": {INGRESS: "1M"},
        "cgroupPath": "/kubepods/pod1",
    }
