"""Pull an image and print how far it is, layer by layer.

Usage: python examples/pull_progress.py IMAGE [ENDPOINT]

Without ENDPOINT (such as unix:///run/podwright/podwright.sock) the image is pulled into this machine's own
store, which needs root.
"""

from __future__ import annotations

import asyncio
import sys

import podwright
from podwright.wire.podwright_pb2 import LayerStage, PullStage


async def main(image: str, endpoint: str | None) -> None:
    async with podwright.open(endpoint=endpoint) as runtime:
        async for state in runtime.pulling(image):
            done = sum(layer.bytes for layer in state.layers)
            total = sum(layer.total for layer in state.layers)
            print(f"{PullStage.Name(state.stage)} {done} of {total} bytes")
            for layer in state.layers:
                stage = LayerStage.Name(layer.stage)
                print(f"  {layer.digest[7:19]} {stage} {layer.bytes} of {layer.total}")
        print(state.image_ref)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
