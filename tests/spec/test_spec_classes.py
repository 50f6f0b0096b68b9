"""Block I/O and RDT classes: goresctrl's files, and which class a container gets."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec import blockio, rdt
from podwright.spec.inputs import HostFacts, Policy
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host

BLOCKIO = b"""
Classes:
  slow:
  - Weight: 80
  - Devices: ["/dev/sd[a-z]", /dev/vda]
    ThrottleReadBps: 50M
    ThrottleWriteBps: 1Mi
    ThrottleReadIOPS: 10k
    ThrottleWriteIOPS: 5
    Weight: 50
  - Devices: [/dev/vda]
    Weight: "200"
  fast:
  - Weight: 400
"""
DISKS = {"/dev/sd[a-z]": [(8, 0), (8, 16)], "/dev/vda": [(254, 0)]}


def test_a_class_in_the_ocis_words() -> None:
    classes = blockio.parse(BLOCKIO, "f").resolve(DISKS)

    def rates(rate: int) -> list[dict[str, int]]:
        return [
            {"major": major, "minor": minor, "rate": rate} for major, minor in ((8, 0), (8, 16), (254, 0))
        ]

    assert classes["fast"] == {"weight": 400}
    assert classes["slow"] == {
        "weight": 80,
        "weightDevice": [
            {"major": 8, "minor": 0, "weight": 50},
            {"major": 8, "minor": 16, "weight": 50},
            {"major": 254, "minor": 0, "weight": 200},
        ],
        "throttleReadBpsDevice": rates(50_000_000),
        "throttleWriteBpsDevice": rates(1 << 20),
        "throttleReadIOPSDevice": rates(10_000),
        "throttleWriteIOPSDevice": rates(5),
    }


def test_what_has_to_be_looked_up() -> None:
    assert blockio.parse(BLOCKIO, "f").patterns() == ["/dev/sd[a-z]", "/dev/vda"]


def test_some_disks_of_a_rule_may_be_missing_but_not_all() -> None:
    configuration = blockio.parse(BLOCKIO, "f")
    with pytest.raises(InvalidArgument, match=r"class slow: no block device matches /dev/vda"):
        configuration.resolve({"/dev/sd[a-z]": [(8, 0)]})
    assert configuration.resolve({"/dev/vda": [(254, 0)]})["slow"]["throttleReadBpsDevice"] == [
        {"major": 254, "minor": 0, "rate": 50_000_000}
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "configuration"),
        (b"Classes: [", "configuration"),
        (b"Klasses: {}", "Klasses"),
        (b"Classes: {a: [{Weigth: 1}]}", "Weigth"),
        (b"Classes: {a: [{Weight: 9}]}", "10..1000"),
        (b"Classes: {a: [{Weight: x}]}", "quantity"),
        (b"Classes: {a: [{ThrottleReadBps: 5}]}", "needs Devices"),
    ],
)
def test_files_that_cannot_be_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        blockio.parse(content, "/etc/blockio.yaml")
    assert "/etc/blockio.yaml" in str(caught.value)


RDT = b"""
options: {l3: {optional: true}}
partitions:
  all:
    l3Allocation: "100%"
    classes:
      gold: {l3Allocation: "80%", kubernetes: {denyPodAnnotation: true}}
      silver:
  rest:
    mbAllocation: ["50%"]
    classes:
      iron: {kubernetes: {denyContainerAnnotation: true}}
"""


def test_classes_of_all_partitions() -> None:
    assert rdt.parse(RDT, "f") == {
        "gold": rdt.Class(deny_pod_annotation=True),
        "silver": rdt.Class(),
        "iron": rdt.Class(deny_container_annotation=True),
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "configuration"),
        (b"partition: {}", "partition"),
        (b"partitions: {a: {classes: {x: {}}}, b: {classes: {x: {}}}}", "two partitions"),
        (b"partitions: {a: {classes: {../x: {}}}}", "no name"),
        (b"partitions: {a: {classes: {x: {klasse: 1}}}}", "klasse"),
    ],
)
def test_rdt_files_that_cannot_be_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        rdt.parse(content, "/etc/rdt.yaml")
    assert "/etc/rdt.yaml" in str(caught.value)


# Who asks


def facts(policy: Policy | None = None) -> HostFacts:
    return host(policy, blockio=blockio.parse(BLOCKIO, "f").resolve(DISKS), rdt=rdt.parse(RDT, "f"))


def annotated(own: dict[str, str], pod: dict[str, str], given: HostFacts | None = None) -> Any:
    built = build(container(annotations=own), given or facts(), sandbox=cri.PodSandboxConfig(annotations=pod))
    linux = built.spec["linux"]
    return linux["resources"].get("blockIO"), linux.get("intelRdt"), built


@pytest.mark.parametrize(
    ("own", "pod", "weight"),
    [
        ({}, {}, None),
        ({}, {"pod": "fast"}, 400),
        ({}, {"pod": "fast", "container.main": "slow"}, 80),
        ({}, {"container.other": "slow"}, None),
        ({"io.kubernetes.cri.blockio-class": "fast"}, {"container.main": "slow"}, 400),
    ],
)
def test_the_containers_own_word_counts_most(
    own: dict[str, str], pod: dict[str, str], weight: int | None
) -> None:
    found = annotated(own, {f"blockio.resources.beta.kubernetes.io/{key}": pod[key] for key in pod})[0]
    assert (found or {}).get("weight") == weight


def test_rdt_classes_may_be_closed_to_annotations() -> None:
    own, of_pod = "io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io/pod"
    assert annotated({own: "gold"}, {})[1] == {"closID": "gold"}
    assert annotated({}, {of_pod: "iron"})[1] == {"closID": "iron"}
    with pytest.raises(InvalidArgument, match="may not be asked for"):
        annotated({}, {of_pod: "gold"})
    with pytest.raises(InvalidArgument, match="may not be asked for"):
        annotated({own: "iron"}, {})


@pytest.mark.parametrize("kind", ["blockio", "rdt"])
def test_classes_that_the_node_lacks(kind: str) -> None:
    own = {f"io.kubernetes.cri.{kind}-class": "nosuch"}
    with pytest.raises(InvalidArgument, match=r"nosuch.*this node has"):
        annotated(own, {})
    with pytest.raises(FailedPrecondition, match=f"{kind}_config_file"):
        annotated(own, {}, host())
    lenient = host(Policy(ignore_blockio_not_enabled=True, ignore_rdt_not_enabled=True))
    blocks, cache, built = annotated(own, {}, lenient)
    assert blocks is None and cache is None
    assert any("nosuch" in warning for warning in built.warnings)
