"""What words become before a command runs: parameters, commands, arithmetic, fields, file names.

In this order, as POSIX XCU 2.6 has it. What comes from an unquoted expansion is split; what is quoted is
neither split nor a pattern.
"""

from __future__ import annotations

import posixpath
import re
from typing import Protocol

from podwright.engines.fake.programs.context import Context
from podwright.engines.fake.programs.shell.arithmetic import evaluate
from podwright.engines.fake.programs.shell.flow import ExpansionError
from podwright.engines.fake.programs.shell.state import State
from podwright.engines.fake.programs.shell.syntax import (
    Arithmetic,
    Commands,
    Literal,
    Parameter,
    Part,
    Substitution,
    Word,
)


class Shell(Protocol):
    """What expansions need of the shell that does them."""

    @property
    def context(self) -> Context: ...

    @property
    def state(self) -> State: ...

    def context_here(self) -> Context: ...

    async def output_of(self, commands: Commands) -> str: ...


class _Field:
    """One argument in the making: pieces of text, each quoted or not."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[tuple[str, bool]] = []

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces)

    @property
    def pattern(self) -> str:
        """For fnmatch: what was quoted stands for itself."""
        return "".join(_escaped(piece) if quoted else piece for piece, quoted in self.pieces)

    @property
    def is_pattern(self) -> bool:
        return any(not quoted and any(sign in piece for sign in "*?[") for piece, quoted in self.pieces)


class Expansion:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def fields(self, words: tuple[Word, ...]) -> list[str]:
        """The arguments that `words` become. ExpansionError, ExpressionError."""
        found: list[str] = []
        for word in words:
            for field in await self._fields(_with_home(word, self._shell.state.variable("HOME"))):
                if field.is_pattern and "f" not in self._shell.state.options:
                    found += self._paths(field) or [field.text]
                else:
                    found.append(field.text)
        return found

    async def text(self, word: Word) -> str:
        """One text: of an assignment, a here-document, the target of a redirection."""
        return (await self._joined(_with_home(word, self._shell.state.variable("HOME")))).text

    async def pattern(self, word: Word) -> str:
        return (await self._joined(word)).pattern

    async def _joined(self, word: Word) -> _Field:
        field = _Field()
        for part in word:
            if isinstance(part, Literal):
                field.pieces.append((part.text, part.quoted))
            elif isinstance(part, Parameter) and part.name == "@" and not part.operator:
                field.pieces.append((" ".join(self._shell.state.positional), part.quoted))
            else:
                value = await self._value(part)
                if isinstance(value, _Field):
                    field.pieces += value.pieces
                else:
                    field.pieces.append((value, part.quoted))
        return field

    async def _fields(self, word: Word) -> list[_Field]:
        fields: list[_Field] = []
        current: _Field | None = None
        for part in word:
            if isinstance(part, Literal):
                current = current or _Field()
                current.pieces.append((part.text, part.quoted))
                continue
            if isinstance(part, Parameter) and part.name in "@*" and not part.operator:
                current = self._arguments(part, fields, current)
                continue
            value = await self._value(part)
            pieces = value.pieces if isinstance(value, _Field) else [(value, part.quoted)]
            for text, quoted in pieces:
                if quoted:
                    current = current or _Field()
                    current.pieces.append((text, True))
                else:
                    current = self._split(text, fields, current)
        if current is not None:
            fields.append(current)
        # The lexer marks a quoted text by an empty piece, so "" is an argument and "$@" of nothing is none.
        return [field for field in fields if field.pieces and not _is_empty_list(field, word, self._shell)]

    def _arguments(self, part: Parameter, fields: list[_Field], current: _Field | None) -> _Field | None:
        """$@ and $*: fields of their own, the first and the last joined to what stands beside them."""
        values = self._shell.state.positional
        if part.quoted and part.name == "*":
            separators = self._shell.state.variable("IFS")
            joined = (" " if separators is None else separators[:1]).join(values)
            current = current or _Field()
            current.pieces.append((joined, True))
            return current
        for number, value in enumerate(values):
            if number:
                if current is not None:
                    fields.append(current)
                current = None
            if part.quoted:
                current = current or _Field()
                current.pieces.append((value, True))
            else:
                current = self._split(value, fields, current)
        return current

    def _split(self, text: str, fields: list[_Field], current: _Field | None) -> _Field | None:
        """Field splitting: adds complete fields to `fields`, and returns the one that is still open."""
        pieces, opened = split(text, self._shell.state.variable("IFS"))
        for number, (piece, begins) in enumerate(pieces):
            if (number or begins) and current is not None:
                fields.append(current)
                current = None
            current = current or _Field()
            current.pieces.append((piece, False))
        if not opened and current is not None:
            fields.append(current)
            current = None
        return current

    # Single expansions

    async def _value(self, part: Part) -> str | _Field:
        if isinstance(part, Substitution):
            return (await self._shell.output_of(part.commands)).rstrip("\n")
        if isinstance(part, Arithmetic):
            return str(evaluate(await self.text(part.expression), self._shell.state))
        assert isinstance(part, Parameter)
        return await self._parameter(part)

    async def _parameter(self, part: Parameter) -> str | _Field:
        shell, operator = self._shell, part.operator
        value = shell.state.parameter(part.name)
        if operator.lstrip(":") in ("-", "=", "?", "+"):
            absent = value is None or (operator.startswith(":") and not value)
            if operator.endswith("+"):
                return "" if absent else await self._joined(part.word)
            if not absent:
                return value or ""
            word = await self._joined(part.word)
            if operator.endswith("="):
                shell.state.set(part.name, word.text)
            elif operator.endswith("?"):
                raise ExpansionError(f"{part.name}: {word.text or 'parameter not set'}")
            return word
        if value is None and "u" in shell.state.options and part.name not in "@*":
            raise ExpansionError(f"{part.name}: parameter not set")
        value = value or ""
        if operator == "length":
            return str(len(value))
        if operator[:1] in ("#", "%"):
            return _trimmed(value, operator, await self.pattern(part.word))
        return value

    # File names

    def _paths(self, field: _Field) -> list[str]:
        """The existing paths that a pattern fits, in order."""
        context = self._shell.context_here()
        pattern = field.pattern
        found = ["/"] if pattern.startswith("/") else [""]
        for step in [each for each in pattern.split("/") if each]:
            is_pattern = any(sign in step for sign in "*?[")
            wanted = compiled(step) if is_pattern else None
            following = []
            for base in found:
                if wanted is None:
                    path = posixpath.join(base, re.sub(r"\\(.)", r"\1", step))
                    following += [path] if context.kind(path) is not None else []
                    continue
                try:
                    names = context.files.names(context.path(base or "."))
                except OSError:
                    continue
                following += [
                    posixpath.join(base, name)
                    for name in names
                    if wanted.match(name) and (not name.startswith(".") or step.startswith("."))
                ]
            found = following
        return sorted(found)


def split(text: str, separators: str | None) -> tuple[list[tuple[str, bool]], bool]:
    """Pieces of `text` between separators (None: blanks), each with whether a separator stood before it, and
    whether the last one is open: no separator stands behind it."""
    signs = " \t\n" if separators is None else separators
    if not signs or not text:
        return ([(text, False)] if text else []), True
    blanks = "".join(sign for sign in signs if sign in " \t\n")
    others = "".join(sign for sign in signs if sign not in " \t\n")
    blank = f"[{re.escape(blanks)}]" if blanks else "(?!)"
    other = f"[{re.escape(others)}]" if others else "(?!)"
    divider = re.compile(f"(?:{blank}*{other}{blank}*|{blank}+)")
    pieces: list[tuple[str, bool]] = []
    place, begins = 0, False
    match = re.compile(f"{blank}+").match(text)
    if match:
        place, begins = match.end(), True
    while place < len(text):
        found = divider.search(text, place)
        if found is None:
            pieces.append((text[place:], begins))
            return pieces, True
        pieces.append((text[place : found.start()], begins))
        place, begins = found.end(), True
    return pieces, not begins


def compiled(pattern: str) -> re.Pattern[str]:
    """A shell's pattern, in which a backslash makes the next sign stand for itself."""
    translated = []
    for match in re.finditer(r"\\(.)|(\[[!^]?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\])|(.)", pattern, re.DOTALL):
        if match[1] is not None:
            translated.append(re.escape(match[1]))
        elif match[2] is not None:
            inner = re.sub(r"\[:(\w+):\]", lambda each: _CLASSES.get(each[1], ""), match[2][1:-1])
            negated = inner[:1] in ("!", "^")
            inner = inner[1:] if negated else inner
            body = "".join(
                each[0] if each[0] == "-" or each[1] is None else re.escape(each[1])
                for each in re.finditer(r"\\(.)|[^\\]", inner, re.DOTALL)
                if each[0]
            )
            body = re.sub(r"([\[\]^&~|])", r"\\\1", body)
            translated.append(f"[{'^' if negated else ''}{body}]")
        else:
            translated.append({"*": ".*", "?": "."}.get(match[3], re.escape(match[3])))
    try:
        return re.compile(rf"(?:{''.join(translated)})\Z", re.DOTALL)
    except re.error:
        return re.compile(rf"(?:{re.escape(pattern)})\Z")


