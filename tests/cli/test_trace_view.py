"""What `podwright trace` draws: the waterfall as lines of text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.cli.trace_bars import Piece, axis, bar, duration
from podwright.cli.trace_path import Node, find_path, medians
from podwright.cli.trace_view import Look, waterfall

MS = 1_000_000
RED, YELLOW, BLUE = "\x1b[31m", "\x1b[33m", "\x1b[34m"


def node(name: str, start: float, end: float, *children: Node, **more: object) -> Node:
    """Times in milliseconds."""
    call = name[0].isupper()
    made = Node(name, round(start * MS), round(end * MS), call=call, children=list(children))
    for key, value in more.items():
        setattr(made, key, value)
    return made


def web(**of_create: object) -> Node:
    root = node(
        "pod web", 0, 400,
        node(
            "RunPodSandbox", 0, 200,
            node("namespaces", 0, 20),
            node("cni add", 20, 200, node("cni plugin", 25, 190, subject="bridge ADD")),
            subject="web",
        ),
        node("PullImage", 0, 100, subject="app:1"),
        node("ImageStatus", 200, 201, subject="app:1"),
        node("PodSandboxStatus", 201, 202),
        node(
            "CreateContainer", 204, 300,
            node("runtime create", 210, 290, **of_create),
            subject="main", **{key: value for key, value in of_create.items() if key == "error"},
        ),
        node("StartContainer", 300, 400, subject="main"),
    )  # fmt: skip
    find_path(root)
    return root


WATERFALL = """\
                                took  path  0            200 ms
pod web                       400 ms  0.5%  ━━━━━━━━━━━━━━━━━━━━━━━━━━
├ RunPodSandbox web           200 ms        ━━━━━━━━━━━━━╸
│ ├ namespaces               20.0 ms    5%  █▎
│ └ cni add                   180 ms    4%   ╺━━━━━━━━━━█▏
│   └ cni plugin bridge ADD   165 ms   41%   ▐██████████▍
├ PullImage app:1             100 ms        ░░░░░░░
├ CreateContainer main       96.0 ms    4%               ▐━━━━━▌
│ └ runtime create           80.0 ms   20%               ▐████▉
├ StartContainer main         100 ms   25%                     ▐██████
└ 2 short calls: ImageStat…  2.00 ms  0.5%               ▏

total          400 ms
critical path  cni plugin 165 ms (41%), StartContainer 100 ms (25%),
               runtime create 80.0 ms (20%), namespaces 20.0 ms (5%),
               cni add 15.0 ms (4%), 2 more 2.00 ms (0.5%)
beside it      PullImage app:1 100 ms
unaccounted    in no step of a call 16.0 ms (4%),
               between calls 2.00 ms (0.5%)
