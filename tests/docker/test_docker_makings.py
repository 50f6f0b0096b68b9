"""What may go otherwise while Docker makes and starts something: names that are taken, words of its errors,
and what a log must not lose."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from podwright.config import Config
from podwright.engines.docker import labels
from podwright.engines.docker.api import Docker
from podwright.engines.docker.logs import ENDLESS, Logs
from podwright.engines.docker.objects import Objects
from podwright.errors import InvalidArgument, PodwrightError
from tests.docker import golden
from tests.docker.stage import CONTAINER, SANDBOX, in_sandbox, made, ours, room


async def test_a_name_that_another_podwright_has_stays_its(tmp_path: Path) -> None:
    container = in_sandbox(golden.container_of("create-conflict-created"))
    async with room("create-conflict-created", tmp_path) as here, AsyncExitStack() as undo:
        here.docker.exchanges[:] = [
            made("2" * 64),  # for a look at the image's users
            *(each for each in here.docker.exchanges if each["path"].partition("?")[0].endswith("/create")),
            ours(f"/containers/{CONTAINER}/json", {"Config": {"Labels": {labels.OWNER: "/another"}}}),
            made("3" * 64),
        ]
        await here.containers.create(container, undo)
        undo.pop_all()
    first, second = here.lines[2:]
    assert second.startswith(f"{first}_") and len(second) == len(first) + 9


def _refused(status: int, words: str) -> dict[str, Any]:
    return {
        "method": "POST",
        "path": f"/v1.41/containers/{SANDBOX}/start",
        "status": status,
        "response": {"message": words},
    }


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (
            'OCI runtime create failed: runc create failed: sysctl "net.ipv4.ip_forward" is not in a separate'
            " kernel namespace: unknown",
            InvalidArgument,
            'config.linux.sysctls: net.ipv4.ip_forward: sysctl "net.ipv4.ip_forward" is not in a separate',
        ),
        (
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start"
            " container process: error during container init: open /proc/sys/net/ipv4/ip_forward: no such"
            " file: unknown",
            InvalidArgument,
            "config.linux.sysctls: net.ipv4.ip_forward: error during container init: open /proc/sys",
        ),
        (
            "OCI runtime create failed: no cgroups today: unknown",
            PodwrightError,
            "container: no cgroups today",
        ),
    ],
)
async def test_what_the_runtime_says_of_a_sysctl_names_the_field(
    words: str, kind: type[PodwrightError], told: str, tmp_path: Path
) -> None:
    sandbox = golden.sandbox_of("run-pod-minimal", docker_id="")
    sandbox.config.linux.sysctls["net.ipv4.ip_forward"] = "1"
    async with room("run-pod-minimal", tmp_path) as here:
        here.docker.exchanges.insert(0, _refused(500, words))
        with pytest.raises(PodwrightError) as raised:
            async with AsyncExitStack() as undo:
                await here.sandboxes.create(sandbox, undo)
    assert type(raised.value) is kind
    assert told in str(raised.value) and "unknown" not in str(raised.value)


def test_docker_neither_rotates_nor_drops_what_is_still_to_be_read(tmp_path: Path) -> None:
    """Whatever the daemon's own options are: each one that would lose a line is named."""
    config = Config(root=str(tmp_path))
    docker = Docker(config.docker)
    logs = Logs(docker, Objects(docker, golden.OWNER), config)
    container = golden.container_of("create-minimal")
    made = logs.log_config(container)
    assert made["Type"] == "json-file"
    options = {"max-size": ENDLESS, "max-file": "1", "compress": "false", "mode": "blocking"}
    assert made["Config"] == options
