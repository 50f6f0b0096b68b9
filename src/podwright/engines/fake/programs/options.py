"""Options of the built-in programs: one letter each, joined or apart, as getopt(3) reads them."""

from __future__ import annotations

from collections.abc import Sequence


class UsageError(Exception):
    """The program was called wrongly; the words say how."""


def parse(
    arguments: Sequence[str], flags: str, valued: str = "", *, numbers: str = ""
) -> tuple[dict[str, str], list[str]]:
    """The options found (a flag has the value "") and the operands. `numbers`: the option that "-5" means.

    UsageError.
    """
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if numbers and word[1:].isdecimal():
            found[numbers] = word[1:]
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in valued:
                if not letters and not rest:
                    raise UsageError(f"option requires an argument -- '{letter}'")
                found[letter] = letters or rest.pop(0)
                break
            if letter not in flags:
                raise UsageError(f"unrecognized option: {letter}")
            found[letter] = ""
    return found, rest


def number(text: str) -> int:
    """UsageError."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"invalid number '{text}'") from None
