"""The arithmetic of `podwright trace`: trees of spans, the critical path, medians."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.cli.trace_path import Node, account, find_path, medians, tree
from podwright.cli.trace_record import Kind, Span


def node(name: str, start: int, end: int, *children: Node, subject: str = "", error: str = "") -> Node:
    return Node(name, start, end, subject, error, call=name[0].isupper(), children=list(children))


def found(root: Node) -> Node:
    find_path(root)
    return root


def test_one_after_the_other_is_all_path() -> None:
    root = found(node("pod", 0, 100, node("A", 10, 40), node("B", 50, 90)))
    first, second = root.children
    assert (first.path, second.path) == ([(10, 40)], [(50, 90)])
    assert root.alone == [(0, 10), (40, 50), (90, 100)]


def test_of_two_at_once_the_later_end_was_waited_for() -> None:
    root = found(node("pod", 0, 100, node("short", 0, 60), node("long", 0, 100)))
    assert [(child.name, child.share) for child in root.children] == [("short", 0), ("long", 100)]


def test_what_was_overtaken_counts_until_then() -> None:
    root = found(node("pod", 0, 100, node("A", 0, 60), node("B", 40, 100)))
    assert [child.alone for child in root.children] == [[(0, 40)], [(40, 100)]]


def test_the_path_goes_into_what_was_waited_for() -> None:
    inner = node("runtime create", 20, 80)
    root = found(node("pod", 0, 100, node("CreateContainer", 10, 90, inner)))
    assert inner.path == [(20, 80)]
    assert root.children[0].alone == [(10, 20), (80, 90)]


def test_what_outlives_its_call_was_not_waited_for_after_it() -> None:
    late = node("exit files", 30, 300)
    root = found(node("pod", 0, 100, node("StartContainer", 0, 50, late), node("next", 60, 100)))
    assert late.path == [(30, 50)]
    assert account(root).total == 100


trees = st.recursive(
    st.builds(lambda a, b: node("step", min(a, b), max(a, b)), st.integers(0, 99), st.integers(0, 99)),
    lambda inner: st.builds(
        lambda a, b, children: node("step", min(a, b), max(a, b), *children),
        st.integers(0, 99),
        st.integers(0, 99),
        st.lists(inner, max_size=4),
    ),
    max_leaves=20,
)


@given(st.lists(trees, max_size=5))
def test_the_path_is_never_longer_or_shorter_than_the_start(children: list[Node]) -> None:
    root = found(node("pod", 0, 100, *children))
    moments = [at for each in root.below() for start, end in each.alone for at in range(start, end)]
    assert sorted(moments) == list(range(100)), "each moment belongs to one row"
    sums = account(root)
    assert sum(took for _, took in sums.steps) + sums.in_no_step + sums.between == 100


def test_the_account_names_what_has_no_step() -> None:
    call = node("CreateContainer", 10, 60, node("rootfs", 15, 25), node("runtime create", 30, 55))
    pull = node("PullImage", 10, 40, subject="app:1")
    sums = account(found(node("pod", 0, 70, call, pull)))
    assert sums.steps == [("runtime create", 25), ("rootfs", 10)]
    assert (sums.in_no_step, sums.between) == (15, 20)
    assert sums.beside == [("PullImage app:1", 30)]


# From spans to rows


def spans(*listed: Span) -> dict[str, Span]:
    return {span.id: span for span in listed}


def test_a_call_as_it_was_made_and_as_it_was_served_are_one_row() -> None:
    root = tree(
        spans(
            Span("p", "", "pod web", 1000, 2000),
            Span("c", "p", "RunPodSandbox", 1100, 1900, subject="web", kind=Kind.CALL),
            Span("s", "c", "RunPodSandbox", 1150, 1850, kind=Kind.SERVED, error="no address"),
            Span("n", "s", "cni add", 1200, 1800),
        )
    )
    (call,) = root.children
    assert (call.name, call.start, call.end, call.subject, call.error) == (
        "RunPodSandbox", 100, 900, "web", "no address",
    )  # fmt: skip
    assert [child.name for child in call.children] == ["cni add"]


def test_a_call_inside_a_call_is_a_step() -> None:
    root = tree(
        spans(
            Span("p", "", "pod web", 0, 100),
            Span("c", "p", "RunPodSandbox", 0, 90, kind=Kind.CALL),
            Span("s", "c", "RunPodSandbox", 0, 90, kind=Kind.SERVED),
            Span("i", "s", "PullImage", 10, 50, kind=Kind.SERVED),
        )
    )
    assert [child.name for child in root.children[0].children] == ["PullImage"]


def test_what_has_not_ended_goes_to_the_end() -> None:
    root = tree(spans(Span("p", "", "pod web", 0, 100), Span("c", "p", "RunPodSandbox", 40, kind=Kind.CALL)))
    (call,) = root.children
    assert (call.end, call.ended) == (100, False)


def test_an_init_container_runs_until_the_next_is_made() -> None:
    root = tree(
        spans(
            Span("p", "", "pod web", 0, 100),
            Span("a", "p", "CreateContainer", 0, 10, subject="setup", kind=Kind.CALL),
            Span("b", "p", "StartContainer", 10, 20, subject="setup", kind=Kind.CALL),
            Span("x", "p", "ContainerStatus", 50, 51, subject="setup", kind=Kind.CALL),
            Span("c", "p", "CreateContainer", 70, 80, subject="main", kind=Kind.CALL),
            Span("d", "p", "StartContainer", 80, 100, subject="main", kind=Kind.CALL),
        ),
        ["setup"],
    )
    (run,) = (child for child in root.children if child.name == "init container runs")
    assert (run.start, run.end, run.subject) == (20, 70, "setup")
    assert account(root).between == 0


# Medians


def test_medians_of_each_row() -> None:
    def start(took: int) -> Node:
        inner = node("cni add", 12, 10 + took, subject=f"id{took}")
        return node("pod", 0, 10 + took, node("RunPodSandbox", 10, 10 + took, inner, subject="web"))

    root = medians([start(10), start(90), start(30)])
    (call,) = root.children
    assert (root.p50, root.longest, root.runs) == (40, 100, 3)
    assert (call.p50, call.longest) == (30, 90)
    assert [(child.name, child.p50) for child in call.children] == [("cni add", 28)]
    assert account(root).total == 40


def test_rows_of_less_than_half_of_the_starts_are_left_out() -> None:
    pull = node("PullImage", 0, 50, subject="app:1")
    run = node("RunPodSandbox", 50, 60)
    others = [node("pod", 0, 10, node("RunPodSandbox", 0, 10)) for _ in range(2)]
    root = medians([node("pod", 0, 60, pull, run), *others])
    assert [child.name for child in root.children] == ["RunPodSandbox"]
    # One of two is not more than half.
    assert [child.name for child in medians([node("pod", 0, 60, pull), others[0]]).children] == []


def test_calls_of_one_name_keep_their_order() -> None:
    def start(first: int) -> Node:
        calls = [node("ImageStatus", first, first + 1), node("ImageStatus", first + 10, first + 12)]
        return node("pod", 0, 50, *calls)

    root = medians([start(1), start(2), start(3)])
    assert [(child.start, child.p50) for child in root.children] == [(2, 1), (12, 2)]


@given(st.lists(st.lists(st.integers(1, 20), min_size=3, max_size=3), min_size=1, max_size=7))
def test_what_came_one_after_the_other_does_so_in_medians(starts: list[list[int]]) -> None:
    roots = []
    for lengths in starts:
        ends = [sum(lengths[: count + 1]) for count in range(3)]
        children = [node(f"Call{i}", end - lengths[i], end) for i, end in enumerate(ends)]
        roots.append(node("pod", 0, ends[-1], *children))
    root = medians(roots)
    edges = list(_edges(root))
    assert edges == sorted(edges)
    assert account(root).total == root.end


def _edges(root: Node) -> Iterator[int]:
    for child in root.children:
        yield from (child.start, child.end)


@pytest.mark.parametrize("total", [0, 1])
def test_a_start_that_took_no_time(total: int) -> None:
    root = found(node("pod", 0, total, node("Version", 0, total)))
    assert account(root).total == total
