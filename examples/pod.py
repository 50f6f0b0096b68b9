"""A whole pod from Python: started, watched until it is ready, looked at, debugged, changed, ended.

Usage: python examples/pod.py [IMAGE]

PODWRIGHT_ENDPOINT names a CRI server; without it the pod runs in this process, which needs root. The default
image is localhost/podwright/busybox:latest, which README.md imports.
"""

from __future__ import annotations

import asyncio
import os
import sys

import podwright

IMAGE = "localhost/podwright/busybox:latest"
SERVE = "trap 'exit 0' TERM; cat /settings/greeting > /tmp/page; echo serving; sleep 600 & wait"

SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {"greeting": "hello"},
}


def manifest(image: str) -> dict[str, object]:
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SERVE],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/page"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
    }
    volume = {"name": "settings", "configMap": {"name": "settings"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "whole"},
        "spec": {"containers": [main], "volumes": [volume], "terminationGracePeriodSeconds": 5},
    }


async def tell(pod: podwright.Pod) -> None:
    """Each change of its status, until it has ended."""
    phase = ""
    async for status in pod.changes():
        if status.phase and status.phase != phase:
            phase = status.phase
            print("phase:", phase)


async def main(image: str) -> None:
    root, run = os.environ.get("PODWRIGHT_ROOT"), os.environ.get("PODWRIGHT_RUN")
    endpoint = os.environ.get("PODWRIGHT_ENDPOINT")
    async with podwright.open(root, run, endpoint=endpoint) as runtime:
        # The pod is ended in order and removed when the block is left.
        async with await runtime.pod(manifest(image), objects=[SETTINGS]) as pod:
            telling = asyncio.create_task(tell(pod))
            await pod.ready(timeout=120)
            print("ready at", *pod.ips)

            page = await pod.containers["main"].exec(["cat", "/tmp/page"])
            print("page:", page.stdout.decode())

            # An ephemeral container beside it, for a look from inside the pod.
            debugger = await pod.debug(image, ["sh", "-c", "hostname"], pull_policy="IfNotPresent")
            await debugger.wait()
            async for line in debugger.logs():
                print("debugger:", line.text.decode())
        await telling
        print("events:", *dict.fromkeys(event.reason for event in pod.events))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else IMAGE))