_CLASSES = {
    "alpha": "A-Za-z",
    "digit": "0-9",
    "alnum": "0-9A-Za-z",
    "upper": "A-Z",
    "lower": "a-z",
    "space": " \t\n\v\f\r",
    "blank": " \t",
}


def _trimmed(value: str, operator: str, pattern: str) -> str:
    wanted = compiled(pattern)
    ends = range(len(value) + 1)
    if operator[0] == "#":
        lengths = ends if operator == "#" else reversed(ends)
        return next((value[end:] for end in lengths if wanted.match(value[:end])), value)
    starts = reversed(ends) if operator == "%" else ends
    return next((value[:start] for start in starts if wanted.match(value[start:])), value)


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[\]\\!^-])", r"\\\1", text)


def _with_home(word: Word, home: str | None) -> Word:
    """A tilde at the beginning is the home directory."""
    if home is None or not word or not isinstance(word[0], Literal) or word[0].quoted:
        return word
    first = word[0].text
    if first != "~" and not first.startswith("~/"):
        return word
    if first == "~" and len(word) > 1:
        return word
    return (Literal(home, quoted=True), Literal(first[1:]), *word[1:])


def _is_empty_list(field: _Field, word: Word, shell: Shell) -> bool:
    """ "$@" without arguments is no argument at all, although it is quoted."""
    if field.text or shell.state.positional:
        return False
    lists = [part for part in word if isinstance(part, Parameter) and part.name == "@"]
    others = [part for part in word if not isinstance(part, Parameter) and not _is_mark(part)]
    return bool(lists) and len(lists) == len([p for p in word if isinstance(p, Parameter)]) and not others


def _is_mark(part: Part) -> bool:
    return isinstance(part, Literal) and not part.text and part.quoted
