"""`podwright pull`: the body of the command. The image's id goes to standard output, how the pull goes to
standard error.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from podwright.cli.pull_display import display
from podwright.errors import InvalidArgument
from podwright.images.references import full_name
from podwright.pulls import pulling
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.cli.door import Door

CREDENTIALS = "PODWRIGHT_CREDS"
"""The variable that may carry "user:password"."""


async def pull(door: Door, reference: str, *, creds_stdin: bool, quiet: bool) -> None:
    """Pull and print the id; `quiet` shows nothing else. Cancelling ends the pull."""
    request = cri.PullImageRequest(image=cri.ImageSpec(image=reference, user_specified_image=reference))
    if credentials := _credentials(creds_stdin):
        request.auth.username, request.auth.password = credentials
    image, image_id = full_name(reference), ""
    async with door.cri() as runtime:
        if quiet:
            image_id = (await runtime.pull_image(request)).image_ref
        else:
            async with display(sys.stderr, _say) as shown:
                shown.begin(image)
                async for state in pulling(runtime, request):
                    shown.show(state)
                    image_id = state.image_ref
    print(image_id)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _credentials(from_stdin: bool) -> tuple[str, str] | None:
    source = "--creds-stdin" if from_stdin else CREDENTIALS
    text = sys.stdin.readline().rstrip("\n") if from_stdin else os.environ.get(CREDENTIALS, "")
    if not text and not from_stdin:
        return None
    if not text:
        raise InvalidArgument(source, "there is nothing on standard input")
    user, colon, password = text.partition(":")
    if not (user and colon):
        raise InvalidArgument(source, "credentials are written user:password")
    return user, password
