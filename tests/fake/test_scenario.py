"""Scenarios: what can be written, how errors are named, what takes effect when; their reference and
example."""

from __future__ import annotations

import asyncio
import datetime
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podwright.clock import SYSTEM, VirtualClock
from podwright.engines.base import Sandbox
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.faults import EVENTS, PLACES
from podwright.engines.fake.scenario import (
    Scenario,
    apply,
    load,
    parse,
    parse_yaml,
    to_tree,
    to_yaml,
)
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import World
from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    PodwrightError,
    ResourceExhausted,
)
from podwright.wire import cri_pb2 as cri
from tests.fake.containers import START, Node
from tests.fake.test_values import spans, trees_of_curves
from tools import scenario_reference


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"colour": 1}, "scenario: Object contains unknown field colour"),
        (
            {"containers": [{}, {}, {"exit": {"after": "soon"}}]},
            "scenario.containers[2].exit.after: 'soon' is no time",
        ),
        ({"containers": [{"exit": {"code": 300}}]}, "scenario.containers[0].exit.code: Expected int <= 255"),
        (
            {"containers": [{"exec": [{"times": -1}]}]},
            "scenario.containers[0].exec[0].times: Expected int >= 0",
        ),
        ({"containers": [{"ignore": ["SIGFOO"]}]}, "scenario.containers[0].ignore: invalid"),
        (
            {"containers": [{"logs": [{"text": "a", "stream": "log"}]}]},
            "scenario.containers[0].logs[0].stream: ",
        ),
        ({"containers": [{"stats": {"cpu": {"sine": 1}}}]}, "scenario.containers[0].stats.cpu.sine: wanted"),
        ({"containers": {}}, "scenario.containers: Expected array, got object"),
        (
            {"handlers": {"fake": {}, "kata": {"eror": "x"}}},
            "scenario.handlers.kata: Object contains unknown",
        ),
        ({"handlers": {"fake": {"error": 5}}}, "scenario.handlers.fake.error: Expected str, got int"),
        ({"handlers": {"runc": {}}}, "scenario: default_handler: 'fake' is none of the handlers: runc"),
        ({"addresses": {"ipv4": ""}}, "scenario.addresses: one of ipv4 and ipv6 is needed"),
        ({"addresses": {"ipv4": "10.1.1.1/8"}}, "scenario.addresses.ipv4: 10.1.1.1/8 has host bits set"),
        ({"addresses": {"ipv6": "10.0.0.0/8"}}, "scenario.addresses.ipv6: "),
        ({"images": {"items": [{}]}}, "scenario.images.items[0]: Object missing required field reference"),
        ({"images": {"rate": "5s"}}, "scenario.images.rate: '5s' is no rate"),
        ({"pods": [{"lost": {"normal": 1}}]}, "scenario.pods[0].lost.normal: wanted is [mean, "),
        (
            {"images": {"items": [{"reference": "a", "config": {"Env": ["A"]}}]}},
            "scenario.images.items[0].config.Env: ",
        ),
        ({"start": "2025-01-01T00:00:00"}, "scenario.start: "),
        ({"clock": "wall"}, "scenario.clock: Invalid enum value 'wall'; wanted is one of system, virtual"),
        (
            {"faults": [{"on": "*", "crash": "x"}]},
            "scenario.faults[0].crash: Invalid enum value 'x'; wanted is one of after, before",
        ),
        ({"seed": -1}, "scenario.seed: Expected int >= 0"),
        (
            {"containers": [{"logs": [{"text": "a", "count": 2}]}]},
            "scenario.containers[0].logs[0].count: 2 lines need every",
        ),
        *(
            (
                {"containers": [{"stats": {"cpu_pressure": curve}}]},
                f"scenario.containers[0].stats.cpu_pressure: it is a share of the time, "
                f"0 to 1, and rises to {peak}",
            )
            for curve, peak in [
                (7, "7"),
                ([["0s", 0.5], ["1s", 1.5], ["2s", 0]], "1.5"),
                ({"sine": {"base": 0.9, "amplitude": 0.2, "period": "1m"}}, "1.1"),
                ({"ramp": {"from": 0, "per_second": 0.1}}, "inf"),
                ({"ramp": {"from": 2, "per_second": -0.1}}, "2"),
                ({"noise": [{"ramp": {"from": 0, "per_second": 0.1, "max": 3}}, 0.1]}, "3"),
            ]
        ),
        ({True: 1}, "scenario: a key is wrong: Expected str"),
        (["seed"], "scenario: Expected object, got array"),
    ],
)
def test_an_error_names_the_path(tree: Any, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(tree)
    assert str(caught.value).startswith(says)
    assert "`" not in str(caught.value) and "$" not in str(caught.value)


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    for text, says in [
        ("seed: [1", f"{file}: scenario: is not YAML: "),
        (
            "seed: 1\nclock: system\nseed: 2",
            f"{file}: scenario: is not YAML: the key 'seed' is here twice\n  at line 3",
        ),
        (
            "containers:\n- exit: {code: 1, code: 2}",
            f"{file}: scenario: is not YAML: the key 'code' is here twice",
        ),
        ("? [a]\n: 1", f"{file}: scenario: is not YAML: while constructing a mapping"),
        ("seed: x", f"{file}: scenario.seed: Expected int"),
    ]:
        file.write_text(text)
        with pytest.raises(InvalidArgument) as caught:
            load(file)
        assert str(caught.value).startswith(says)
    with pytest.raises(InvalidArgument, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_words_that_yaml_once_took_for_booleans_are_words() -> None:
    text = """
        faults: [{on: PullImage, lose: no}]
    """
    with pytest.raises(InvalidArgument, match=r"faults\[0\]\.lose: Expected bool, got str"):
        parse_yaml(text)
    scenario = parse_yaml("containers: [{match: {labels: {on: yes, off: no}}, exit: {oom: true}}]")
    [script] = scenario.containers
    assert script.match.labels == {"on": "yes", "off": "no"} and script.exit and script.exit.oom


def test_an_empty_document_is_an_empty_scenario() -> None:
    assert parse_yaml("") == parse(None) == parse({}) == Scenario()
    assert to_tree(Scenario()).keys() <= {"handlers"}


def test_the_clock_is_the_scenarios() -> None:
    assert Scenario().make_clock() is SYSTEM
    clock = parse_yaml("{clock: virtual, start: 2030-05-06T07:08:09Z}").make_clock()
    assert isinstance(clock, VirtualClock)
    moment = datetime.datetime(2030, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    assert clock.now() == int(moment.timestamp()) * 10**9


def test_the_first_script_that_fits_counts() -> None:
    scenario = parse(
        {
            "containers": [
                {"match": {"container": "web", "pod": "a*"}, "start_error": "one"},
                {"match": {"container": "web"}, "start_error": "two"},
                {"match": {"labels": {"x": "y"}}, "start_error": "three"},
            ],
            "pods": [{"match": {"namespace": "n"}, "latency": "1s"}],
        }
    )
    for subject, words in [
        (Subject(pod="app", container="web"), "one"),
        (Subject(pod="b", container="web", labels={"x": "y"}), "two"),
        (Subject(labels={"x": "y"}), "three"),
        (Subject(pod="app"), ""),
    ]:
        assert scenario.script(subject).start_error == words
    assert scenario.pod_script(Subject(namespace="n")) is scenario.pods[0]
    assert scenario.pod_script(Subject()) not in scenario.pods


def test_a_change_replaces_whole_parts() -> None:
    before = parse(
        {
            "seed": 3,
            "network_error": "down",
            "containers": [{"start_error": "a"}, {"start_error": "b"}],
            "images": {"unknown": "refuse", "size": 5},
        }
    )
    after = apply(before, {"containers": [{"exit": {}}], "network_error": None, "images": {"size": 6}})
    assert after == parse({"seed": 3, "containers": [{"exit": {}}], "images": {"size": 6}})
    assert before.network_error == "down", "the former one was changed"
    assert apply(before, {}) == before
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sede": 1}, "sede"),
        ({"seed": "x"}, r"change\.seed: Expected int"),
    ]
    for change, says in wrong:
        with pytest.raises(InvalidArgument, match=says):
            apply(before, change)


names = st.text("abc-*?0", min_size=1, max_size=6)
texts = st.text(max_size=10)
curves = st.none() | trees_of_curves
counts = st.integers(0, 9)


def some(required: dict[str, Any] | None = None, **fields: st.SearchStrategy[Any]) -> Any:
    """Dicts with `required`, and with any of `fields`."""
    return st.fixed_dictionaries(required or {}, optional=fields)


matches = some(
    id=names, pod=names, namespace=names, container=names, image=names, labels=st.dictionaries(names, names)
)
errors = some({"code": st.sampled_from(["Unavailable", "Unknown", "NotFound"])}, message=texts)
faults = some(
    {"on": st.sampled_from([*(each for each in PLACES if each not in EVENTS), "*"]), "latency": spans},
    match=matches,
    error=errors,
    skip=counts,
    count=counts,
    probability=st.floats(0.01, 1),
)
usage = some(
    {},
    io_pressure=st.none() | st.floats(0, 1),
    **dict.fromkeys(("cpu", "memory", "swap", "disk", "processes"), curves),
)
containers = some(
    match=matches,
    program=st.none() | st.lists(texts, min_size=1, max_size=3),
    exit=some(after=spans, code=st.integers(0, 255), oom=st.booleans(), times=counts),
    logs=st.lists(
        some({"text": texts, "every": spans}, count=counts, stream=st.sampled_from(["stdout", "stderr"]))
        | some({"text": texts}, after=spans),
        max_size=2,
    ),
    exec=st.lists(some(command=names, stdout=texts, code=st.integers(0, 255), after=spans), max_size=2),
    ignore=st.lists(st.sampled_from(["SIGTERM", "SIGHUP"])),
    stopping=spans,
    start_error=texts,
    stats=usage,
)
images = some(
    unknown=st.sampled_from(["pull", "refuse"]),
    size=st.integers(1, 10**12),
    pull=spans,
    rate=st.floats(1, 1e9),
    capacity=st.integers(0, 10**15),
    items=st.lists(
        some(
            {"reference": st.sampled_from(["nginx", "nginx:2", "a.example/b/c:v1", "a.example/*"])},
            pinned=st.booleans(),
            size=st.integers(1, 10**12),
            pull=spans,
            error=errors,
            identity_token=texts,
            config=some(
                Env=st.just(["A=1"]), User=texts, Cmd=st.lists(texts), Labels=st.dictionaries(texts, texts)
            ),
        ),
        max_size=3,
        unique_by=lambda each: each["reference"],
    ),
)
scenarios = some(
    seed=st.integers(0, 2**60),
    clock=st.sampled_from(["system", "virtual"]),
    start=st.datetimes(timezones=st.just(datetime.UTC)).map(lambda moment: moment.isoformat()),
    handlers=st.dictionaries(names, some(error=texts, user_namespaces=st.booleans())).map(
        lambda each: {**each, "fake": {}}
    ),
    network_error=texts,
    addresses=st.sampled_from([{}, {"ipv4": "", "ipv6": "fd00::/64"}, {"ipv6": "fd00:1::/100"}]),
    images=images,
    pods=st.lists(
        some(match=matches, latency=spans, lost=st.none() | spans, network=some(received=curves)), max_size=2
    ),
    containers=st.lists(containers, max_size=3),
    faults=st.lists(faults, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(scenarios)
def test_a_scenario_written_back_parses_to_an_equal_one(tree: Any) -> None:
    scenario = parse(tree)
    assert parse(to_tree(scenario)) == scenario
    assert parse(json.loads(json.dumps(to_tree(scenario)))) == scenario
    assert parse_yaml(to_yaml(scenario)) == scenario
    assert apply(scenario, {}) == scenario


# On a node


def sandbox(number: int = 0, *, namespace: str = "ns", network: cri.NamespaceMode = cri.POD) -> Sandbox:
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=f"pod{number}", namespace=namespace, uid="u")
    )
    config.linux.security_context.namespace_options.network = network
    return Sandbox(f"{number:064x}", f"pod{number}", config, "")


async def make(engine: FakeEngine, pod: Sandbox) -> tuple[str, ...]:
    """Its addresses."""
    async with AsyncExitStack() as undo:
        facts = await engine.create_sandbox(pod, undo)
        undo.pop_all()
    return facts.ips


async def test_pods_get_an_address_of_each_range(tmp_path: Path) -> None:
    node = Node(tmp_path, {"addresses": {"ipv4": "10.1.0.0/29", "ipv6": "fd00::/64"}})
    given_out = [await make(node.engine, sandbox(number)) for number in range(5)]
    assert given_out[0] == ("10.1.0.2", "fd00::2") and given_out[-1] == ("10.1.0.6", "fd00::6")
    assert await make(node.engine, sandbox(8, network=cri.NODE)) == ()
    with pytest.raises(ResourceExhausted, match=r"10\.1\.0\.0/29 and fd00::/64 are taken"):
        await make(node.engine, sandbox(9))
    for number in (3, 1):
        await node.engine.stop_sandbox(sandbox(number))
    assert [await make(node.engine, sandbox(number)) for number in (10, 11)] == [given_out[3], given_out[1]]


async def test_a_new_range_leaves_pods_their_addresses_and_gives_none_twice(tmp_path: Path) -> None:
    node = Node(tmp_path, {"addresses": {"ipv4": "10.1.0.0/28"}})
    for number in range(3):
        await make(node.engine, sandbox(number))
    node.world.scenario = apply(node.world.scenario, {"addresses": {"ipv4": "10.1.0.0/29"}})
    assert [await make(node.engine, sandbox(number)) for number in (5, 6)] == [("10.1.0.5",), ("10.1.0.6",)]
    await node.engine.stop_sandbox(sandbox(1))
    assert await make(node.engine, sandbox(7)) == ("10.1.0.3",)
    # What an old pod gives back beyond the addresses given out so far comes in its turn, once.
    node.world.scenario = apply(node.world.scenario, {"addresses": {"ipv4": "10.1.0.0/30"}})
    node.world.scenario = apply(node.world.scenario, {"addresses": {"ipv4": "10.1.0.0/29"}})
    await node.engine.stop_sandbox(sandbox(6))
    assert await make(node.engine, sandbox(9)) == ("10.1.0.6",)
    with pytest.raises(ResourceExhausted):
        await make(node.engine, sandbox(10))
    node.world.scenario = apply(node.world.scenario, {"addresses": {"ipv4": "", "ipv6": "fd00::/64"}})
    await node.engine.stop_sandbox(sandbox(2))
    assert await make(node.engine, sandbox(8)) == ("fd00::2",)


async def test_what_status_says_follows_the_scenario_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    change = {
        "handlers": {"a": {}, "b": {"error": "no kvm", "user_namespaces": False}},
        "default_handler": "a",
        "runtime_error": "booting",
        "network_error": "no plugin",
    }
    node.world.scenario = apply(node.world.scenario, change)
    status = await node.engine.status()
    assert (status.default_handler, status.runtime_error, status.network_error) == (
        "a",
        "booting",
        "no plugin",
    )
    assert {each.name: (each.available, each.user_namespaces) for each in status.handlers} == {
        "a": (True, True),
        "b": (False, False),
    }
    with pytest.raises(PodwrightError, match="network: no plugin"):
        await make(node.engine, sandbox())
    with pytest.raises(FailedPrecondition, match="no kvm"):
        node.engine.check_handler("b")
    with pytest.raises(InvalidArgument, match="no handler 'fake'"):
        node.engine.check_handler("fake")


async def test_a_pods_loss_is_told_once_and_not_after_its_stop(tmp_path: Path) -> None:
    node = Node(tmp_path, {"pods": [{"match": {"pod": "pod1"}, "latency": "2s", "lost": "10m"}]})
    await node.engine.open()
    told: list[Any] = []
    node.world.listen(told.append)
    before = node.clock.monotonic()
    creation = asyncio.create_task(make(node.engine, sandbox(1)))
    await node.clock.advance(1.9)
    assert not creation.done()
    await node.clock.advance(0.2)
    assert await creation
    await make(node.engine, sandbox(2))
    await node.clock.advance(599)
    assert await node.engine.sandbox_alive(sandbox(1)) and not told
    await node.clock.advance(2)
    assert not await node.engine.sandbox_alive(sandbox(1))
    assert await node.engine.sandbox_alive(sandbox(2))
    [loss] = told
    assert (loss.id, loss.sandbox) == (sandbox(1).id, True)
    assert (loss.finished_at - START) / 1e9 == pytest.approx(before + 602)
    await node.engine.stop_sandbox(sandbox(1))
    stopped = asyncio.create_task(make(node.engine, sandbox(1)))
    await node.clock.advance(3)
    await stopped
    await node.engine.stop_sandbox(sandbox(1))
    await node.clock.advance(1000)
    assert told == [loss]


@pytest.mark.parametrize("seed", [0, 7])
async def test_a_seed_settles_ids_and_chances(tmp_path: Path, seed: int) -> None:
    def story() -> list[object]:
        world = World(VirtualClock(), parse({"seed": seed}))
        return [world.new_id(), world.new_id(), world.chance.random()]

    first, second = story(), story()
    assert (first == second) == bool(seed)
    assert first[0] != first[1] and len(str(first[0])) == 64


async def test_a_new_seed_starts_all_chances_anew(tmp_path: Path) -> None:
    world = Node(tmp_path).world
    first = world.new_id()
    world.scenario = apply(world.scenario, {"network_error": "x"})
    second = world.new_id()
    assert second != first, "an id was given twice"
    world.scenario = apply(world.scenario, {"seed": 2})
    other = world.new_id()
    world.scenario = apply(world.scenario, {"seed": 1})
    assert world.new_id() == first and other not in (first, second)


# What is written about it


def test_the_reference_is_up_to_date() -> None:
    written = scenario_reference.TARGET.read_text()
    assert written == scenario_reference.reference(), "run tools/scenario_reference.py"


@pytest.mark.parametrize("kind", scenario_reference.STRUCTS, ids=lambda kind: kind.__name__)
def test_every_key_is_explained(kind: type[msgspec.Struct]) -> None:
    described = scenario_reference.described(kind)
    silent = [each.name for each in msgspec.structs.fields(kind) if not described[each.name][1]]
    assert not silent, f"{kind.__name__} says nothing of {silent}"
