"""`podwright run` and what looks at its pods, before a fake node's server."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from podwright.client import connect
from podwright.testing import FakeServer
from podwright.wire import cri_pb2 as cri
from tests.cli.fake_commands import PATIENCE, Commands, commands, pod, text_of


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    # A socket's address is short.
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, FakeServer(Path(directory)) as server:
        yield server


@pytest.fixture
def podwright(fake: FakeServer) -> Iterator[Commands]:
    with commands(fake) as made:
        yield made


READY = {"exec": {"command": ["true"]}, "periodSeconds": 1}
NEVER_READY = {"exec": {"command": ["sh", "-c", "echo not yet; false"]}, "periodSeconds": 1}


# Waiting


def test_waiting_returns_when_all_are_ready_and_others_see_the_same(podwright: Commands) -> None:
    job = pod("job", ["true"], policy="Never")
    web = pod("web", ["sleep", "600"], readinessProbe=READY)
    done = podwright("run", "-q", "--wait", "--timeout", "50s", "-f", "-", text=text_of(web, job))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and len(done.stdout.split()) == 6  # two pods, each with a container of a name
    shown = yaml.safe_load(podwright("describe", "web", "-o", "yaml").stdout)
    assert (shown["kind"], shown["status"]["phase"]) == ("Pod", "Running")
    assert {one["type"]: one["status"] for one in shown["status"]["conditions"]}["Ready"] == "True"
    rows = {line.split()[1]: line.split()[-3:] for line in podwright("pods").stdout.splitlines()}
    assert rows["NAME"] == ["PHASE", "READY", "RESTARTS"]
    assert rows["web"] == ["Running", "1/1", "0"] and rows["job"][0] == "Succeeded"


def test_who_waits_in_vain_hears_what_is_missing_and_the_pod_stays(podwright: Commands) -> None:
    sick = pod("sick", ["sleep", "600"], readinessProbe=NEVER_READY)
    lost = pod(
        "lost", ["true"], env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]
    )
    done = podwright("run", "-q", "--wait=ready", "--timeout=4", "-", text=text_of(sick, lost))
    assert done.returncode == 124
    assert "podwright: not ready after " in done.stderr
    assert 'lost is Pending: main: CreateContainerConfigError (secret "no" not found)' in done.stderr
    assert "sick is Running: main: Running" in done.stderr
    assert "Readiness probe failed: not yet" in done.stderr
    assert sorted(podwright.pods()) == ["lost", "sick"]
    told = json.loads(podwright("describe", "lost", "-o", "json").stdout)
    (main,) = told["status"]["containerStatuses"]
    assert main["state"]["waiting"]["reason"] == "CreateContainerConfigError"


def test_waiting_for_the_end_passes_its_status_on_and_removes_when_told(podwright: Commands) -> None:
    done = podwright(
        "run",
        "--wait=completed",
        "--rm",
        "-",
        text=text_of(pod("job", ["sh", "-c", "echo out; exit 3"], policy="Never")),
    )
    assert done.returncode == 3
    assert "| out" not in done.stdout + done.stderr
    assert podwright.pods() == []


def test_what_has_completed_stays_without_rm(podwright: Commands) -> None:
    done = podwright("run", "-q", "--wait=completed", "-", text=text_of(pod("job", ["true"], policy="Never")))
    assert done.returncode == 0, done.stderr
    assert podwright.pods() == ["job"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-d", "--rm"), "--rm: nobody is left to remove a detached pod"),
        (("--wait", "--rm"), "--rm: nobody is left to remove a detached pod"),
        (("--timeout", "3s"), "--timeout: is how long --wait takes"),
        (("--wait", "--timeout", "soon"), "--timeout soon: is no length of time"),
        (("--wait=done",), "'done' is not one of"),
        (("--volume", "data=/"), "--volume data: no Pod has such a volume or claim"),
        (("--volume", "data=/no/such"), "--volume data=/no/such: there is no /no/such"),
        (("--configmap", "c"), "--configmap c: is not NAME=FILE"),
        (("--secret", "c=/no/such"), "--secret c=/no/such: /no/such is neither a file nor a directory"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    podwright: Commands, options: tuple[str, ...], words: str
) -> None:
    done = podwright("run", *options, "-", text=text_of(pod("web", ["true"])))
    assert done.returncode in (1, 2) and words in done.stderr, done.stderr
    assert podwright.pods() == []


def test_something_must_be_given(podwright: Commands) -> None:
    done = podwright("run", "--wait")
    assert done.returncode == 2 and "what shall run?" in done.stderr


# What stands beside the manifests


def test_objects_and_volumes_of_options_reach_the_containers(podwright: Commands, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mode").write_text("fast")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_text("of the host")
    one = pod(
        "web", ["sh", "-c", "echo $MODE $PW $OTHER; cat /conf/mode /data/file"], policy="Never",
        env=[{"name": "PW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "pw"}}}],
        envFrom=[{"configMapRef": {"name": "more"}}],
        volumeMounts=[{"name": "conf", "mountPath": "/conf"}, {"name": "data", "mountPath": "/data"}],
    )  # fmt: skip
    one["spec"]["volumes"] = [
        {"name": "conf", "configMap": {"name": "app"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "big"}},
    ]
    weaker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}, "data": {"MODE": "file"}}
    done = podwright(
        "run", "-q", "-",
        *("--configmap", f"app={tmp_path}/conf", "--configmap", "more=MODE=option"),
        *("--configmap", "default/more=OTHER=too", "--secret", "db=pw=x=y"),
        *("--volume", f"big={tmp_path}/big"),
        text=text_of(weaker, one),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "main | option x=y too\nmain | fastof the host\n"


def test_a_directory_stands_for_its_manifests(podwright: Commands, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text_of(pod("a", ["echo", "1"], policy="Never")))
    (tmp_path / "b.json").write_text(json.dumps(pod("b", ["echo", "2"], policy="Never")))
    (tmp_path / "notes.txt").write_text("no manifest")
    done = podwright("run", "-q", tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["a/main | 1", "b/main | 2"]


# Plans


def secretive() -> str:
    one = pod(
        "web", ["sh", "-c", "echo $(PW)"],
        env=[
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "pw"}}},
            {"name": "URL", "value": "pg://u:$(PW)@h"},
        ],
    )  # fmt: skip
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db"},
        "stringData": {"pw": "hunter22"},
    }
    one["spec"]["containers"][0]["image"] = "planned:1"
    return text_of(one, secret)


def test_a_plan_changes_nothing_and_hides_secrets(podwright: Commands) -> None:
    done = podwright("run", "--dry-run", "-", text=secretive())
    assert done.returncode == 0, done.stderr
    headings = [line for line in done.stdout.splitlines() if line.startswith("# ") and line[2].isdigit()]
    assert [heading.split()[2] for heading in headings] == [
        "RunPodSandbox", "PullImage", "CreateContainer", "StartContainer",
    ]  # fmt: skip
    assert "hunter22" not in done.stdout and "pg://u:<secret db/pw>@h" in done.stdout
    assert 'uid: "POD_UID"' in done.stdout
    assert podwright.pods() == [] and not list((podwright.root / "pods").glob("*"))
    assert done.stdout == podwright("run", "--dry-run=text", "-", text=secretive()).stdout
    assert "hunter22" in podwright("run", "--dry-run", "--show-secrets", "-", text=secretive()).stdout


def test_a_plan_is_what_is_asked_for_then(podwright: Commands) -> None:
    text = text_of(pod("web", ["sleep", "600"]))
    planned = json.loads(podwright("run", "--dry-run=json", "-", text=text).stdout)
    by_name = yaml.safe_load(podwright("run", "--dry-run=yaml", "-", text=text).stdout)
    assert [one["call"] for one in planned] == [one["call"] for one in by_name]
    assert podwright("run", "-q", "-d", "-", text=text).returncode == 0
    (made,) = json.loads(podwright("ps", "-o", "json").stdout)["containers"]
    create = next(one for one in planned if one["call"] == "CreateContainer")
    uid = made["labels"]["io.kubernetes.pod.uid"]
    expected = json.loads(json.dumps(create["request"]["config"]).replace("POD_UID", uid))
    assert made["labels"] == expected["labels"] and made["annotations"] == expected["annotations"]
    assert made["metadata"]["name"] == expected["metadata"]["name"]


def test_a_plan_names_the_container_that_could_not_be_made(podwright: Commands) -> None:
    one = pod(
        "web", ["true"], env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]
    )
    done = podwright("run", "--dry-run", "-", text=text_of(one))
    assert done.returncode == 1 and done.stdout == ""
    assert (
        "Pod default/web: container 'main': CreateContainerConfigError: configmap \"no\" not found"
        in done.stderr
    )


# Records


def test_what_has_ended_since_nobody_kept_it_is_described_as_it_is(podwright: Commands) -> None:
    done = podwright("run", "-q", "-d", "-", text=text_of(pod("web", ["sleep", "600"])))
    assert done.returncode == 0, done.stderr
    assert podwright("stop", "-t", "0", "web/main").returncode == 0
    assert "ended" in podwright("pods").stdout
    text = podwright("describe", "web").stdout
    assert "State:          Terminated" in text and "Exit Code:    137" in text
    assert "Normal  Started" in text


async def test_a_pod_of_another_client_is_described_as_far_as_the_runtime_knows_it(
    podwright: Commands,
) -> None:
    metadata = cri.PodSandboxMetadata(name="foreign", namespace="other", uid="77", attempt=0)
    config = cri.PodSandboxConfig(metadata=metadata, labels={"app": "x"}, hostname="foreign")
    async with connect(str(podwright.server.socket)) as runtime:
        sandbox = (await runtime.run_pod_sandbox(cri.RunPodSandboxRequest(config=config))).pod_sandbox_id
        image = cri.ImageSpec(image="app:1")
        await runtime.pull_image(cri.PullImageRequest(image=image))
        wanted = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"), image=image, command=["sleep", "600"],
            mounts=[cri.Mount(container_path="/data", host_path="/srv", readonly=True)],
        )  # fmt: skip
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=wanted, sandbox_config=config)
        container = (await runtime.create_container(request)).container_id
        await runtime.start_container(cri.StartContainerRequest(container_id=container))
    text = podwright("describe", "other/foreign").stdout
    assert "app=x" in text and "State:          Running" in text and "/data from /srv (ro)" in text
    assert "only of pods that podwright runs" in text
    tree = json.loads(podwright("describe", sandbox[:12], "-o", "json").stdout)
    assert tree["metadata"]["uid"] == "77" and tree["status"]["phase"] == "Running"
    assert tree["spec"]["containers"] == [{"name": "main", "image": "docker.io/library/app:1"}]


def test_a_pod_that_is_not_there_is_said_to_be_so(podwright: Commands) -> None:
    done = podwright("describe", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no pod has the id or name 'nobody'" in done.stderr


def test_events_of_all_pods_and_of_one(podwright: Commands) -> None:
    two = text_of(pod("one", ["sleep", "600"]), pod("two", ["sleep", "600"]))
    assert podwright("run", "-q", "-d", "-", text=two).returncode == 0
    told = json.loads(podwright("events", "-o", "json").stdout)
    assert {one["pod"] for one in told} == {"one", "two"}
    assert [one["last"] for one in told] == sorted(one["last"] for one in told)
    only = podwright("events", "two").stdout
    assert "two/main" in only and "one/main" not in only and "Container started" in only
    assert podwright("events", "--since", "2200-01-01T00:00:00Z").stdout.splitlines() == [
        "AGE   TYPE   REASON   OBJECT   MESSAGE"
    ]


def test_events_are_followed_into_pods_to_come(podwright: Commands) -> None:
    following = subprocess.Popen(
        [*podwright.prefix, "events", "--follow", "-o", "json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert podwright("run", "-q", "-d", "-", text=text_of(pod("web", ["sleep", "600"]))).returncode == 0
        assert following.stdout is not None
        reasons = []
        while "Started" not in reasons:
            one = json.loads(following.stdout.readline())
            assert one["pod"] == "web"
            reasons.append(one["reason"])
        assert len(set(reasons)) == len(reasons)
    finally:
        following.terminate()
        following.communicate(timeout=PATIENCE)


def test_a_pod_that_never_got_a_sandbox_is_listed_and_removed(podwright: Commands) -> None:
    one = pod("nocm", ["true"], volumeMounts=[{"name": "c", "mountPath": "/c"}])
    one["spec"]["volumes"] = [{"name": "c", "configMap": {"name": "gone"}}]
    done = podwright("run", "-q", "--wait", "--timeout", "3", "-", text=text_of(one))
    assert done.returncode == 124 and 'configmap "gone" not found' in done.stderr
    assert podwright.pods() == []
    assert podwright("pods").stdout.splitlines()[1].split()[1] == "nocm"
    assert "FailedMount" in podwright("describe", "nocm").stdout
    removed = podwright("rm", "nocm")
    assert removed.returncode == 0, removed.stderr


def test_without_a_terminal_what_happens_is_told_in_lines(podwright: Commands) -> None:
    begun = time.monotonic()
    done = podwright("run", "-", text=text_of(pod("web", ["sh", "-c", "echo hi; exit 3"], policy="Never")))
    assert done.returncode == 3 and time.monotonic() - begun < PATIENCE
    assert done.stdout == "main | hi\n"
    assert "podwright: main: Container started\n" in done.stderr
    assert "\x1b" not in done.stderr and "──" not in done.stderr
    assert "main        3           Error" in done.stderr
