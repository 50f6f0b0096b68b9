"""podwright as a library: a sandbox with one container, looked at from all sides. Needs root.

Usage: python examples/library.py [IMAGE]

The default image is localhost/podwright/busybox:latest, which README.md imports.
"""

from __future__ import annotations

import asyncio
import os
import sys

import podwright

COUNT = 'mkfifo /tmp/go; for i in 1 2 3; do echo "$GREETING $i"; done; read -r word < /tmp/go; exit 7'
SLEEP = "trap 'exit 0' TERM; echo ready; sleep 600 & wait"
IMAGE = "localhost/podwright/busybox:latest"


async def main(image: str) -> int:
    # The directories are the configuration's; environment variables let a test use its own.
    root, run = os.environ.get("PODWRIGHT_ROOT"), os.environ.get("PODWRIGHT_RUN")
    async with podwright.open(root, run) as runtime:
        version = await runtime.version()
        print(f"{version.runtime_name} {version.runtime_version}")
        if await runtime.image(image) is None:
            await runtime.pull(image)

        # The sandbox is removed with everything in it when the block is left.
        async with await runtime.run_sandbox("library") as sandbox:
            print("sandbox:", " ".join(await sandbox.ips()))

            counter = await sandbox.run(
                "counter",
                image,
                ["sh", "-c", COUNT],
                env={"GREETING": "hello"},
            )
            named = await counter.exec(["hostname"])
            print("exec:", named.stdout.decode().strip())
            await counter.exec(["sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done; echo now > /tmp/go"])

            async for line in counter.logs(follow=True):
                print("log:", line.text.decode())
            status = await counter.wait()
            print(f"exit: {status.exit_code} ({status.reason})")

            # A container that would run for ever is stopped: SIGTERM, and after the grace period SIGKILL.
            sleeper = await sandbox.run("sleeper", image, ["sh", "-c", SLEEP])
            async for _ in sleeper.logs(follow=True):
                break  # it has said that it is ready
            await sleeper.stop(grace=5)
            print("stopped:", (await sleeper.wait()).exit_code)

        # Whole pods run from manifests, just as `podwright run` does it.
        outcome = await runtime.run_pod(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "one-shot"},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["true"],
                        }
                    ],
                },
            }
        )
        print("pod:", outcome.exit_code)
        return outcome.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else IMAGE)))
