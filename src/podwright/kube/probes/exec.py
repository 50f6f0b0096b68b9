"""Asking by a command in the container: healthy is who exits with 0."""

from __future__ import annotations

from collections.abc import Sequence

from podwright.api import Cri
from podwright.errors import DeadlineExceeded, PodwrightError
from podwright.kube.life import words
from podwright.kube.probes.answers import Answer, ProbeError, text
from podwright.wire import cri_pb2 as cri


async def ask(runtime: Cri, container_id: str, command: Sequence[str], timeout: int) -> Answer:
    """`timeout` in seconds; the runtime keeps it, and kills the command. ProbeError when it could not be
    run."""
    request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
    try:
        answer = await runtime.exec_sync(request)
    except (DeadlineExceeded, TimeoutError):
        limit = words.duration(timeout)
        return Answer(False, f'command timed out: "{" ".join(command)}" timed out after {limit}')
    except PodwrightError as error:
        raise ProbeError(words.rpc(error)) from error
    return Answer(answer.exit_code == 0, text(answer.stdout + answer.stderr))
