"""Where the time of a start went, as arithmetic: the tree of its spans, the critical path through it, medians
of several starts. Nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from podwright.cli.trace_record import Kind, Span


@dataclass(slots=True)
class Node:
    """A row: nanoseconds since the start began. `path` are the intervals in which all waited for it, or for
    something inside it; `alone` those of them that belong to nothing inside."""

    name: str
    start: int
    end: int
    subject: str = ""
    error: str = ""
    ended: bool = True
    call: bool = False
    """A call, as it was made."""
    children: list[Node] = field(default_factory=list)
    path: list[tuple[int, int]] = field(default_factory=list)
    alone: list[tuple[int, int]] = field(default_factory=list)
    p50: int = 0
    """Of several starts: the median of the time it took. Its begin and end are medians, too, so what came
    one after the other does so here; the time between them may be another."""
    longest: int = 0
    """… and the longest."""
    runs: int = 1
    """In how many starts it was."""

    @property
    def took(self) -> int:
        return self.end - self.start

    @property
    def share(self) -> int:
        """Nanoseconds of the critical path that are its own."""
        return sum(end - begin for begin, end in self.alone)

    def below(self) -> Iterator[Node]:
        """Itself and all inside, in the order of rows."""
        yield self
        for child in self.children:
            yield from child.below()


def tree(spans: Mapping[str, Span], init_containers: Sequence[str] = (), now: int = 0) -> Node:
    """The rows of one start, which has ended or goes on `now`. A call as it was made and the same call as it
    was served are one; an init container's run, which is no call, is a row of its own."""
    listed = list(spans.values())
    whole, end = listed[0], listed[0].end or now
    merged = {span.id: span.parent_id for span in listed if _is_served(span, spans)}
    nodes: dict[str, Node] = {}
    for span in listed:
        if span.id in merged:
            continue
        nodes[span.id] = _node(span, whole.start, end)
        for served in listed:
            if merged.get(served.id) == span.id and served.error and not span.error:
                nodes[span.id].error = served.error
    root = nodes[whole.id]
    for span in listed[1:]:
        if span.id in merged:
            continue
        above = merged.get(span.parent_id, span.parent_id)
        nodes.get(above, root).children.append(nodes[span.id])
    root.children += _init_runs(root, init_containers)
    for node in root.below():
        node.children.sort(key=lambda each: (each.start, -each.end))
    find_path(root)
    return root


def _is_served(span: Span, spans: Mapping[str, Span]) -> bool:
    above = spans.get(span.parent_id)
    if span.kind is not Kind.SERVED or above is None:
        return False
    return above.kind is Kind.CALL and above.name == span.name


def _node(span: Span, first: int, last: int) -> Node:
    start = min(max(span.start, first), last)
    end = max(start, last if span.end is None else min(span.end, last))
    ended, call = span.end is not None, span.kind is Kind.CALL
    return Node(span.name, start - first, end - first, span.subject, span.error, ended, call)


def _init_runs(root: Node, init_containers: Sequence[str]) -> list[Node]:
    calls = [node for node in root.below() if node.call]
    next_ones = sorted(call.start for call in calls if call.name in ("PullImage", "CreateContainer"))
    runs = []
    for call in calls:
        if call.name == "StartContainer" and call.subject in init_containers and not call.error:
            end = next((start for start in next_ones if start > call.end), root.end)
            runs.append(Node("init container runs", call.end, end, call.subject))
    return runs


def find_path(root: Node) -> None:
    """Fill in `path` and `alone`: backwards from the end, what ended last is what was waited for."""
    for node in root.below():
        node.path, node.alone = [], []
    _walk(root, root.start, root.end)
    for node in root.below():
        node.path.reverse()
        node.alone.reverse()


def _walk(node: Node, begin: int, end: int) -> None:
    if end <= begin:
        return
    node.path.append((begin, end))
    # What outlives the call above it was not waited for there.
    at = end
    for child in sorted(node.children, key=lambda each: each.end, reverse=True):
        first, last = max(child.start, begin), min(child.end, at)
        if last <= first:
            continue
        if last < at:
            node.alone.append((last, at))
        _walk(child, first, last)
        at = first
    if begin < at:
        node.alone.append((begin, at))


@dataclass(frozen=True, slots=True)
class Account:
    """Where the time of the critical path went, in nanoseconds."""

    total: int
    steps: list[tuple[str, int]]
    """Names, and what each has of the path; the longest first."""
    beside: list[tuple[str, int]]
    """Calls and steps that went on at the same time, and took no time of the path."""
    in_no_step: int
    """In calls that have steps, and in none of these."""
    between: int
    """No call was under way."""


def account(root: Node) -> Account:
    """Add up the critical path of `root`; `total` is the sum of all the rest but `beside`."""
    steps: Counter[str] = Counter()
    in_no_step = 0
    beside: Counter[str] = Counter()
    for node in root.below():
        if node is root:
            continue
        if node.call and node.children:
            in_no_step += node.share
        elif node.share:
            steps[_title(node)] += node.share
        elif not node.children and not node.path and node.took:
            beside[_title(node)] += node.took
    return Account(root.took, steps.most_common(), beside.most_common(), in_no_step, root.share)


def _title(node: Node) -> str:
    return f"{node.name} {node.subject}" if node.name == "PullImage" else node.name


def medians(roots: Sequence[Node]) -> Node:
    """One tree of the trees of several starts: the medians of each row that more than half of them have."""
    root = _median(roots)
    find_path(root)
    return root


def _median(nodes: Sequence[Node], *, in_call: bool = False) -> Node:
    """`in_call`: what is inside may have ids for subjects, which are others in each start."""
    in_call = in_call or nodes[0].call
    groups: dict[tuple[str, str, int], list[Node]] = {}
    for node in nodes:
        seen: Counter[tuple[str, str]] = Counter()
        for child in node.children:
            kind = (child.name, "" if in_call else child.subject)
            groups.setdefault((*kind, seen[kind]), []).append(child)
            seen[kind] += 1
    children = [_median(group, in_call=in_call) for group in groups.values() if 2 * len(group) > len(nodes)]
    return Node(
        nodes[0].name,
        round(median(node.start for node in nodes)),
        round(median(node.end for node in nodes)),
        nodes[0].subject,
        next((node.error for node in nodes if node.error), ""),
        all(node.ended for node in nodes),
        nodes[0].call,
        sorted(children, key=lambda each: (each.start, -each.end)),
        p50=round(median(node.took for node in nodes)),
        longest=max(node.took for node in nodes),
        runs=len(nodes),
    )
