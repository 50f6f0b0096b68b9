"""What a script is made of, and the one error that reading it can give.

Names are those of the shell's grammar (POSIX XCU 2.10).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


class ShellSyntaxError(Exception):
    """The script cannot be read; the words say what is wrong."""

    def __init__(self, words: str, *, incomplete: bool = False) -> None:
        super().__init__(words)
        self.incomplete = incomplete
        """It may become right with more text."""


# Words


@dataclass(frozen=True, slots=True)
class Literal:
    text: str
    quoted: bool = False
    """Neither split nor a pattern."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """$NAME, ${NAME}, ${NAME:-WORD} and the like."""

    name: str
    operator: str = ""
    """":-", "-", ":=", "=", ":?", "?", ":+", "+", "#", "##", "%", "%%"; "length" for ${#NAME}."""
    word: Word = ()
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Substitution:
    """$(COMMANDS) or `COMMANDS`."""

    commands: Commands
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """$((EXPRESSION))"""

    expression: Word
    quoted: bool = False


Part: TypeAlias = Literal | Parameter | Substitution | Arithmetic
Word: TypeAlias = tuple[Part, ...]


@dataclass(slots=True)
class HereDocument:
    """Promised by <<; its text stands behind the end of the line, and is read when the lexer comes there."""

    delimiter: str
    strip_tabs: bool
    expanded: bool
    body: list[Part] = field(default_factory=list)


# Commands


@dataclass(frozen=True, slots=True)
class Redirection:
    fd: int
    operator: str
    """"<", ">", ">>", "<>", ">|", "<&", ">&", "<<"."""
    target: Word = ()
    document: HereDocument | None = None
    """With "<<"."""


@dataclass(frozen=True, slots=True)
class Simple:
    assignments: tuple[tuple[str, Word], ...] = ()
    words: tuple[Word, ...] = ()
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """{ COMMANDS; }"""

    body: Commands
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Subshell:
    """( COMMANDS )"""

    body: Commands
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    branches: tuple[tuple[Commands, Commands], ...]
    """Condition and body; the first whose condition holds."""
    otherwise: Commands | None
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """while, until"""

    condition: Commands
    body: Commands
    until: bool = False
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class For:
    name: str
    words: tuple[Word, ...] | None
    """None: the positional parameters."""
    body: Commands
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    word: Word
    items: tuple[tuple[tuple[Word, ...], Commands], ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    body: Command


Command: TypeAlias = Simple | Group | Subshell | If | Loop | For | Case | Function


@dataclass(frozen=True, slots=True)
class Pipeline:
    commands: tuple[Command, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AndOr:
    """Pipelines joined by && and ||, which bind equally."""

    first: Pipeline
    rest: tuple[tuple[str, Pipeline], ...] = ()
    background: bool = False


@dataclass(frozen=True, slots=True)
class Commands:
    items: tuple[AndOr, ...] = field(default=())
