"""test(1), also called [: conditions on texts, numbers and files."""

from __future__ import annotations

from podwright.engines.fake.programs.context import Context

_UNARY = ("-n", "-z", "-e", "-f", "-d", "-s", "-r", "-w", "-x", "-c", "-b", "-p", "-L", "-h", "-S", "-t")
_NUMBERS = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}
_TEXTS = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


async def test(context: Context) -> int:
    words = context.argv[1:]
    try:
        if context.name == "[":
            if words[-1:] != ["]"]:
                raise ValueError("missing ]")
            words.pop()
        condition = _Condition(context, words)
        return 0 if condition.value() else 1
    except ValueError as error:
        await context.error(str(error))
        return 2


class _Condition:
    def __init__(self, context: Context, words: list[str]) -> None:
        self._context = context
        self._words = words

    def value(self) -> bool:
        words = self._words
        if not words:
            return False
        # POSIX decides by the number of arguments, so that any text can stand as an operand.
        if len(words) == 1:
            return bool(words[0])
        if len(words) == 2 and words[0] == "!":
            return not words[1]
        if len(words) == 3 and (words[1] in _TEXTS or words[1] in _NUMBERS):
            return self._primary()
        if len(words) == 4 and words[0] == "!":
            self._words = words[1:]
            return not _Condition(self._context, words[1:]).value()
        found = self._or()
        if self._words:
            raise ValueError(f"{self._words[0]}: unknown operand")
        return found

    def _or(self) -> bool:
        found = self._and()
        while self._words[:1] == ["-o"]:
            del self._words[0]
            right = self._and()
            found = found or right
        return found

    def _and(self) -> bool:
        found = self._not()
        while self._words[:1] == ["-a"]:
            del self._words[0]
            right = self._not()
            found = found and right
        return found

    def _not(self) -> bool:
        if self._words[:1] == ["!"]:
            del self._words[0]
            return not self._not()
        return self._primary()

    def _primary(self) -> bool:
        words = self._words
        if not words:
            raise ValueError("argument expected")
        if len(words) >= 3 and words[1] in _TEXTS:
            left, operator, right = self._take(3)
            return bool(_TEXTS[operator](left, right))
        if len(words) >= 3 and words[1] in _NUMBERS:
            left, operator, right = self._take(3)
            return bool(_NUMBERS[operator](_number(left), _number(right)))
        if words[0] == "(":
            del words[0]
            found = self._or()
            if words[:1] != [")"]:
                raise ValueError("closing paren expected")
            del words[0]
            return found
        if len(words) >= 2 and words[0] in _UNARY:
            return self._unary(*self._take(2))
        return bool(self._take(1)[0])

    def _take(self, count: int) -> list[str]:
        taken = self._words[:count]
        del self._words[:count]
        return taken

    def _unary(self, operator: str, word: str) -> bool:
        if operator in ("-n", "-z"):
            return bool(word) == (operator == "-n")
        if operator == "-t":
            fd = self._context.fds.get(_number(word))
            return fd is not None and fd.terminal
        kind = self._context.kind(word)
        if kind is None or operator in ("-L", "-h", "-p", "-S", "-b"):
            return False
        if operator == "-s":
            return kind.size > 0 or kind.letter == "d"
        if operator == "-x":
            return kind.executable
        return operator not in ("-f", "-d", "-c") or operator == f"-{kind.letter}"


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text}: bad number") from None
