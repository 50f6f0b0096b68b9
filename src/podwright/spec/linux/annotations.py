"""Annotations for the OCI runtime: who this is, and those of the request that the handler lets through.

The fixed names are containerd's; sandboxed runtimes and node agents look for them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.wire import cri_pb2 as cri

_PREFIX = "io.kubernetes.cri."


def container_annotations(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    config, handler = request.config, request.handler
    _pass(draft, request.sandbox.annotations, handler.pod_annotations, "sandbox annotations")
    _pass(draft, config.annotations, handler.container_annotations, "config.annotations")
    fixed = {
        "container-name": config.metadata.name,
        "image-name": config.image.user_specified_image or config.image.image,
        **_sandbox(request.sandbox, request.sandbox_id),
    }
    if handler.type_annotations:
        fixed["container-type"] = "container"
    else:
        del fixed["sandbox-id"]
    _fix(draft, fixed)


def pause_annotations(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    config = request.config
    _pass(draft, config.annotations, request.handler.pod_annotations, "config.annotations")
    fixed = {
        "container-type": "sandbox",
        "sandbox-log-directory": config.log_directory,
        **_sandbox(config, request.id),
    }
    if config.linux.HasField("resources"):
        limits = config.linux.resources
        fixed["sandbox-cpu-period"] = str(limits.cpu_period)
        fixed["sandbox-cpu-quota"] = str(limits.cpu_quota)
        fixed["sandbox-cpu-shares"] = str(limits.cpu_shares)
        fixed["sandbox-memory"] = str(limits.memory_limit_in_bytes)
    _fix(draft, fixed)


def _sandbox(config: cri.PodSandboxConfig, sandbox_id: str) -> dict[str, str]:
    return {
        "sandbox-id": sandbox_id,
        "sandbox-name": config.metadata.name,
        "sandbox-namespace": config.metadata.namespace,
        "sandbox-uid": config.metadata.uid,
    }


def _fix(draft: Draft, fixed: Mapping[str, str]) -> None:
    for name, value in fixed.items():
        draft.annotations[_PREFIX + name] = value
        draft.note(f"annotations[{_PREFIX}{name}]", "rule: names the container for runtimes and agents")


def _pass(draft: Draft, given: Mapping[str, str], patterns: Sequence[str], field: str) -> None:
    if not patterns or not given:
        return
    allowed = _matcher(tuple(patterns))
    for name, value in given.items():
        if allowed.fullmatch(name):
            draft.annotations[name] = value
            draft.note(f"annotations[{name}]", f"request: {field}[{name}], allowed by the handler")


@functools.lru_cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Shell patterns, but neither `*` nor `?` matches a `/`."""
    return re.compile("|".join(_regex(pattern) for pattern in patterns), re.DOTALL)


def _regex(pattern: str) -> str:
    pieces = []
    place = 0
    while place < len(pattern):
        sign = pattern[place]
        place += 1
        if sign == "*":
            pieces.append("[^/]*")
        elif sign == "?":
            pieces.append("[^/]")
        elif sign == "[" and (end := pattern.find("]", place + 1)) != -1:
            inside = pattern[place:end].replace("\\", "\\\\").replace("[", "\\[")
            pieces.append(f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]")
            place = end + 1
        else:
            pieces.append(re.escape(sign))
    return "".join(pieces)
