"""`podwright describe`: what stands where, and what is not told."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from podwright.cli import describe_text
from podwright.cli.describe import Described
from podwright.kube.life.events import Event, rfc3339
from podwright.kube.manifests import manifest
from podwright.kube.models import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStatus,
    PodCondition,
    PodIP,
    PodStatus,
)
from podwright.kube.state.pod_state import Seen

BEGUN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TEXT = textwrap.dedent("""\
    apiVersion: v1
    kind: Secret
    metadata: {name: db}
    stringData: {password: hunter22}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: web, namespace: default, uid: 11-22, labels: {app: web, tier: front}}
    spec:
      initContainers:
      - {name: setup, image: "busybox:1", command: [sh, -c, "one\\ntwo"]}
      containers:
      - name: main
        image: app:1
        args: [serve]
        ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP, hostPort: 5353}]
        resources: {limits: {cpu: 500m, memory: 1Gi}}
        livenessProbe: {httpGet: {path: /live, port: http}, periodSeconds: 7}
        readinessProbe: {exec: {command: [cat, /ready]}}
        startupProbe: {grpc: {port: 9000, service: up}}
        envFrom: [{secretRef: {name: db}, prefix: X_}]
        env:
        - {name: PLAIN, value: "a=b"}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
        volumeMounts:
        - {name: data, mountPath: /data, subPath: web}
        - {name: conf, mountPath: /conf, readOnly: true}
      volumes:
      - {name: data, emptyDir: {medium: Memory, sizeLimit: 10Mi}}
      - {name: conf, secret: {secretName: db}}
    """)


def described(*events: Event, note: str = "") -> Described:
    (one,) = manifest.parse(TEXT)
    pod = one.pod
    done = ContainerStateTerminated(
        exitCode=3, reason="Error", message="no\nluck", startedAt=BEGUN, finishedAt=BEGUN
    )
    main = ContainerStatus(
        name="main", image="app:1", imageID="sha256:ab", containerID="podwright://c0ffee", ready=False,
        restartCount=2, state=ContainerState(running=ContainerStateRunning(startedAt=BEGUN)),
        lastState=ContainerState(terminated=done),
    )  # fmt: skip
    pod.status = PodStatus(
        phase="Running", qosClass="Burstable", startTime=BEGUN, hostIP="192.0.2.1",
        podIPs=[PodIP(ip="10.0.0.2"), PodIP(ip="fd00::2")],
        conditions=[
            PodCondition(type="Ready", status="False", reason="ContainersNotReady", message="main is not"),
            PodCondition(type="Initialized", status="True", lastTransitionTime=BEGUN),
        ],
        containerStatuses=[main],
    )  # fmt: skip
    return Described(pod, events, "node-1", True, Seen(), note)


def block(lines: Sequence[str], heading: str) -> list[str]:
    """The lines that stand below one, indented more."""
    at = next(index for index, line in enumerate(lines) if line.strip() == heading)
    margin = len(lines[at]) - len(lines[at].lstrip())
    below = []
    for line in lines[at + 1 :]:
        if len(line) - len(line.lstrip()) <= margin:
            break
        below.append(line.strip())
    return below


@pytest.fixture
def lines() -> list[str]:
    return list(describe_text.lines(described()))


def test_the_head_names_the_pod_and_where_it_is(lines: list[str]) -> None:
    head = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines if line[0] != " "}
    assert head["Name"] == "web" and head["UID"] == "11-22" and head["Status"] == "Running"
    assert head["Node"] == "node-1/192.0.2.1"
    assert head["IP"] == "10.0.0.2, fd00::2"
    assert head["QoS Class"] == "Burstable"
    at = next(index for index, line in enumerate(lines) if line.startswith("Labels:"))
    assert [line.split()[-1] for line in lines[at : at + 2]] == ["app=web", "tier=front"]


def test_a_container_has_its_state_the_one_before_and_what_it_was_told(lines: list[str]) -> None:
    main = block(lines, "main:")
    told = {line.partition(":")[0]: line.partition(":")[2].strip() for line in main}
    assert told["Container ID"] == "podwright://c0ffee"
    assert told["Ports"] == "80/TCP (http), 53/UDP at :5353 of the host"
    assert told["State"] == "Running" and told["Last State"] == "Terminated"
    assert told["Reason"] == "Error" and told["Exit Code"] == "3" and told["Restart Count"] == "2"
    message = next(index for index, line in enumerate(main) if line.startswith("Message:"))
    assert main[message].endswith(" no") and main[message + 1] == "luck"
    assert told["Limits"] == "cpu: 500m, memory: 1Gi"
    assert (
        told["Liveness"] == "http-get http://:http/live delay=0s timeout=1s period=7s #success=1 #failure=3"
    )
    assert told["Readiness"].startswith("exec [cat /ready] ") and told["Startup"].startswith(
        "grpc <pod>:9000 up "
    )


def test_mounts_and_volumes(lines: list[str]) -> None:
    text = "\n".join(block(lines, "main:"))
    assert '/data from data (rw,path="web")\n/conf from conf (ro)' in text
    assert block(lines, "conf:") == [
        "Type:         Secret (files of a Secret)",
        "Secret Name:  db",
        "Optional:     False",
    ]
    assert "Medium:      Memory" in block(lines, "data:") and "Size Limit:  10Mi" in block(lines, "data:")


def test_no_value_of_a_secret_is_told(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert "hunter22" not in text
    variables = block(lines, "Environment:")
    assert variables == [
        "PLAIN:     a=b",
        "PASSWORD:  <set to the key 'password' of secret 'db'>  Optional: False",
        "NODE:      (v1:spec.nodeName)",
        "LIMIT:     (limits.cpu of itself)",
    ]
    assert "Environment Variables from: db  Secret with prefix 'X_'  Optional: False" in text


def test_conditions_come_in_the_order_of_a_start(lines: list[str]) -> None:
    rows = [line.split() for line in block(lines, "Conditions:")]
    assert [row[:2] for row in rows] == [["Type", "Status"], ["Initialized", "True"], ["Ready", "False"]]
    assert rows[2][-4:] == ["ContainersNotReady:", "main", "is", "not"]


def test_a_container_that_was_never_made_waits(lines: list[str]) -> None:
    setup = block(lines, "setup:")
    assert "State: Waiting" in [" ".join(line.split()) for line in setup]
    at = next(index for index, line in enumerate(setup) if line.startswith("Command:"))
    assert setup[at].endswith(" sh") and setup[at + 1 : at + 4] == ["-c", "one", "two"]


def test_events_have_age_count_and_who() -> None:
    now = int(datetime.now(UTC).timestamp()) * 10**9
    first, last = rfc3339(now - 600 * 10**9), rfc3339(now - 5 * 10**9)
    text = list(
        describe_text.lines(
            described(
                Event(
                    "Warning", "BackOff", "spec.containers{main}", "Back-off\n  restarting", 9, first, last
                ),
                Event("Normal", "Scheduled", "", "here", 1, first, first),
            )
        )
    )
    rows = [line.strip() for line in text[text.index("Events:") + 1 :]]
    assert rows[1].split() == ["Normal", "Scheduled", "10m", "pod", "here"]
    assert rows[2].startswith("Warning  BackOff") and rows[2].endswith("main  Back-off restarting")
    assert "(x9 over 10m)" in rows[2]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_events_fold_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    now = rfc3339(int(datetime.now(UTC).timestamp()) * 10**9)
    words = " ".join(f"word{index}" for index in range(40))
    event = Event("Warning", "Failed", "spec.containers{main}", words, 1, now, now)
    text = list(describe_text.lines(described(event), terminal=True))
    below = text[text.index("Events:") + 1 :]
    assert len(below) > 2
    for line in below:
        assert len(line.replace("\x1b[33m", "").replace("\x1b[0m", "")) <= width
    assert " ".join(" ".join(below).replace("\x1b[0m", "").split()).endswith(words)


def test_why_it_may_not_be_the_truth_comes_first() -> None:
    text = list(describe_text.lines(described(note="the runtime cannot be asked")))
    assert text[0] == "Note: the runtime cannot be asked"
