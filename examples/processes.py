"""Talking with commands in containers and with ports of pods. Needs root.

Usage: python examples/processes.py [IMAGE]

The default image is localhost/podwright/busybox:latest, which README.md imports.
"""

from __future__ import annotations

import asyncio
import os
import sys

import podwright
from podwright.wire import cri_pb2 as cri

IMAGE = "localhost/podwright/busybox:latest"
SERVE = 'mkdir /tmp/www; echo "a page" > /tmp/www/index.html; httpd -f -p 127.0.0.1:8080 -h /tmp/www'


async def main(image: str) -> int:
    # The directories are the configuration's; environment variables let a test use its own.
    root, run = os.environ.get("PODWRIGHT_ROOT"), os.environ.get("PODWRIGHT_RUN")
    async with (
        podwright.open(root, run) as runtime,
        await runtime.run_sandbox("processes") as sandbox,
    ):
        server = await sandbox.run("server", image, ["sh", "-c", SERVE])

        # A command: what goes in and what comes out, as it comes. Leaving the block would end it.
        async with server.process(
            ["sh", "-c", "while read -r word; do echo got $word; done; exit 3"]
        ) as echo:
            for word in (b"one\n", b"two\n"):
                await echo.stdin.write(word)
                print((await echo.stdout.readline()).decode(), end="")
            await echo.stdin.close()
            print("exit code:", await echo.wait())

        # The same with a terminal.
        async with server.process(["sh", "-c", "read _; stty size"], tty=True, size=(132, 43)) as shell:
            await shell.stdin.write(b"\n")
            print("terminal:", (await shell.stdout.read()).decode().strip())

        # The first process of a container, if its input is open.
        shell_config = cri.ContainerConfig(command=["sh"], stdin=True)
        own = await sandbox.run("shell", image, config=shell_config)
        async with await own.attach() as process:
            await process.stdin.write(b"echo attached; exit 4\n")
            print((await process.stdout.readline()).decode(), end="")
            print("container:", await process.wait())

        # A port that only the pod itself can see. The server may still be on its way.
        ready = "until wget -q -O /dev/null http://127.0.0.1:8080/; do sleep 0.05; done"
        await server.exec(["sh", "-c", ready])
        async with sandbox.port_forward(8080) as (reader, writer):
            await writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
            print("port 8080:", (await reader.read()).decode().splitlines()[-1])
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else IMAGE)))
