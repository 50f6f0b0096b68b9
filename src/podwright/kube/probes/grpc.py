"""Asking by gRPC's health protocol: healthy is who answers SERVING (grpc.health.v1.Health/Check).

The two messages of the protocol have one field each, so they are written and read here by hand.
"""

from __future__ import annotations

import grpc
import grpc.aio

from podwright.clock import Clock
from podwright.kube.life import words
from podwright.kube.probes.answers import Answer
from podwright.kube.probes.dial import address

METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1
STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "kube-probe/1.36"),
    # What is refused now is tried again within the probe's own second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


async def ask(host: str, port: int, service: str, timeout: float, clock: Clock) -> Answer:
    """`timeout` in seconds, for connecting and for the call together."""
    target = address(host, port)
    limit = words.duration(timeout)
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        connected = False
        try:
            async with clock.timeout(timeout):
                await channel.channel_ready()
                connected = True
                check = channel.unary_unary(METHOD, request_serializer=_request, response_deserializer=_state)
                state = await check(service)
        except TimeoutError:
            if connected:
                return Answer(False, f"timeout: health rpc did not complete within {limit}")
            return Answer(
                False,
                f'timeout: failed to connect service "{target}" within {limit}: context deadline exceeded',
            )
        except grpc.aio.AioRpcError as error:
            return Answer(False, _complaint(error, limit))
        except ValueError as error:
            return Answer(False, f"error: health rpc probe failed: {error}")
    if state == SERVING:
        return Answer(True, "service healthy")
    return Answer(False, f'service unhealthy (responded with "{STATES.get(state, state)}")')


def _complaint(error: grpc.aio.AioRpcError, limit: str) -> str:
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            what = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
            return f"error: {what}: {error.details()}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {limit}"
    name = error.code().name.title().replace("_", "")
    return f"error: health rpc probe failed: rpc error: code = {name} desc = {error.details()}"


def _request(service: str) -> bytes:
    """HealthCheckRequest: string service = 1."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _state(response: bytes) -> int:
    """HealthCheckResponse: ServingStatus status = 1. ValueError for another message."""
    if not response:
        return 0
    if response[0] != 0x08 or len(response) < 2 or response[1] > 0x7F:
        raise ValueError("the response is no HealthCheckResponse")
    return response[1]


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