"""


def test_the_waterfall_of_a_start() -> None:
    assert waterfall(web(), Look(70)) == WATERFALL.splitlines()


def test_a_wide_terminal_tells_the_begins() -> None:
    lines = waterfall(web(), Look(100))
    assert lines[0].split() == ["begins", "took", "path", "0", "100", "200", "300", "ms"]
    assert "cni plugin bridge ADD  25.0 ms   165 ms   41%" in lines[5]
    assert max(map(len, lines)) <= 100


def test_a_narrow_terminal_has_no_bars() -> None:
    lines = waterfall(web(), Look(45))
    assert lines[:3] == [
        "                                took  path",
        "pod web                       400 ms  0.5%",
        "├ RunPodSandbox web           200 ms",
    ]
    assert "critical path" in lines and "  cni plugin 165 ms (41%)," in lines
    assert not any(glyph in "".join(lines) for glyph in "█━░")


@pytest.mark.parametrize("width", [40, 47, 56, 60, 80, 96, 100, 160, 250])
@pytest.mark.parametrize("error", ["", "no such file or directory: /nonexistent " * 5])
def test_no_line_is_wider_than_the_terminal(width: int, error: str) -> None:
    one = web(error=error)
    for root in (one, medians([one, web(error=error)])):
        lines = waterfall(root, Look(width), "2 starts, medians", ["this server tells no steps " * 3])
        assert max(map(len, lines)) <= width


def test_short_calls_have_rows_of_their_own_when_asked_for() -> None:
    lines = waterfall(web(), Look(100, every=True))
    assert any(line.startswith("├ ImageStatus app:1") for line in lines)
    assert not any("short calls" in line for line in lines)


def test_a_single_short_call_has_its_row() -> None:
    root = node("pod web", 0, 400, node("Version", 0, 1), node("RunPodSandbox", 1, 400))
    find_path(root)
    assert any(line.startswith("├ Version") for line in waterfall(root, Look(100)))


def test_calls_that_act_have_rows_however_short_but_not_what_is_inside() -> None:
    root = node(
        "pod web", 0, 9000,
        node("run sandbox", 0, 4, node("RunPodSandbox", 0, 4, node("namespaces", 1, 2), subject="web")),
        node("PullImage", 4, 9000, node("fetch blob", 5, 8000)),
    )  # fmt: skip
    find_path(root)
    names = [line.split("  ")[0] for line in waterfall(root, Look(70))[1:6]]
    assert names == ["pod web", "├ run sandbox", "│ └ RunPodSandbox web", "└ PullImage", ""]
    assert any("namespaces" in line for line in waterfall(root, Look(100, every=True)))


def test_an_error_stands_below_the_step_where_it_happened() -> None:
    lines = waterfall(web(error="crun failed with status 1"), Look(100))
    row = next(index for index, line in enumerate(lines) if "✗ runtime create" in line)
    assert lines[row + 1] == "│     crun failed with status 1"
    assert sum("crun failed" in line for line in lines) == 1
    assert any(line.startswith("├ ✗ CreateContainer main") for line in lines)


def test_an_error_is_red_and_cannot_change_the_terminal() -> None:
    lines = waterfall(web(error="bad \x1b[2Jthing"), Look(100, colours=True))
    row = next(index for index, line in enumerate(lines) if "✗ runtime create" in line)
    assert lines[row + 1] == f"{RED}│     bad  [2Jthing\x1b[0m"
    assert f"{RED}✗ runtime create" in lines[row] and "█" in lines[row].rpartition(RED)[2]


def test_without_colours_there_is_no_escape() -> None:
    assert not any("\x1b" in line for line in waterfall(web(error="x"), Look(100)))


def test_the_critical_path_stands_out() -> None:
    lines = waterfall(web(), Look(100, colours=True))
    bars = {line: line.rpartition("  ")[2] for line in lines if "\x1b[1m" in line or "PullImage" in line}
    pull = next(line for line in lines if "PullImage" in line and "░" in line)
    assert f"{BLUE}░" in pull and "\x1b[1mPullImage" not in pull
    plugin = next(line for line in bars if "cni plugin" in line)
    assert "\x1b[1mcni plugin" in plugin and YELLOW in plugin and BLUE not in plugin


def test_what_has_not_ended_is_marked() -> None:
    root = node("pod web", 0, 400, node("RunPodSandbox", 100, 400, ended=False))
    find_path(root)
    (row,) = (line for line in waterfall(root, Look(60)) if "└ RunPodSandbox" in line)
    assert "> 300 ms" in row


def test_several_starts_tell_medians_and_the_longest() -> None:
    roots = [node("pod web", 0, end, node("RunPodSandbox", 0, end)) for end in (100, 200, 300)]
    lines = waterfall(medians(roots), Look(80), "3 starts, medians")
    assert lines[:2] == ["3 starts, medians", ""]
    assert lines[2].split()[:3] == ["p50", "longest", "path"]
    assert re.search(r"RunPodSandbox\s+200 ms\s+300 ms\s+100%", lines[4])


def test_ids_are_short() -> None:
    root = node("pod web", 0, 10, node("StopContainer", 0, 10, subject="3f" * 32))
    find_path(root)
    assert "StopContainer 3f3f3f3f3f3f " in waterfall(root, Look(100))[2]


def test_images_are_known_by_the_end_of_their_names() -> None:
    pull = node("PullImage", 0, 10, subject="registry.example:5000/team/app:1.2")
    root = node("pod web", 0, 10, pull)
    find_path(root)
    assert waterfall(root, Look(100))[2].startswith("└ PullImage app:1.2 ")


# Bars


def cells(total: int, count: int, *pieces: tuple[int, int, str]) -> str:
    return "".join(bar([Piece(*piece) for piece in pieces], total, count))


@pytest.mark.parametrize(
    ("pieces", "drawn"),
    [
        (((0, 100, "█"),), "██████████"),
        (((0, 50, "█"),), "█████     "),
        (((20, 45, "█"),), "  ██▌     "),
        (((25, 40, "█"),), "  ▐█      "),
        (((0, 1, "█"),), "▏         "),
        (((99, 100, "█"),), "         ▕"),
        (((100, 100, "█"),), "         ▕"),
        (((0, 0, "█"),), "▏         "),
        (((0, 20, "█"), (20, 80, "━"), (80, 100, "█")), "██━━━━━━██"),
        (((25, 75, "━"),), "  ╺━━━━╸  "),
        (((25, 75, "░"),), "  ░░░░░░  "),
        (((0, 1, "█"), (90, 91, "█")), "▏        ▏"),
        ((), "          "),
    ],
)
def test_bars_are_to_scale(pieces: tuple[tuple[int, int, str], ...], drawn: str) -> None:
    assert cells(100, 10, *pieces) == drawn


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 60), st.sampled_from("█━░╌"))
def test_a_bar_is_never_invisible_and_never_outside(start: int, end: int, count: int, glyph: str) -> None:
    start, end = min(start, end), max(start, end)
    drawn = cells(1000, count, (start, end, glyph))
    assert len(drawn) == count and drawn.strip()
    first, last = len(drawn) - len(drawn.lstrip()), len(drawn.rstrip())
    assert abs(first - start * count / 1000) <= 1 and abs(last - end * count / 1000) <= 1.001


@pytest.mark.parametrize(
    ("total", "count", "line"),
    [
        (400 * MS, 40, "0         100       200       300 ms"),
        (5 * MS, 40, "0       1       2       3       4 ms"),
        (90_000, 20, "0          50 µs"),
        (400 * MS, 9, "0  400 ms"),
        (0, 40, ""),
    ],
)
def test_the_axis_has_round_times(total: int, count: int, line: str) -> None:
    assert axis(total, count) == line


@given(st.integers(1, 10**12), st.integers(12, 200))
def test_the_axis_fits(total: int, count: int) -> None:
    assert len(axis(total, count)) <= count


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0.00 µs"),
        (999, "1.00 µs"),
        (85_000, "85.0 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (412 * MS, "412 ms"),
        (999_600_000, "1.00 s"),
        (12_340 * MS, "12.3 s"),
        (59_990 * MS, "60.0 s"),
        (125_000 * MS, "2m05s"),
    ],
)
def test_durations(nanoseconds: int, words: str) -> None:
    assert duration(nanoseconds) == words
