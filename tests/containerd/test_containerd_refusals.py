"""What containerd's refusals become, and gRPC's own."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from podwright.engines.containerd.api import refusal
from podwright.errors import NotFound, PodwrightError, Unavailable


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "no such blob", NotFound),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", Unavailable),
        # A write into a stream whose other end was killed; nobody but gRPC says it.
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Unavailable),
        (grpc.StatusCode.INTERNAL, "the disk is broken", PodwrightError),
        (grpc.StatusCode.UNKNOWN, "the runtime's own words", PodwrightError),
    ],
)
def test_a_refusal_is_of_the_houses_kind(
    code: grpc.StatusCode, words: str, kind: type[PodwrightError]
) -> None:
    error = refusal(AioRpcError(code, Metadata(), Metadata(), details=words), "write of a blob")
    assert type(error) is kind
    assert "write of a blob" in str(error)
