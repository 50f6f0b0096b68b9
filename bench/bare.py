"""A gRPC server that does nothing: the floor under every call. It sends what lies in a directory.

    python -m bench.bare SOCKET DIRECTORY

The answer of an rpc is the content of the file of its name, read once; with no file, nothing. A stream sends
its answer `STREAMED` times. Same library, same event loop and same tuning as podwright's server.
"""

from __future__ import annotations

from podwright.server import tuning

tuning.before_grpc()

import sys  # noqa: E402  (the tuning comes before gRPC is imported)
from collections.abc import AsyncIterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import grpc  # noqa: E402
import uvloop  # noqa: E402

STREAMED = 20_000
LIMIT = 80 << 20


class Nothing(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]  # grpc has no inline types
    def __init__(self, folder: Path) -> None:
        self._answers = {file.name: file.read_bytes() for file in folder.iterdir()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        answer = self._answers.get(name, b"")

        async def once(request: bytes, context: Any) -> bytes:
            return answer

        async def often(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(STREAMED):
                yield answer

        if name == "GetContainerEvents":
            return grpc.unary_stream_rpc_method_handler(often)
        return grpc.unary_unary_rpc_method_handler(once)


async def main(socket: str, folder: Path) -> None:
    options = (("grpc.max_send_message_length", LIMIT), ("grpc.max_receive_message_length", LIMIT))
    server = grpc.aio.server(handlers=[Nothing(folder)], options=options)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2])))
