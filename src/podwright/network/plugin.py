"""One call of one CNI plugin: environment, standard input, and its answer or its error in clear words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from podwright.errors import DeadlineExceeded, FailedPrecondition, PodwrightError
from podwright.linux import spawn
from podwright.steps import step

TIMEOUT = 220.0
"""Seconds a plugin may take; the kubelet waits 240 for a sandbox."""

IFNAME = "eth0"
"""The interface that pods are promised."""

TRY_AGAIN = 11
"""The specification's code for a passing condition."""

GO_ENVIRONMENT = {"GOMAXPROCS": "1"}
"""Plugins are Go programs that live for milliseconds: threads for their collector cost a tenth of a DEL's
CPU time and save nothing."""

_QUOTED = 400


class PluginFailed(PodwrightError):
    """A CNI plugin answered with an error."""

    def __init__(self, plugin: str, command: str, code: int, message: str, details: str = "") -> None:
        words = f"{message} ({details})" if details else message
        number = f"error {code}: " if code else ""
        super().__init__(f"CNI plugin {plugin} failed at {command}: {number}{words}")
        self.plugin = plugin
        self.code = code


def find(type: str, bin_dirs: Sequence[Path]) -> Path:
    """The program of a plugin. Raises FailedPrecondition that names the directories."""
    for directory in bin_dirs:
        program = directory / type
        if os.access(program, os.X_OK) and not program.is_dir():
            return program
    where = ", ".join(map(str, bin_dirs))
    raise FailedPrecondition(f"CNI plugin {type!r} is in none of {where}: install the CNI plugins")


async def call(
    type: str,
    command: str,
    config: Mapping[str, Any],
    *,
    bin_dirs: Sequence[Path],
    container_id: str = "",
    netns: str = "",
    args: str = "",
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """Run plugin `type`; returns what it printed, {} when that is nothing.

    Raises PluginFailed with the plugin's own error, FailedPrecondition when it is not installed,
    DeadlineExceeded after `timeout` seconds.
    """
    program = find(type, bin_dirs)
    environment = {
        **os.environ,
        **GO_ENVIRONMENT,
        "CNI_COMMAND": command,
        "CNI_PATH": ":".join(map(str, bin_dirs)),
    }
    if container_id:
        environment |= {
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": IFNAME,
            "CNI_ARGS": args,
        }
    try:
        with step("cni plugin", f"{type} {command}"):
            done = await spawn.run(
                [str(program)], input=msgspec.json.encode(config), env=environment, timeout=timeout
            )
    except DeadlineExceeded:
        raise DeadlineExceeded(f"CNI plugin {type} did not finish {command} within {timeout:g} s") from None
    except OSError as error:
        raise FailedPrecondition(f"CNI plugin {program} cannot be run: {error.strerror}") from error
    answer = _decode(done.stdout)
    if done.status != 0:
        raise _failure(type, command, done, answer)
    if answer is None and done.stdout.strip():
        printed = done.stdout[:_QUOTED].decode(errors="replace")
        raise PluginFailed(type, command, 0, f"it printed no JSON object: {printed}")
    return answer or {}


def _decode(output: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _failure(type: str, command: str, done: spawn.Finished, answer: dict[str, Any] | None) -> PluginFailed:
    said = done.stderr[-_QUOTED:].decode(errors="replace").strip()
    if answer is not None and answer.get("msg"):
        code = answer.get("code")
        return PluginFailed(
            type,
            command,
            code if isinstance(code, int) else 0,
            str(answer["msg"]),
            str(answer.get("details") or ""),
        )
    how = f"killed by signal {-done.status}" if done.status < 0 else f"exit status {done.status}"
    printed = done.stdout[:_QUOTED].decode(errors="replace").strip()
    return PluginFailed(type, command, 0, f"{how}: {said or printed or 'it said nothing'}")
