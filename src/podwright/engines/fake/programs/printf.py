"""printf(1): a format used again as long as there are arguments."""

from __future__ import annotations

import re

from podwright.engines.fake.programs.context import Context, encoded
from podwright.engines.fake.programs.plain import unescape

_PIECE = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+)?)?(?P<kind>[diouxXcsbeEfgG%])"
    r"|(?P<octal>\\[0-7]{1,3})|(?P<escape>\\x[0-9a-fA-F]{1,2}|\\.)|(?P<text>[^%\\]+|%|\\)",
    re.DOTALL,
)


async def printf(context: Context) -> int:
    arguments = context.argv[1:]
    if arguments[:1] == ["--"]:
        del arguments[0]
    if not arguments:
        await context.error("a format is needed")
        return 2
    pieces = list(_PIECE.finditer(arguments.pop(0)))
    written, wrong, stopped = bytearray(), [], False
    while not stopped:
        before = len(arguments)
        for piece in pieces:
            if piece["kind"]:
                made, complaint, stopped = _converted(piece, arguments)
                written += made
                wrong += [complaint] if complaint else []
            elif piece["octal"]:
                written.append(int(piece["octal"][1:], 8) & 0xFF)
            elif piece["escape"]:
                made, go_on = unescape(encoded(piece["escape"]), True)
                written += made
                stopped = not go_on
            else:
                written += encoded(piece["text"])
            if stopped:
                break
        if not arguments or len(arguments) == before:
            break
    await context.out(bytes(written))
    for complaint in wrong:
        await context.error(complaint)
    return int(bool(wrong))


def _converted(piece: re.Match[str], arguments: list[str]) -> tuple[bytes, str, bool]:
    """What a conversion makes of the next argument, a complaint about it, and whether that was all."""
    kind = piece["kind"]
    if kind == "%":
        return b"%", "", False
    width = _next(arguments) if piece["width"] == "*" else piece["width"] or ""
    precision = _next(arguments) if piece["precision"] == "*" else piece["precision"]
    spec = f"%{piece['flags']}{width}{'' if precision is None else '.' + precision}"
    word = _next(arguments)
    if kind in "sc":
        text = word[:1] if kind == "c" else word
        return encoded(f"{spec}s" % text), "", False
    if kind == "b":
        raw, go_on = unescape(encoded(word), True)
        return raw.rjust(int(width or 0)), "", not go_on
    try:
        value = _number(word)
        complaint = ""
    except ValueError:
        value, complaint = 0, f"invalid number '{word}'"
    if kind in "eEfgG":
        return (f"{spec}{kind}" % value).encode(), complaint, False
    whole = int(value)
    if kind in "uoxX" and whole < 0:
        whole += 1 << 64
    return (f"{spec}{'d' if kind in 'iu' else kind}" % whole).encode(), complaint, False


def _next(arguments: list[str]) -> str:
    return arguments.pop(0) if arguments else ""


def _number(word: str) -> float | int:
    if word[:1] in ("'", '"'):
        return ord(word[1:2] or "\0")
    text = word.strip()
    if not text:
        return 0
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", digits):
        return sign * int(digits, 16)
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    if re.fullmatch(r"\d+", digits, re.ASCII):
        return sign * int(digits)
    return float(text)
