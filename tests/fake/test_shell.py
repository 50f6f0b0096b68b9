"""The fake containers' shell: it does what busybox's does, and whatever it cannot read it says so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.engines.fake.programs.shell.parser import parse
from podwright.engines.fake.programs.shell.syntax import Literal, ShellSyntaxError, Simple
from tests.fake.busybox import Real, fake, programs, real

__all__ = ["programs", "real"]

SCRIPTS = [
    # Words and quotes
    r"""echo 'single $x "q"' "double $HOME \$x \" \\ \a" a\ b \'""",
    "echo \"a  b\"  c   d; echo 'it'\"'\"'s'",
    "echo a\\\nb",
    "echo \"\" '' | cat -; set -- \"\" ''; echo $#",
    "echo a#b #c",
    'echo "`echo back \\`echo inner\\``"',
    "echo {a,b} ~x ~ ~/y",
    # Parameters
    "x=5; echo $x ${x} ${x}y \"$x\" '$x' $xy.",
    "echo ${u:-default} ${u-d} ${u:=set} $u ${u:+alt} ${v+alt}.",
    "x=; echo [${x:-empty}] [${x-empty}] [${x:+a}] [${x+a}]",
    'echo ${u:-"a  b"} ${u:-a  b} "${u:-a  \'b\'}"',
    "x=abc; echo ${#x} ${#u}",
    "f=/a/b/c.tar.gz; echo ${f##*/} ${f#*/} ${f%.*} ${f%%.*} ${f%/*}",
    "x='a*b'; echo \"${x#a\\*}\" \"${x%'*b'}\"",
    "${u:?is missing}; echo not reached",
    "set -u; echo before; echo $undefined; echo after",
    'set -- a \'b c\' d; echo $# $1 $2 "$3"; for i in "$@"; do echo "<$i>"; done',
    'set -- a \'b c\' d; for i in $*; do echo "<$i>"; done; echo "$*"; shift; echo $1; shift 2; echo $#',
    'set --; for i in "$@"; do echo never; done; echo $# "x$@y"',
    'IFS=:; x=a:b::c; for i in $x; do echo "<$i>"; done; set -- p q; echo "$*"',
    "x='  lead trail  '; echo $x.; for i in a$x; do echo \"<$i>\"; done",
    "echo $0 $1 $2",
    "x=1 y=2; x=3 env | grep -c '^x=3'; echo $x$y",
    "x=1; unset x; echo [$x]; readonly r=1; r=2; echo not reached",
    # Substitution, arithmetic
    'x=$(echo a; echo b; echo); echo "$x"; echo $x',
    'echo $(echo $(echo deep)) "$(echo "a  b")"',
    "echo $(case x in x) echo yes;; esac) $( (echo sub) )",
    "x=$(exit 3); echo $?; x=$(false) || echo failed",
    "i=5; echo $((i+1)) $((i*2-1)) $((i/2)) $((i%3)) $((-i)) $((i<<2)) $(((i+1)*2)) $((1?2:3))",
    "i=1; : $((i+=4)); echo $i $((i++)) $i $((++i)) $((i>3&&i<9)) $((!i)) $((0x10)) $((010))",
    "echo $((1/0)); echo not reached",
    "echo $((2 +)); echo not reached",
    # Lists and pipes
    "true && echo a || echo b; false && echo a || echo b; ! true; echo $?; ! false && echo c",
    "echo a | tr a b | cat; echo $?; true | false; echo $?; false | true; echo $?",
    "{ echo a; echo b; } | wc -l | tr -d ' '; (exit 4); echo $?; (x=1); echo [$x]",
    "x=0; echo q | { read y; x=$y; echo $x; }; echo $x",
    'yes | head -n 2; seq 3 | while read n; do echo "n=$n"; done',
    "false; echo $?; nosuchprogram 2>/dev/null; echo $?; ./nosuch 2>/dev/null; echo $?",
    "sleep 0.01 & wait $!; echo $?; (exit 7) & wait $!; echo $?; wait; echo $?",
    # Redirections
    "echo one > f; echo two >> f; cat < f; cat f f | wc -l | tr -d ' '; rm f; cat f 2>/dev/null; echo $?",
    "{ echo out; echo err >&2; } 2>&1 | sort; { echo out; echo err >&2; } 2>/dev/null",
    "echo x 2>&1 >/dev/null; echo a >&2 2>/dev/null; exec 3>g; echo three >&3; exec 3>&-; cat g",
    "cat < nosuch; echo $?; echo a > no/such/dir; echo $?; echo b",
    "cat <<E\nhi $((1+1)) $(echo sub) \\$x `echo b`\nE\ncat <<'E'\n$raw\nE\ncat <<-E\n\ttabs\n\tE\necho end",
    'while read a b; do echo "$b $a"; done <<E\n1 2 3\n4\nE',
    "echo to-stdout > /dev/stdout; echo gone > /dev/null; cat /dev/null; exec > h; echo in-h; cat h >&2",
    "echo a > f; read x < f; echo $x; : > f; cat f; > f2; [ -e f2 ] && echo made",
    # Compound commands
    "if true; then echo a; fi; if false; then echo a; elif true; then echo b; else echo c; fi; echo $?",
    "if false; then echo a; fi; echo $?; while false; do :; done; echo $?",
    "i=0; while [ $i -lt 10 ]; do i=$((i+1)); [ $i = 3 ] && continue; [ $i = 5 ] && break; echo $i; done",
    "for i in 1 2; do for j in 1 2 3; do [ $j = 2 ] && continue 2; echo $i$j; done; done; break; echo $?",
    "for i in 1 2; do for j in a b; do echo $i$j; break 2; done; done; for x in; do echo never; done",
    'until [ "$n" = xx ]; do n=x$n; done; echo $n',
    "case abc in a*) echo one;; *) echo two;; esac; case x in a|x) echo hit;; esac; case q in a) :;; esac; echo $?",
    "case '*' in '*') echo star;; esac; case a in [!b-z]) echo class;; esac; case a in (a) echo paren; esac",
    'f() { echo "f:$1:$#"; return 3; }; f a b; echo $?; g() ( x=1 ); g; echo [$x]; f | cat',
    "f() { local x=in; echo $x; }; x=out; f; echo $x; f() { echo new; }; f",
    # Builtins
    "set -e; echo a; false; echo not reached",
    "set -e; false || echo or; if false; then :; fi; ! true; echo still; (false); echo not reached",
    "set -x 2>/dev/null; set +x; set -- -a; echo $1; set -o errexit; false; echo no",
    "trap 'echo bye' EXIT; echo hi; exit 3",
    "trap 'echo got; exit 5' TERM; kill -TERM $$; echo not reached",
    "trap '' TERM; kill $$; echo survived; trap - TERM; kill $$; echo not reached",
    "kill -9 $$; echo not reached",
    "sh -c 'kill -TERM $$'; echo $?; (trap 'echo sub' EXIT); echo $?",
    "eval 'x=1; echo $x'; eval; echo $?; eval 'if'; echo not reached",
    "echo 'y=sourced; echo in' > lib; . ./lib; echo $y; . ./nosuch; echo not reached",
    "export a=1; sh -c 'echo [$a] [$b]'; b=2; sh -c 'echo [$b]'; export b; sh -c 'echo [$b]'",
    "sh -c 'echo $0 $1 $#' name arg1 arg2; echo 'echo from stdin; exit 4' | sh; echo $?",
    "echo 'echo script $1' > s; sh s arg; sh nosuch; echo $?",
    "printf 'a b c\\n' | { read x y; echo \"[$x][$y]\"; }; echo ' p:q ' | { IFS=: read x y; echo \"[$x][$y]\"; }",
    "printf 'a\\\\b c\\n' | { read x; echo \"$x\"; }; printf 'a\\\\b\\n' | { read -r x; echo \"$x\"; }; read x </dev/null; echo $?",
    "exec echo replaced; echo not reached",
    "(exec false); echo $?; exec nosuchprogram; echo not reached",
    "mkdir d; cd d; cd ..; ls; cd nosuch; echo $?; command -v echo; command -v nosuch; echo $?",
    "touch b a c; echo *; echo [ab]; echo ?.x; echo '*'; x='*'; echo $x \"$x\"",
    "mkdir -p p/q; touch p/q/z p/y; echo p/* p/*/*; rm -r p; ls",
    "exit 300",
    "exit x",
    "return 4",
    "shift 1; echo $?",
    # Errors
    "echo a; if",
    "echo 'open",
    "fi",
    "echo a | | b",
    "(echo a",
    "for 1 in a; do :; done",
    "a() b",
    "echo before\necho ${x!y}\necho after",
    "case x in",
    "while true; do",
    "{ echo a;",
    "echo a &&",
    "& x",
]


@pytest.mark.parametrize("script", SCRIPTS)
async def test_scripts_do_what_they_do_in_busybox(script: str, real: Real, tmp_path: Path) -> None:
    assert await fake(tmp_path, script) == real.run(script)


# Reading

_SIGNS = st.sampled_from(
    list("ab1 \t\n'\"\\$`(){}<>|&;#=*?[]!~:-+%@/")
    + ["if ", "then ", "fi\n", "$(", "${", "<<E\n", "$((", "do ", "done ", "case x in "]
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
