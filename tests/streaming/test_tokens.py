"""One-time tokens: unguessable, used once, short-lived, limited in number."""

from __future__ import annotations

import re

import pytest

from podwright.errors import ResourceExhausted
from podwright.streaming.tokens import LIFETIME, LIMIT, Tokens


class Hand:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_a_token_is_eight_characters_fit_for_a_url_and_works_once() -> None:
    tokens: Tokens[str] = Tokens()
    token = tokens.add("exec")
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}", token)
    assert tokens.look(token) == "exec"
    assert tokens.take(token) == "exec"
    assert tokens.take(token) is None
    assert tokens.look(token) is None


def test_tokens_differ() -> None:
    tokens: Tokens[int] = Tokens()
    made = [tokens.add(at) for at in range(LIMIT)]
    assert len(set(made)) == LIMIT
    assert [tokens.take(token) for token in made] == list(range(LIMIT))


def test_a_token_expires_after_a_minute() -> None:
    clock = Hand()
    tokens: Tokens[str] = Tokens(now=clock)
    early = tokens.add("early")
    clock.time += LIFETIME - 0.1
    late = tokens.add("late")
    assert tokens.look(early) == "early"
    clock.time += 0.1
    assert tokens.take(early) is None
    assert tokens.take(late) == "late"


def test_a_thousand_may_wait_and_expired_ones_make_room() -> None:
    clock = Hand()
    tokens: Tokens[int] = Tokens(now=clock)
    for at in range(LIMIT - 1):
        tokens.add(at)
    clock.time += 1
    last = tokens.add(-1)
    with pytest.raises(ResourceExhausted, match="1000 streaming URLs"):
        tokens.add(0)
    tokens.take(last)
    last = tokens.add(-2)
    with pytest.raises(ResourceExhausted):
        tokens.add(0)
    clock.time += LIFETIME - 1
    assert len(tokens) == 1
    assert [tokens.add(0) for _ in range(LIMIT - 1)]
    assert tokens.look(last) == -2
