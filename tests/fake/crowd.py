"""A crowd of pods of three containers on a fake node, with requests as large as a kubelet's; and, as a
program, what each container takes of this process's memory.

    python -m tests.fake.crowd DIRECTORY
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import kubelet
from podwright.api import Cri
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri

BEFORE, AFTER = 300, 1000
"""Pods: the first fill what is bounded, and are not counted."""
CALLS = 500
"""Kept in the log, so that it is full by then."""


async def pull(to: Cri) -> None:
    await to.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image=kubelet.IMAGE)))


async def grow(to: Cri, numbers: Iterable[int], logs: Path) -> dict[str, list[str]]:
    """Make and start these pods: the containers of each sandbox."""
    made: dict[str, list[str]] = {}
    for number in numbers:
        pod = kubelet.pod(number, logs)
        sandbox = (await to.run_pod_sandbox(cri.RunPodSandboxRequest(config=pod))).pod_sandbox_id
        made[sandbox] = []
        for name in kubelet.CONTAINERS:
            config = kubelet.container(number, name)
            wanted = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
            id = (await to.create_container(wanted)).container_id
            await to.start_container(cri.StartContainerRequest(container_id=id))
            made[sandbox].append(id)
    return made


async def look_at_all(to: Cri) -> None:
    """Lists, and the status of each: what is made for them stays."""
    containers = (await to.list_containers(cri.ListContainersRequest())).containers
    for each in containers:
        await to.container_status(cri.ContainerStatusRequest(container_id=each.id))
    for pod in (await to.list_pod_sandbox(cri.ListPodSandboxRequest())).items:
        await to.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id))


def resident() -> int:
    """Bytes of this process."""
    gc.collect()
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return int(fields[fields.index("Rss:") + 1]) << 10


async def bytes_per_container(root: Path) -> float:
    async with FakeNode(root=root / "node", clock="system", kept=CALLS) as node:
        await pull(node.cri)
        await grow(node.cri, range(BEFORE), root / "logs")
        await look_at_all(node.cri)
        before = resident()
        await grow(node.cri, range(BEFORE, AFTER), root / "logs")
        await look_at_all(node.cri)
        return (resident() - before) / (len(kubelet.CONTAINERS) * (AFTER - BEFORE))


if __name__ == "__main__":
    print(asyncio.run(bytes_per_container(Path(sys.argv[1]))))
