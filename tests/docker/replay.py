"""A whole podwright over a Docker Engine that answers as recorded: its records are those of the pods and
containers that the recording shows, as a podwright before it would have left them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from podwright.config import CniConfig, Config, DockerConfig
from podwright.core.record import ContainerRecord, SandboxRecord
from podwright.core.records import Records
from podwright.core.runtime import Runtime
from podwright.core.states import ContainerState, SandboxState
from podwright.engines.base import ContainerFacts, Image, SandboxFacts
from podwright.engines.docker import labels
from podwright.engines.docker.engine import DockerEngine
from podwright.engines.docker.objects import DOCKER_ID, NEVER, nanoseconds
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.docker.double import Double, double

Tree = dict[str, Any]

POD_IP = "10.1.2.3"
_PROPAGATIONS = {
    "rshared": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
    "rslave": cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
}


@dataclass
class Replay:
    case: Tree
    """The recording, its tokens filled in."""
    docker: Double
    runtime: Runtime
    engine: DockerEngine
    opening: list[str]
    """What was asked of Docker before the first call."""

    @property
    def asked(self) -> Tree:
        request: Tree = self.case["cri"]["request"]
        return request

    @property
    def lines(self) -> list[str]:
        """What was asked of Docker to change something."""
        return [each.line for each in self.docker.changes]

    def end(self, id: str, code: int) -> None:
        """Docker tells that the container `id` has ended."""
        state = self.docker.there[id]["State"]
        state |= {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": code}
        state["FinishedAt"] = "2024-05-06T07:08:09.5Z"
        attributes = {labels.ID: id, labels.TYPE: labels.CONTAINER, "exitCode": str(code)}
        event = {"Actor": {"ID": id, "Attributes": attributes}, "timeNano": 1_714_979_289_500_000_000}
        self.docker.events.put_nowait(event)


def filled(name: str, root: Path) -> Tree:
    """The recording `name`: its ids are its own, so that those of two do not meet."""
    text = (golden.CASES / f"{name}.json").read_text()
    tokens = {
        token: hashlib.sha256(f"{name} {token}".encode()).hexdigest()
        for token in set(re.findall(r"\$\{((?:[A-Z]+_)?ID(?:_\d+)?)[:}]", text))
    }
    tokens |= {
        "PID": str(os.getpid()),
        "POD_IP": POD_IP,
        "DOCKER_ROOT": str(root),
        "LOG_DIR": str(root / "logs"),
        "VOLUMES": str(root / "volumes"),
        "NUMBER": "7",
    }
    case: Tree = golden.filled(json.loads(text), tokens)
    return case


@asynccontextmanager
async def replayed(
    name: str,
    root: Path,
    *,
    beside: Sequence[str] = (),
    more: Sequence[Tree] = (),
    state: str = "",
    handed_over: bool = True,
) -> AsyncIterator[Replay]:
    """A podwright that has recovered.

    `beside`: recordings whose pods and containers there are, too. `more`: exchanges of the test's own.
    `state`: what the request names is there although the recording does not show it, "running", "exited" or
    "created".
    Without `handed_over`, connections that were given over stay open.
    """
    case = filled(name, root)
    for exchange in case["docker"]:
        exchange["stays"] = not handed_over
    conf = root / "net.d"
    conf.mkdir()
    network = {"cniVersion": "1.0.0", "name": "recorded", "plugins": [{"type": "bridge"}]}
    (conf / "10-recorded.conflist").write_text(json.dumps(network))
    async with double(root, [*case["docker"], *more]) as served:
        config = Config(
            engine="docker",
            root=str(root / "root"),
            run=str(root / "run"),
            cgroup_parent=f"/nothing-{os.getpid()}",
            cni=CniConfig(conf_dir=str(conf)),
            docker=DockerConfig(endpoint=served.endpoint, sandbox_image=golden.FEATURES.sandbox_image),
        )
        database = Database.open(root / "state.db", lasting=False)
        known: dict[str, Tree] = {}
        for each in [*(filled(other, root) for other in beside), case]:
            known |= {entry["Name"]: entry for entry in seen(each)}
        if state:
            entry = _named(case, state)
            known.setdefault(entry["Name"], entry)
        served.there = {entry["Id"]: entry for entry in known.values()}
        remember(database, known.values(), gone(case, known.values()))
        engine = DockerEngine(config)
        runtime = Runtime(config, engine, database)
        await engine.open()
        await runtime.open()
        opening = [each.line for each in served.log]
        served.log.clear()
        try:
            yield Replay(case, served, runtime, engine, opening)
        finally:
            await runtime.close()
            await engine.close()
            database.close()


def seen(case: Tree) -> list[Tree]:
    """What a recording shows of containers, each as GET /containers/ID/json answers."""
    found = []
    for exchange in case["docker"]:
        answer = exchange["response"]
        if exchange["path"].partition("?")[0].endswith("/containers/json"):
            found += [_inspected(each) for each in answer or ()]
        elif isinstance(answer, dict) and "/containers/" in exchange["path"] and "State" in answer:
            found.append(answer)
    return found


def _named(case: Tree, state: str) -> Tree:
    """The container, or the pod, that the recorded request names."""
    request = case["cri"]["request"]
    pod, container = request.get("pod_sandbox_id", ""), request.get("container_id", "")
    return _inspected(
        {
            "Id": container or pod,
            "Names": ["/k8s_c_made_up_uid_0" if container else "/k8s_POD_made_up_uid_0"],
            "Image": "made-up",
            "ImageID": "sha256:" + "0" * 64,
            "Created": golden.SECONDS,
            "Labels": {labels.TYPE: labels.CONTAINER, labels.SANDBOX_ID: "f" * 64}
            if container
            else {labels.TYPE: labels.SANDBOX},
            "State": state,
            "Status": "Exited (0) now" if state == "exited" else state,
            "HostConfig": {"NetworkMode": "none"},
        }
    )


def gone(case: Tree, there: Iterable[Tree]) -> list[Tree]:
    """Pods that are listed, and Docker has none of them."""
    known = {entry["Id"] for entry in there}
    items = case["cri"].get("response", {}).get("items", ())
    return [
        {
            "Id": each["id"],
            "Name": "_".join(
                ("/k8s_POD", *(each["metadata"].get(key, "") for key in ("name", "namespace", "uid")), "0")
            ),
            "Created": int(each.get("created_at", 0)) // 10**9,
        }
        for each in items
        if each["id"] not in known
    ]


def remember(database: Database, entries: Iterable[Tree], lost: Iterable[Tree] = ()) -> None:
    """Write their records, as they were when nothing had ended yet. `lost`: pods that Docker has not."""
    records = Records(database)
    records.load()
    pods: dict[str, SandboxRecord] = {}
    for each in lost:
        pods[each["Id"]] = _pod(each)
        records.add_sandbox(pods[each["Id"]])
        records.save(pods[each["Id"]])
    # Pods first: a container needs its own.
    for entry in sorted(entries, key=lambda each: _kind(each) != labels.SANDBOX):
        if _kind(entry) == labels.SANDBOX:
            pods[entry["Id"]] = _pod(entry)
            records.add_sandbox(pods[entry["Id"]])
            records.save(pods[entry["Id"]])
            continue
        id = entry["Config"]["Labels"][labels.SANDBOX_ID]
        if id not in pods:
            pods[id] = _pod({"Id": id, "Name": _pods_name(entry["Name"]), "Created": entry["Created"]})
            records.add_sandbox(pods[id])
            records.save(pods[id])
        record = _container(entry, pods[id])
        records.add_container(record)
        records.save(record)


def _kind(entry: Tree) -> str:
    return str(entry["Config"]["Labels"][labels.TYPE])


def _pods_name(container: str) -> str:
    prefix, _, *rest = container.split("_")
    return "_".join((prefix, "POD", *rest))


def _pod(entry: Tree) -> SandboxRecord:
    _, _, name, namespace, uid, attempt = entry["Name"].split("_")
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, namespace=namespace, uid=uid, attempt=int(attempt))
    )
    outer = labels.outer(entry.get("Config", {}).get("Labels", {}))
    config.labels.update(outer[0])
    config.annotations.update(outer[1])
    options = config.linux.security_context.namespace_options
    host = entry.get("HostConfig", {})
    options.network = cri.NamespaceMode.NODE if host.get("NetworkMode") == "host" else cri.NamespaceMode.POD
    options.pid = cri.NamespaceMode.NODE if host.get("PidMode") == "host" else cri.NamespaceMode.CONTAINER
    options.ipc = cri.NamespaceMode.NODE if host.get("IpcMode") == "host" else cri.NamespaceMode.POD
    return SandboxRecord(
        entry["Id"],
        # Of two recordings' the same pod has two ids.
        f"{entry['Name']} {entry['Id']}",
        "",
        config.SerializeToString(),
        SandboxState.READY,
        _moment(entry["Created"]),
        SandboxFacts(
            ips=() if options.network == cri.NamespaceMode.NODE else (POD_IP,),
            pid=os.getpid(),
            own={DOCKER_ID: entry["Id"]},
        ),
    )


def _container(entry: Tree, pod: SandboxRecord) -> ContainerRecord:
    _, name, _, _, _, attempt = entry["Name"].split("_")
    inside = entry["Config"]
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name=name, attempt=int(attempt)))
    config.image.image = inside["Image"]
    config.tty, config.stdin = bool(inside.get("Tty")), bool(inside.get("OpenStdin"))
    config.stdin_once = bool(inside.get("StdinOnce"))
    for each in entry["Mounts"]:
        mount = config.mounts.add(host_path=each["Source"], container_path=each["Destination"])
        mount.readonly = not each["RW"]
        mount.propagation = _PROPAGATIONS.get(each["Propagation"], cri.MountPropagation.PROPAGATION_PRIVATE)
    outer = labels.outer(inside["Labels"])
    config.labels.update(outer[0])
    config.annotations.update(outer[1])
    state = entry["State"]
    began = bool(state["Running"]) or _moment(state["FinishedAt"]) != NEVER or bool(state["ExitCode"])
    return ContainerRecord(
        id=entry["Id"],
        name=f"{entry['Name']} {entry['Id']}",
        sandbox=pod,
        config_wire=config.SerializeToString(),
        image=Image(entry["Image"], (), (), 1, {}),
        log_path="",
        stop_signal="SIGTERM",
        state=ContainerState.RUNNING if began else ContainerState.CREATED,
        created_at=_moment(entry["Created"]),
        started_at=_moment(state["StartedAt"]) if began else 0,
        facts=ContainerFacts(int(state["Pid"]), own={DOCKER_ID: entry["Id"]}),
    )


def _inspected(entry: Tree) -> Tree:
    """A list's entry as an answer to a question for it alone. The code is in its text."""
    running = entry["State"] == "running"
    code = re.match(r"Exited \((\d+)\)", entry["Status"])
    return {
        "Id": entry["Id"],
        "Name": entry["Names"][0],
        "Created": entry["Created"],
        "Image": entry["ImageID"],
        "Config": {"Image": entry["Image"], "Labels": entry["Labels"]},
        "HostConfig": {"LogConfig": {"Type": "json-file"}, **entry["HostConfig"]},
        "State": {
            "Status": entry["State"],
            "Running": running,
            "Pid": os.getpid() if running else 0,
            "ExitCode": int(code.group(1)) if code else 0,
            "StartedAt": "2024-05-06T07:08:09Z" if entry["State"] != "created" else "0001-01-01T00:00:00Z",
            "FinishedAt": "2024-05-06T07:09:09Z" if code else "0001-01-01T00:00:00Z",
        },
        "Mounts": [],
    }


def _moment(told: str | int) -> int:
    """Nanoseconds: lists count in seconds."""
    return told * 10**9 if isinstance(told, int) else nanoseconds(told)


def members(message: Any, prefix: str = "") -> dict[str, Any]:
    """A message or a tree of JSON by path; of lists of things with ids the order carries no meaning."""
    if not isinstance(message, Mapping | list):
        return {prefix: message}
    found: dict[str, Any] = {}
    if isinstance(message, list):
        for place, each in enumerate(sorted(message, key=_id)):
            found |= members(each, f"{prefix}[{place}]")
        return found
    for key, value in message.items():
        found |= members(value, f"{prefix}.{key}" if prefix else key)
    return found


def _id(each: Any) -> str:
    if not isinstance(each, Mapping):
        return str(each)
    return str(each.get("id") or each.get("attributes", {}).get("id") or each.get("name", ""))


def tree(message: Any) -> Tree:
    """With the field names of the recordings, 64-bit numbers as numbers."""
    made: Tree = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return made
