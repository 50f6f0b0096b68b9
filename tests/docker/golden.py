"""The recordings in tests/golden/docker: their CRI requests as messages, their Docker requests as JSON."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format

from podwright.engines.base import Container, ContainerFacts, Image, Sandbox, SandboxFacts
from podwright.engines.docker.features import Features
from podwright.engines.docker.objects import DOCKER_ID, nanoseconds
from podwright.wire import cri_pb2 as cri

CASES = Path(__file__).parent.parent / "golden" / "docker"
TABLE = Path(__file__).with_name("docker_differences.toml")

T = TypeVar("T")

OWNER = "/state"
SECONDS = 1_700_000_000
"""Since the epoch: what the recordings' times in numbers are counted from."""
SECCOMP = (
    b'{ "defaultAction": "SCMP_ACT_ALLOW",\n'
    b'  "syscalls": [{"names": ["chmod", "sethostname"], "action": "SCMP_ACT_ERRNO"}] }\n'
)
"""What ${VOLUMES}/seccomp.json held."""
PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nnobody:x:65534:\n"

FEATURES = Features(
    version="20.10.24",
    runtimes=("runc", "wrapped"),
    default_runtime="wrapped",
    apparmor=True,
    sandbox_image="registry.k8s.io/pause:3.10",
)
"""Those of the recordings' engine, but for AppArmor: what it answered to profiles shows as with it."""


def names(*patterns: str) -> list[str]:
    """The cases whose file matches one of `patterns`."""
    return sorted({path.stem for pattern in patterns for path in CASES.glob(f"{pattern}.json")})


def replays(*cases: str) -> Callable[[T], T]:
    """Marks a test as the replay of `cases`. A test with a parameter `name` needs no mark: its cases are the
    parameters."""

    def mark(test: T) -> T:
        test.replays = cases  # type: ignore[attr-defined]
        return test

    return mark


@cache
def case(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return loaded


def creation(name: str) -> dict[str, Any] | None:
    """The recorded create exchange, the first; None when Docker was not asked."""
    return next((each for each in case(name)["docker"] if "/containers/create" in each["path"]), None)


def sandbox_of(name: str, *, id: str = "s" * 64, docker_id: str = "${SANDBOX_ID}") -> Sandbox:
    request = case(name)["cri"]["request"]
    config = cri.PodSandboxConfig()
    recorded = request.get("sandbox_config") or request.get("config", {})
    json_format.ParseDict(_bytes(recorded), config)
    if name.startswith("create-"):
        # The recorded server reads no annotation; this one would select a profile that is not there.
        config.annotations.pop("container.seccomp.security.alpha.kubernetes.io/c", None)
    facts = SandboxFacts(own={DOCKER_ID: docker_id}) if docker_id else SandboxFacts()
    return Sandbox(id, "name", config, request.get("runtime_handler", ""), facts)


def container_of(name: str, *, id: str = "c" * 64, docker_id: str = "") -> Container:
    request = case(name)["cri"]["request"]
    config = cri.ContainerConfig()
    json_format.ParseDict(_bytes(request["config"]), config)
    sandbox = sandbox_of(name)
    if config.linux.security_context.privileged:
        # Whoever recorded this asked for no privileged pod.
        sandbox.config.linux.security_context.privileged = True
    log_path = f"{sandbox.config.log_directory}/{config.log_path}" if config.log_path else ""
    # Docker is given the name here, so that both requests show the same.
    image = Image(config.image.image, (), (), 1, {})
    facts = ContainerFacts(own={DOCKER_ID: docker_id} if docker_id else {})
    return Container(id, "name", sandbox, config, image, log_path, facts=facts)


def images() -> list[dict[str, Any]]:
    """Every image that was ever looked at, as an answer to a question for its id."""
    found = {}
    for name in names("image-status-*", "pull-*", "run-pod-image-*"):
        for each in case(name)["docker"]:
            answer = each.get("response")
            if each["path"].endswith("/json") and isinstance(answer, dict) and "RepoTags" in answer:
                found[answer["Id"]] = {**each, "path": f"/v1.41/images/{answer['Id']}/json"}
    return list(found.values())


def profile(path: str) -> bytes | None:
    return SECCOMP if path.endswith("/seccomp.json") else None


def pruned(body: Mapping[str, Any]) -> dict[str, Any]:
    """As the recordings are: without null, "", 0, false and {}."""
    made = {
        key: pruned(value) if isinstance(value, dict) and key != "ExposedPorts" else value
        for key, value in body.items()
    }
    return {key: value for key, value in made.items() if value == [] or value}


def members(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A create request by member: "sandbox.HostConfig.Memory" -> value. Podwright's own labels left out."""
    found = {f"{kind}.{key}": value for key, value in body.items() if key not in ("HostConfig", "Labels")}
    found |= {f"{kind}.HostConfig.{key}": value for key, value in body.get("HostConfig", {}).items()}
    labels = {
        key: value for key, value in body.get("Labels", {}).items() if not key.startswith("io.podwright.")
    }
    # In podwright's it is the CRI's id, in the recording Docker's: there they are the same.
    labels.pop("io.kubernetes.sandbox.id", None)
    found[f"{kind}.Labels"] = labels
    return found


def differing(ours: Mapping[str, Any], recorded: Mapping[str, Any]) -> set[str]:
    return {
        path
        for path in ours.keys() | recorded.keys()
        if _settled(path, ours.get(path)) != _settled(path, recorded.get(path))
    }


@cache
def table() -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = tomllib.loads(TABLE.read_text())
    return loaded


def filled(value: Any, tokens: Mapping[str, str]) -> Any:
    """A recording with `tokens` put in; a number's token becomes the number,
    a time's a time."""
    if isinstance(value, dict):
        return {key: filled(each, tokens) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, tokens) for each in value]
    if not isinstance(value, str):
        return value
    if value in ("${PID}", "${NUMBER}"):
        return int(tokens.get(value[2:-1], "7"))
    if moment := re.fullmatch(r"\$\{(?:[ST](\d+)|NOW):(s|ns)\}", value):
        seconds = SECONDS + int(moment.group(1) or 0)
        if value[2] == "T":
            return nanoseconds(_time(int(moment.group(1))))
        return seconds if moment.group(2) == "s" else seconds * 10**9
    return re.sub(r"\$\{([A-Z0-9_]+)(:[a-z0-9]+)?\}", _replaced(tokens), value)


def _time(number: int) -> str:
    return f"2024-05-06T07:08:{number:02}.123456789Z"


def _replaced(tokens: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def replace(found: re.Match[str]) -> str:
        if re.fullmatch(r"T\d+", found.group(1)) and found.group(2) is None:
            # Each a time of its own, and the same wherever it stands.
            return _time(int(found.group(1)[1:]))
        value = tokens.get(found.group(1), found.group(0))
        return value[:12] if found.group(2) == ":12" else value

    return replace


def _settled(path: str, value: Any) -> Any:
    # The order of options carries no meaning.
    return sorted(value) if path.endswith(".SecurityOpt") and value else value


def _bytes(value: Any) -> Any:
    """Recorded environment values are plain text; protobuf's JSON has bytes as base64."""
    import base64

    if isinstance(value, dict):
        return {
            key: [
                {**each, "value": base64.b64encode(each.get("value", "").encode()).decode()} for each in entry
            ]
            if key == "envs"
            else _bytes(entry)
            for key, entry in value.items()
        }
    return [_bytes(each) for each in value] if isinstance(value, list) else value
