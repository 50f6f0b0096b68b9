"""Which gRPC status each error becomes: the one place, read forwards by the server, backwards by `client.py`.

The kubelet branches on NOT_FOUND, DEADLINE_EXCEEDED (ExecSync) and UNIMPLEMENTED, and on the first word of
some messages. It strips the "rpc error" preamble in front of that word only from UNKNOWN, so the errors that
are named there must travel as UNKNOWN although they are kinds of others.
"""

from __future__ import annotations

import grpc

from podwright import errors

_CODES: tuple[tuple[type[errors.PodwrightError], grpc.StatusCode], ...] = (
    # The first class that fits counts: subclasses stand above their bases.
    (errors.RegistryUnavailable, grpc.StatusCode.UNKNOWN),
    (errors.SignatureValidationFailed, grpc.StatusCode.UNKNOWN),
    (errors.ImageVolumeMountFailed, grpc.StatusCode.UNKNOWN),
    (errors.RROUnsupported, grpc.StatusCode.UNKNOWN),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unimplemented, grpc.StatusCode.UNIMPLEMENTED),
    (errors.PodwrightError, grpc.StatusCode.UNKNOWN),
)

_NAMED = {
    "RegistryUnavailable": errors.RegistryUnavailable,
    "SignatureValidationFailed": errors.SignatureValidationFailed,
    "ImageVolumeMountFailed": errors.ImageVolumeMountFailed,
    "RROUnsupported": errors.RROUnsupported,
}

EXPECTED = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Codes that a healthy node meets every day (a poll that lost a race, a probe that timed out): not worth
an error line in the log."""

MESSAGE_BYTES = 2000
"""A message travels in HTTP/2 trailers, each odd byte as three; clients refuse more than 8 KiB of them."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The code and message a client gets for `error`; what is no podwright error is INTERNAL."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, _bounded(str(error))
    return grpc.StatusCode.INTERNAL, _bounded(f"{type(error).__name__}: {error}")


def error_of(code: grpc.StatusCode, message: str) -> errors.PodwrightError:
    """The error a client raises for a status: the inverse of `status_of`, as far as codes tell."""
    if code is grpc.StatusCode.UNKNOWN:
        name, colon, rest = message.partition(": ")
        if colon and name in _NAMED:
            return _NAMED[name](rest)
        return errors.PodwrightError(message)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        # The field is part of the message already; taking it out again would be guessing.
        return errors.InvalidArgument("", message)
    for kind, known in _CODES:
        if known is code:
            return kind(message)
    return errors.PodwrightError(f"{code.name}: {message}")


def _bounded(message: str) -> str:
    """`message` in at most MESSAGE_BYTES: its head says what was tried, its tail what the system said."""
    raw = message.encode()
    if len(raw) <= MESSAGE_BYTES:
        return message
    half = MESSAGE_BYTES // 2
    return f"{raw[:half].decode(errors='ignore')} … {raw[-half:].decode(errors='ignore')}"
