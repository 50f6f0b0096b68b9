"""Ways out of the middle of a script, and what a shell cannot go on from."""

from __future__ import annotations

import signal


class Jump(Exception):
    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.levels = levels


class Break(Jump):
    """Out of so many loops."""


class Continue(Jump):
    """To the next round of the so-manieth loop."""


class Ending(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ExitShell(Ending):
    """The shell ends."""


class Return(Ending):
    """A function (or a file that is read) ends."""


class Interrupted(Ending):
    """Who types the commands wants no more of the one at hand."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGINT)


class ExpansionError(Exception):
    """A word cannot be expanded, or a variable not be set: the shell ends."""
