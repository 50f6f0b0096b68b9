"""What the error stream says in the end: the Status of a remote command, as an exit code or as an error.

The document is that of Kubernetes' API (meta/v1 Status), written by every streaming server since protocol v4.
"""

from __future__ import annotations

import msgspec

from podwright import errors, structs
from podwright.errors import InvalidArgument, PodwrightError, Unavailable

_OF_CODE: dict[int, type[PodwrightError]] = {
    404: errors.NotFound,
    408: errors.DeadlineExceeded,
    409: errors.FailedPrecondition,
    429: errors.ResourceExhausted,
    501: errors.Unimplemented,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    status: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


def exit_code(document: bytes) -> int:
    """The exit code in the Status `document`: 0 for success.

    Raises the error that it tells of; Unavailable when it is empty, for then nobody knows how it ended.
    """
    if not document.strip():
        raise Unavailable("the streaming server ended the session without saying how the command ended")
    try:
        status = structs.decode(document, _Status)
    except msgspec.DecodeError:
        raise PodwrightError(document.decode(errors="replace").strip()) from None
    if status.status == "Success":
        return 0
    if status.reason == "NonZeroExitCode" and status.details is not None:
        for cause in status.details.causes:
            if cause.reason == "ExitCode":
                try:
                    return int(cause.message)
                except ValueError:
                    break
    raise error_of(status.code, status.message or document.decode(errors="replace"))


def error_of(code: int, message: str) -> PodwrightError:
    """The error that an HTTP status code stands for."""
    if code == 400:
        return InvalidArgument("", message)
    return _OF_CODE.get(code, PodwrightError)(message)
