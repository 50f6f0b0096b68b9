"""What OCI runtimes say through those who have called them: in short, and of a command that is not there or
cannot be run as the codes that shells give."""

from __future__ import annotations

import re

NOT_FOUND, NOT_EXECUTABLE = 127, 126

_ABSENT = re.compile(
    r"executable file .*not found|executable file .*no such file|exec: .*: no such file or directory"
    r"|failed to load .*: no such file or directory|finding executable",
    re.IGNORECASE | re.DOTALL,
)
_UNFIT = re.compile(
    r"open executable: |exec: .*: (permission denied|is a directory)|exec format error"
    r"|failed to load .*: (permission denied|exec format error|is a directory)",
    re.IGNORECASE | re.DOTALL,
)


def code(words: str) -> int | None:
    """The exit code for `words` of crun, runc or gVisor; None when it is something else that they say."""
    if _ABSENT.search(words):
        return NOT_FOUND
    return NOT_EXECUTABLE if _UNFIT.search(words) else None


_LEADS = re.compile(
    r".*(?:OCI runtime \w+ failed|runc \w+ failed|unable to start container process): ", re.DOTALL
)


def plain_words(words: str) -> str:
    """What a runtime says, without the chain of programs that handed it on."""
    return _LEADS.sub("", words).removesuffix(": unknown").strip()
