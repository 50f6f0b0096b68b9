"""Tokens of a script: words with their quotes and expansions, operators, here-documents. Pure.

Only the shell's own rules of quoting decide where a word ends; what is inside "$(" is read by the parser,
which the lexer is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from podwright.engines.fake.programs.shell.syntax import (
    Arithmetic,
    Commands,
    HereDocument,
    Literal,
    Parameter,
    Part,
    ShellSyntaxError,
    Substitution,
    Word,
)

OPERATORS = ("<<-", "&&", "||", ";;", "<<", ">>", "<&", ">&", "<>", ">|", "&", ";", "|", "<", ">", "(", ")")
"""Longer ones first."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = re.compile(r"[0-9@*#?$!-]")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_CHANGE = re.compile(r":[-=?+]|[-=?+]|%%?|##?")
_PLAIN = re.compile(r"[^\s'\"\\$`|&;<>()]+")
_QUOTED_PLAIN = re.compile(r"[^\"\\$`]+")
MOST_NESTED = 40
"""Levels of compound commands and expansions in each other."""


@dataclass(slots=True)
class Token:
    kind: str
    """"word", "operator", "newline", "number" (a descriptor, right before < or >) or "end"."""
    text: str = ""
    """Of an operator or a number; of a word its source."""
    word: Word = ()
    plain: bool = False
    """A word without any quote or expansion: it can be a reserved one."""


class Lexer:
    def __init__(self, text: str, commands: Callable[[Lexer], Commands]) -> None:
        """`commands` reads commands from a lexer up to the ")" that ends them, and that as well."""
        self.text = text
        self.place = 0
        self.level = 0
        self._commands = commands
        self._awaited: list[HereDocument] = []

    def next(self) -> Token:
        """ShellSyntaxError."""
        self._skip_blanks()
        text, place = self.text, self.place
        if place >= len(text):
            if self._awaited:
                self._read_documents()
            return Token("end")
        if text[place] == "\n":
            self.place += 1
            self._read_documents()
            return Token("newline", "\n")
        for operator in OPERATORS:
            if text.startswith(operator, place):
                self.place += len(operator)
                return Token("operator", operator)
        word, plain = self._word()
        source = text[place : self.place]
        if (
            plain
            and source.isdecimal()
            and source.isascii()
            and text[self.place : self.place + 1] in ("<", ">")
        ):
            return Token("number", source)
        return Token("word", source, word, plain)

    def promise(self, document: HereDocument) -> None:
        self._awaited.append(document)

    @contextmanager
    def nested(self) -> Iterator[None]:
        """One level deeper."""
        if self.level >= MOST_NESTED:
            raise ShellSyntaxError("too much in each other")
        self.level += 1
        try:
            yield
        finally:
            self.level -= 1

    def _skip_blanks(self) -> None:
        text = self.text
        while self.place < len(text):
            if text[self.place] in " \t\r":
                self.place += 1
            elif text.startswith("\\\n", self.place):
                self.place += 2
            elif text[self.place] == "#":
                end = text.find("\n", self.place)
                self.place = len(text) if end < 0 else end
            else:
                return

    def _word(self) -> tuple[Word, bool]:
        parts: list[Part] = []
        plain = True
        while self.place < len(self.text):
            match = _PLAIN.match(self.text, self.place)
            if match:
                self.place = match.end()
                parts.append(Literal(match[0]))
                continue
            sign = self.text[self.place]
            if sign in "\n \t\r|&;<>()" or sign.isspace():
                if sign.isspace() and sign not in "\n \t\r":
                    # Only blanks and newlines end a word; other white space is text.
                    self.place += 1
                    parts.append(Literal(sign))
                    continue
                break
            plain = False
            parts += self._part(sign)
        return tuple(parts), plain

    def _part(self, sign: str) -> list[Part]:
        """What stands at a quote, a backslash, a dollar or a backquote outside of quotes."""
        if sign == "'":
            end = self.text.find("'", self.place + 1)
            if end < 0:
                raise ShellSyntaxError("unterminated quoted string", incomplete=True)
            found = self.text[self.place + 1 : end]
            self.place = end + 1
            return [Literal(found, quoted=True)]
        if sign == '"':
            self.place += 1
            return self._double_quoted()
        if sign == "\\":
            return self._escaped()
        return [self._expansion(quoted=False)]

    def _escaped(self) -> list[Part]:
        following = self.text[self.place + 1 : self.place + 2]
        self.place += 2
        if following == "\n":
            return []
        if not following:
            self.place = len(self.text)
            return [Literal("\\", quoted=True)]
        return [Literal(following, quoted=True)]

    def _double_quoted(self, end: str = '"') -> list[Part]:
        parts: list[Part] = [Literal("", quoted=True)]
        while True:
            if self.place >= len(self.text):
                raise ShellSyntaxError("unterminated quoted string", incomplete=True)
            if self.text.startswith(end, self.place):
                self.place += len(end)
                return parts
            match = _QUOTED_PLAIN.match(self.text, self.place)
            if match:
                self.place = match.end()
                parts.append(Literal(match[0], quoted=True))
                continue
            parts += self._in_quotes('$`"\\')

    def _in_quotes(self, escapable: str) -> list[Part]:
        """What stands at a backslash, a dollar or a backquote inside of double quotes."""
        sign = self.text[self.place]
        if sign != "\\":
            return [self._expansion(quoted=True)]
        following = self.text[self.place + 1 : self.place + 2]
        if following == "\n":
            self.place += 2
            return []
        if following and following in escapable:
            self.place += 2
            return [Literal(following, quoted=True)]
        self.place += 1
        return [Literal("\\", quoted=True)]

    # Expansions

    def _expansion(self, quoted: bool) -> Part:
        with self.nested():
            if self.text[self.place] == "`":
                return self._backquoted(quoted)
            return self._dollar(quoted)

    def _dollar(self, quoted: bool) -> Part:
        text, place = self.text, self.place
        if text.startswith("$((", place):
            found = self._arithmetic(quoted)
            if found is not None:
                return found
        if text.startswith("$(", place):
            self.place += 2
            return Substitution(self._commands(self), quoted)
        if text.startswith("${", place):
            self.place += 2
            return self._braces(quoted)
        match = NAME.match(text, place + 1) or _SPECIAL.match(text, place + 1)
        if match is None:
            self.place += 1
            return Literal("$", quoted)
        self.place = match.end()
        return Parameter(match[0], quoted=quoted)

    def _arithmetic(self, quoted: bool) -> Part | None:
        """None when it is a "$(" with a "(" behind it."""
        begin, depth, place = self.place + 3, 0, self.place + 3
        while place < len(self.text):
            sign = self.text[place]
            if sign == "(":
                depth += 1
            elif sign == ")" and depth:
                depth -= 1
            elif sign == ")":
                if not self.text.startswith("))", place):
                    return None
                self.place = place + 2
                inner = Lexer(self.text[begin:place], self._commands)
                inner.level = self.level
                return Arithmetic(inner.quoted_text(), quoted)
            place += 1
        raise ShellSyntaxError("missing '))'", incomplete=True)

    def quoted_text(self, escapable: str = "$`\\") -> Word:
        """All of the text as one word, read as if it stood in double quotes."""
        parts: list[Part] = []
        while self.place < len(self.text):
            match = re.compile(r"[^\\$`]+").match(self.text, self.place)
            if match:
                self.place = match.end()
                parts.append(Literal(match[0], quoted=True))
            else:
                parts += self._in_quotes(escapable)
        return tuple(parts)

    def _braces(self, quoted: bool) -> Part:
        text = self.text
        if text.startswith("#", self.place) and not text.startswith("#}", self.place):
            match = _PARAMETER.match(text, self.place + 1)
            if match and text.startswith("}", match.end()):
                self.place = match.end() + 1
                return Parameter(match[0], "length", quoted=quoted)
        match = _PARAMETER.match(text, self.place)
        if match is None:
            raise self._bad_substitution()
        self.place = match.end()
        name = match[0]
        if text.startswith("}", self.place):
            self.place += 1
            return Parameter(name, quoted=quoted)
        match = _CHANGE.match(text, self.place)
        if match is None:
            raise self._bad_substitution()
        self.place = match.end()
        # Quotes around the whole do not quote a pattern in it.
        word = self._until_brace(quoted and match[0][0] not in "#%")
        return Parameter(name, match[0], word, quoted)

    def _bad_substitution(self) -> ShellSyntaxError:
        incomplete = self.place >= len(self.text)
        words = "missing '}'" if incomplete else "bad substitution"
        return ShellSyntaxError(words, incomplete=incomplete)

    def _until_brace(self, quoted: bool) -> Word:
        parts: list[Part] = []
        while self.place < len(self.text):
            sign = self.text[self.place]
            if sign == "}":
                self.place += 1
                return tuple(parts)
            if sign in "$`":
                parts.append(self._expansion(quoted))
            elif sign == '"':
                self.place += 1
                parts += self._double_quoted()
            elif sign == "\\":
                parts += self._in_quotes('$`"\\}') if quoted else self._escaped()
            elif sign == "'" and not quoted:
                parts += self._part(sign)
            else:
                self.place += 1
                parts.append(Literal(sign, quoted))
        raise ShellSyntaxError("missing '}'", incomplete=True)

    def _backquoted(self, quoted: bool) -> Part:
        begin = self.place + 1
        place, script = begin, list[str]()
        while place < len(self.text):
            sign = self.text[place]
            if sign == "`":
                self.place = place + 1
                inner = Lexer("".join(script) + "\n)", self._commands)
                inner.level = self.level
                return Substitution(self._commands(inner), quoted)
            following = self.text[place + 1 : place + 2]
            if sign == "\\" and following and following in ('$`\\"' if quoted else "$`\\"):
                script.append(following)
                place += 2
            else:
                script.append(sign)
                place += 1
        raise ShellSyntaxError("unterminated backquote", incomplete=True)

    # Here-documents

    def _read_documents(self) -> None:
        awaited, self._awaited = self._awaited, []
        for document in awaited:
            self._read_document(document)

    def _read_document(self, document: HereDocument) -> None:
        lines = []
        while self.place < len(self.text):
            end = self.text.find("\n", self.place)
            end = len(self.text) if end < 0 else end
            line = self.text[self.place : end]
            self.place = min(end + 1, len(self.text))
            if document.strip_tabs:
                line = line.lstrip("\t")
            if line == document.delimiter:
                break
            lines.append(line + "\n")
        text = "".join(lines)
        if document.expanded:
            inner = Lexer(text, self._commands)
            inner.level = self.level
            document.body += inner.quoted_text()
        else:
            document.body.append(Literal(text, quoted=True))
