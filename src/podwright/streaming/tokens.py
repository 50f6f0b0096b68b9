"""One-time tokens: the part of a streaming URL that says whose it is, and that nobody can guess."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from podwright.errors import ResourceExhausted

LIFETIME = 60.0
"""Seconds within which a token must be used; the peers' value."""

LIMIT = 1000
"""Tokens that may wait for their clients at once; the peers' value."""

BYTES = 6
"""Of chance in a token: eight characters of base64url."""

T = TypeVar("T")


class Tokens(Generic[T]):
    """What was asked for, by the token that stands for it. `now` gives seconds that never go back."""

    def __init__(
        self, *, lifetime: float = LIFETIME, limit: int = LIMIT, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._lifetime = lifetime
        self._limit = limit
        self._now = now
        self._waiting: dict[str, tuple[float, T]] = {}
        """In the order in which they expire."""

    def __len__(self) -> int:
        self._sweep()
        return len(self._waiting)

    def add(self, asked: T) -> str:
        """A new token for `asked`. ResourceExhausted while too many wait."""
        self._sweep()
        if len(self._waiting) >= self._limit:
            raise ResourceExhausted(
                f"{self._limit} streaming URLs have been given out and not used: use them, or wait until they"
                f" expire, {self._lifetime:g} s after each was made"
            )
        token = secrets.token_urlsafe(BYTES)
        while token in self._waiting:
            token = secrets.token_urlsafe(BYTES)
        self._waiting[token] = (self._now() + self._lifetime, asked)
        return token

    def look(self, token: str) -> T | None:
        """What `token` stands for; None when it was never given, is used up or has expired."""
        self._sweep()
        found = self._waiting.get(token)
        return None if found is None else found[1]

    def take(self, token: str) -> T | None:
        """As `look`; the token is used up."""
        asked = self.look(token)
        self._waiting.pop(token, None)
        return asked

    def clear(self) -> None:
        self._waiting.clear()

    def _sweep(self) -> None:
        now = self._now()
        while self._waiting:
            token = next(iter(self._waiting))
            if self._waiting[token][0] > now:
                return
            del self._waiting[token]
