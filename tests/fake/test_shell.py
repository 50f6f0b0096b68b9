"""The fake containers' shell: it does what busybox's does, and whatever it cannot read it says so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.engines.fake.programs.shell.parser import parse
from podwright.engines.fake.programs.shell.syntax import Literal, ShellSyntaxError, Simple
from tests.fake.busybox import Real, fake, programs, real, scripts
from tests.fake.containers import Node

__all__ = ["programs", "real"]


@pytest.mark.parametrize("script", scripts("shell"))
async def test_scripts_do_what_they_do_in_busybox(script: str, real: Real, tmp_path: Path) -> None:
    assert await fake(tmp_path, script) == real.run(script)


@pytest.mark.parametrize(
    "body", ["f", "if true; then while true; do case x in x) for i in 1; do { f; }; done;; esac; done; fi"]
)
async def test_endless_recursion_ends_the_script_and_nothing_else(body: str, tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    done = await case.exec("sh", "-c", f"f() {{ {body}; }}; f; echo not reached")
    assert (done.code, done.stdout) == (2, b"")
    assert b"sh: too many" in done.stderr
    assert case.running


# Reading

_SIGNS = st.sampled_from(
    [
        *"ab1 \t\n'\"\\$`(){}<>|&;#=*?[]!~:-+%@/",
        *("if ", "then ", "fi\n", "$(", "${", "<<E\n", "$((", "do ", "done ", "case x in "),
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_SIGNS, max_size=25).map("".join)))
def test_any_text_is_a_script_or_a_syntax_error(text: str) -> None:
    try:
        parse(text)
    except ShellSyntaxError as error:
        assert str(error)


@pytest.mark.parametrize(
    "deep", ["$(" * 3000, "(" * 3000, "{ " * 3000, "${x:-" * 3000, "$((" * 3000, "if " * 3000]
)
def test_endless_nesting_is_a_syntax_error(deep: str) -> None:
    with pytest.raises(ShellSyntaxError):
        parse(deep)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12), min_size=1, max_size=4
    )
)
def test_quoted_words_are_read_as_they_were_meant(words: list[str]) -> None:
    [item] = parse(shlex.join(["echo", *words])).items
    [command] = item.first.commands
    assert isinstance(command, Simple)
    assert [_literal(word) for word in command.words] == ["echo", *words]


def _literal(word: tuple[object, ...]) -> str:
    assert all(isinstance(part, Literal) for part in word)
    return "".join(part.text for part in word if isinstance(part, Literal))


@pytest.mark.parametrize(
    "text",
    ["if", "echo 'a", 'echo "a', "a |", "a &&", "(a", "{ a;", "$(a", "${a", "`a", "for i in a", "case a in"],
)
def test_what_more_text_may_complete_is_told_from_what_is_wrong(text: str) -> None:
    with pytest.raises(ShellSyntaxError) as caught:
        parse(text)
    assert caught.value.incomplete


@pytest.mark.parametrize("text", ["fi", "a | | b", ")", "a;;", "for 1 in a", "${a!b}", "& a", "( )"])
def test_what_no_text_can_complete_is_simply_wrong(text: str) -> None:
    with pytest.raises(ShellSyntaxError) as caught:
        parse(text)
    assert not caught.value.incomplete
