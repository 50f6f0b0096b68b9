"""What $((…)) computes: C's operators on 64-bit numbers, and variables. Pure but for the variables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator><<=|>>=|\+\+|--|\|\||&&|<<|>>|[-+*/%&|^=!<>]=|[-+*/%&|^!~<>=?:(),]))"
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<=", ">=", "<", ">"),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
"""Of operators with two operands, the weakest first."""
_ASSIGNMENTS = ("=", "+=", "-=", "*=", "/=", "%=", "<<=", ">>=", "&=", "^=", "|=")
MOST_NESTED = 50


class ExpressionError(Exception):
    """The expression cannot be computed; the words say why."""


class Variables(Protocol):
    def get(self, name: str) -> str: ...

    def set(self, name: str, value: str) -> None: ...


def evaluate(text: str, variables: Variables) -> int:
    """ExpressionError."""
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ExpressionError("arithmetic syntax error")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        place = match.end()
    if not tokens:
        return 0
    reader = _Reader(tokens, variables)
    value = reader.comma()
    if reader.place < len(tokens):
        raise ExpressionError("arithmetic syntax error")
    return value


def number(text: str) -> int:
    """The value of a variable in an expression. ValueError."""
    text = text.strip()
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if not digits:
        return 0
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", digits):
        return sign * int(digits, 16)
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    if not re.fullmatch(r"\d+", digits, re.ASCII) or len(digits) > 30:
        raise ValueError(text)
    return sign * int(digits)


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]], variables: Variables) -> None:
        self._tokens = tokens
        self._variables = variables
        self.place = 0
        self._level = 0
        self._skipping = 0
        """Inside an operand that does not count: nothing is assigned, nothing fails."""

    def comma(self) -> int:
        value = self._assignment()
        while self._taken(","):
            value = self._assignment()
        return value

    def _assignment(self) -> int:
        self._level += 1
        if self._level > MOST_NESTED:
            raise ExpressionError("expression too deep")
        try:
            kind, name = self._peek()
            _, operator = self._peek(1)
            if kind == "name" and operator in _ASSIGNMENTS:
                self.place += 2
                value = self._assignment()
                if operator != "=":
                    value = self._apply(operator[:-1], self._get(name), lambda: value)
                return self._set(name, value)
            return self._choice()
        finally:
            self._level -= 1

    def _choice(self) -> int:
        condition = self._binary(0)
        if not self._taken("?"):
            return condition
        first = self._part(bool(condition), self._assignment)
        if not self._taken(":"):
            raise ExpressionError("arithmetic syntax error")
        second = self._part(not condition, self._assignment)
        return first if condition else second

    def _part(self, counts: bool, read: Callable[[], int]) -> int:
        self._skipping += not counts
        try:
            return read()
        finally:
            self._skipping -= not counts

    def _binary(self, level: int) -> int:
        if level == len(_LEVELS):
            return self._unary()
        value = self._binary(level + 1)
        while (operator := self._peek()[1]) in _LEVELS[level] and self._peek()[0] == "operator":
            self.place += 1
            if operator in ("&&", "||"):
                right = self._part(bool(value) == (operator == "&&"), lambda: self._binary(level + 1))
                value = int(bool(value and right) if operator == "&&" else bool(value or right))
            else:
                value = self._apply(operator, value, lambda: self._binary(level + 1))
        return value

    def _apply(self, operator: str, left: int, operand: Callable[[], int]) -> int:
        right = operand()
        if operator in ("/", "%"):
            if not right:
                if self._skipping:
                    return 0
                raise ExpressionError("divide by zero")
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            return _wrapped(quotient if operator == "/" else left - quotient * right)
        return _wrapped(int(_OPERATIONS[operator](left, right)))

    def _unary(self) -> int:
        kind, text = self._peek()
        if kind == "operator" and text in ("-", "+", "!", "~"):
            self._level += 1
            if self._level > MOST_NESTED:
                raise ExpressionError("expression too deep")
            self.place += 1
            value = self._unary()
            self._level -= 1
            return _wrapped({"-": -value, "+": value, "!": int(not value), "~": ~value}[text])
        if kind == "operator" and text in ("++", "--"):
            self.place += 1
            name = self._name()
            return self._set(name, _wrapped(self._get(name) + (1 if text == "++" else -1)))
        return self._primary()

    def _primary(self) -> int:
        kind, text = self._peek()
        self.place += 1
        if kind == "number":
            return _wrapped(number(text))
        if kind == "name":
            value = self._get(text)
            if self._peek()[1] in ("++", "--"):
                step = 1 if self._peek()[1] == "++" else -1
                self.place += 1
                self._set(text, _wrapped(value + step))
            return value
        if text == "(":
            value = self.comma()
            if self._taken(")"):
                return value
        raise ExpressionError("arithmetic syntax error")

    def _name(self) -> str:
        kind, text = self._peek()
        if kind != "name":
            raise ExpressionError("arithmetic syntax error")
        self.place += 1
        return text

    def _get(self, name: str) -> int:
        try:
            return _wrapped(number(self._variables.get(name)))
        except ValueError:
            raise ExpressionError("arithmetic syntax error") from None

    def _set(self, name: str, value: int) -> int:
        if not self._skipping:
            self._variables.set(name, str(value))
        return value

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self.place + ahead
        return self._tokens[place] if place < len(self._tokens) else ("end", "")

    def _taken(self, operator: str) -> bool:
        if self._peek() == ("operator", operator):
            self.place += 1
            return True
        return False


_OPERATIONS: dict[str, Callable[[int, int], int | bool]] = {
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<<": lambda a, b: a << (b & 63),
    ">>": lambda a, b: a >> (b & 63),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _wrapped(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
