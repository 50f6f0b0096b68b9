"""Writes docs/differences.md: where podwright's specs are not containerd's, and why.

The sources are tests/spec/golden_differences.toml, which the recorded cases hold to the truth (a difference
that is not in it fails, and so does one that has gone), tests/kube/pod_differences.toml and, held to the
truth the same way, tests/docker/docker_differences.toml. Run it after one has changed; a test compares.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
PODS = HERE / "tests" / "kube" / "pod_differences.toml"
DOCKER = HERE / "tests" / "docker" / "docker_differences.toml"
TABLE = HERE / "tests" / "spec" / "golden_differences.toml"
PAGE = HERE / "docs" / "differences.md"

HEAD = """\
# Where specs differ from containerd's

podwright builds the OCI runtime spec that containerd builds from the same CRI request, image and host. Some
hundred recorded cases (`tests/golden/spec`) are compared field by field; this page names every place where
the outcome differs on purpose. It is written by `tools/spec_differences.py` from
`tests/spec/golden_differences.toml`; change that file, not this one.

Two things are not compared, because no rule of a spec makes them: `linux.cgroupsPath` comes from the cgroup
driver (the scope's prefix is `podwright`), and the content of RuntimeDefault is containers-common's profile
(`seccomp_profile` of the configuration).

Requests that containerd refuses are refused. It answers Unknown to almost all of them, because its errors
carry no code; podwright says which kind it is, so that a client can tell a bad request (InvalidArgument, the
field's path in front) from a state or a host that does not allow it (FailedPrecondition). Where containerd
has a code, NotFound for absent images and target containers, it is the same.

## Other outcomes

| where | why | seen in |
|---|---|---|
"""
UNSEEN = """
## What no recorded case shows

| what | test in `tests/spec` |
|---|---|
"""
ELSEWHERE = """
## Decided elsewhere

These cases end in an error that is not the spec builder's.

| cases | who decides |
|---|---|
"""


OF_PODS = """
## Pods

What `podwright run` does with a Pod that a kubelet does otherwise. Recordings of a kubelet 1.36
(`tests/golden/kubelet`) are compared call by call, status by status; this table is written from
`tests/kube/pod_differences.toml`.

| what | a kubelet | podwright | why |
|---|---|---|---|
"""

OF_DOCKER = """
## Docker

What the docker engine asks of Docker that a CRI server of the dockershim kind (cri-dockerd on Docker Engine
20.10) does not. Its recorded requests (`tests/golden/docker`) are compared field by field; this section is
written from `tests/docker/docker_differences.toml`.

| create request | why | seen in |
|---|---|---|
"""
OF_DOCKER_SESSIONS = """
| request of exec or attach | why | seen in |
|---|---|---|
"""
OF_DOCKER_ANSWERS = """
| answer to the client | why | seen in |
|---|---|---|
"""
OF_DOCKER_CALLS = """
| what else | recorded | podwright | why |
|---|---|---|---|
"""


def page() -> str:
    table: dict[str, list[dict[str, Any]]] = tomllib.loads(TABLE.read_text())
    rows = [_row(entry) for entry in table["intended"]]
    elsewhere = [f"| {_cases(entry['cases'])} | {entry['reason']} |" for entry in table["elsewhere"]]
    unseen = [f"| {entry['reason']} | {_cases(entry['tests'])} |" for entry in table["unseen"]]
    pods = [
        f"| {one['what']} | {one['kubelet']} | {one['podwright']} | {one['why']} |"
        for one in tomllib.loads(PODS.read_text())["pods"]
    ]
    of_docker = tomllib.loads(DOCKER.read_text())
    requests = [_row(entry) for entry in of_docker["requests"]]
    requests += [
        f"| the request | {entry['reason']} | {_cases(entry['cases'])} |" for entry in of_docker["refused"]
    ]
    sessions = [_row(entry) for entry in of_docker["sessions"]]
    answers = [_row(entry) for entry in of_docker["answers"]]
    answers += [
        f"| the answer | {entry['reason']} | {_cases(entry['cases'])} |" for entry in of_docker["more"]
    ]
    calls = [
        f"| {one['what']} | {one['recorded']} | {one['podwright']} | {one['why']} |"
        for one in of_docker["calls"]
    ]
    parts = (
        (HEAD, rows),
        (UNSEEN, unseen),
        (ELSEWHERE, elsewhere),
        (OF_PODS, pods),
        (OF_DOCKER, requests),
        (OF_DOCKER_SESSIONS, sessions),
        (OF_DOCKER_ANSWERS, answers),
        (OF_DOCKER_CALLS, calls),
    )
    return "".join(head + "\n".join(lines) + "\n" for head, lines in parts)


def _row(entry: dict[str, Any]) -> str:
    places = "<br>".join(f"`{path}`" for path in _short(entry["paths"]))
    return f"| {places} | {entry['reason']} | {_cases(entry['cases'])} |"


def _short(paths: list[str]) -> list[str]:
    """Members that differ together stand in one place: "process.capabilities.*"."""
    if len(paths) > 2 and len({path.rpartition(".")[0] for path in paths if "capabilities" in path}) == 1:
        shared = next(path.rpartition(".")[0] for path in paths if "capabilities" in path)
        return [f"{shared}.*", *(path for path in paths if not path.startswith(f"{shared}."))]
    return paths


def _cases(cases: list[str]) -> str:
    return "every pod" if cases == ["*"] else ", ".join(f"`{case}`" for case in cases)


if __name__ == "__main__":
    PAGE.write_text(page())
