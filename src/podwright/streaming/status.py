"""What a server says of how it went: the document or the text of the error stream, and the HTTP status.

Since protocol v4 the error stream carries a Status of Kubernetes' API (meta/v1), before that text, and
nothing when all went well. `client_status` reads what this writes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from podwright import errors
from podwright.errors import PodwrightError

_CODES: tuple[tuple[type[PodwrightError], int, str], ...] = (
    # The first class that fits counts.
    (errors.InvalidArgument, 400, "BadRequest"),
    (errors.NotFound, 404, "NotFound"),
    (errors.AlreadyExists, 409, "AlreadyExists"),
    (errors.FailedPrecondition, 409, "Conflict"),
    (errors.DeadlineExceeded, 504, "Timeout"),
    (errors.ResourceExhausted, 429, "TooManyRequests"),
    (errors.Unimplemented, 501, "NotImplemented"),
    (errors.Unavailable, 503, "ServiceUnavailable"),
)


def http_status(error: BaseException) -> int:
    return _code(error)[0]


def words(error: BaseException) -> str:
    """For people; what is no podwright error is a defect and says its kind."""
    return str(error) if isinstance(error, PodwrightError) else f"{type(error).__name__}: {error}"


def exited(code: int, *, structured: bool) -> bytes:
    """The command has ended with `code`, 0..255."""
    if code == 0:
        return _document({"status": "Success"}) if structured else b""
    message = f"command terminated with non-zero exit code: {code}"
    if not structured:
        return message.encode()
    cause = {"reason": "ExitCode", "message": str(code)}
    return _document(
        {
            "status": "Failure",
            "message": message,
            "reason": "NonZeroExitCode",
            "details": {"causes": [cause]},
        }
    )


def failed(error: BaseException, *, structured: bool) -> bytes:
    """It could not be run, or not to its end."""
    if not structured:
        return words(error).encode()
    code, reason = _code(error)
    return _document({"status": "Failure", "message": words(error), "reason": reason, "code": code})


def _code(error: BaseException) -> tuple[int, str]:
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            return code, reason
    return 500, "InternalError"


def _document(status: dict[str, Any]) -> bytes:
    # `metadata` is there in every document that Go writes, so readers may count on it.
    return msgspec.json.encode({"metadata": {}} | status)
