"""What must hold whenever a node is at rest, whatever happened to it before. One function a rule.

`trouble` says that an act has failed and nobody has repeated it yet: only then may an object be half-way
through being stopped or removed.
"""

from __future__ import annotations

import itertools

from podwright.core.creations import PARKED_FOR
from podwright.core.records import ContainerRecord, Records, SandboxRecord
from podwright.core.states import ContainerState, SandboxState
from podwright.engines.base import Presence
from podwright.engines.fake.addresses import FIRST
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri
from tests.core.client import Account, Client, Watch
from tests.core.node import Node
from tests.core.points import idle

_C, _S = ContainerState, SandboxState
HALF_WAY = {_S.STOPPING, _S.REMOVING, _C.STARTING, _C.REMOVING}
CREATED, STARTED, STOPPED, DELETED = range(4)
LIVES = {
    "sandbox": ((CREATED, STARTED, STOPPED, DELETED), (CREATED, STOPPED, DELETED)),
    "container": ((CREATED, STARTED, STOPPED, DELETED), (CREATED, STOPPED, DELETED), (CREATED, DELETED)),
}


async def check(
    node: Node, account: Account, watch: Watch | None = None, *, trouble: bool = False, disk: bool = True
) -> None:
    """`disk` is False when a write has failed: memory may know more than the file."""
    await idle()
    everything_is_in_a_state_of_rest(node, trouble)
    world_and_records_agree(node, trouble)
    addresses_are_held_once(node)
    names_are_reserved_by_records_alone(node)
    if disk:
        disk_says_what_memory_says(node)
    unseen_objects_are_parked(node)
    only_known_timers_run(node)
    await answers_are_true(node, account)
    await statuses_are_consistent(node)
    await node_has_no_orphans(node)
    if watch is not None:
        await events_tell_legal_lives(node, watch)


def everything_is_in_a_state_of_rest(node: Node, trouble: bool) -> None:
    assert not node.ground._tasks, f"operations still run: {node.ground._tasks}"
    for record in _records(node):
        assert not record.lock.locked(), f"{record.name} is locked"
        assert trouble or record.state not in HALF_WAY, f"{record.name} is {record.state}"


def world_and_records_agree(node: Node, trouble: bool) -> None:
    records, world = node.runtime.records, node.world
    assert set(world.sandboxes) <= {each.id for each in records.sandboxes}
    assert set(world.containers) <= {each.id for each in records.containers}
    for sandbox in records.sandboxes:
        made = world.sandboxes.get(sandbox.id)
        options = sandbox.config.linux.security_context.namespace_options
        if sandbox.state in (_S.READY, _S.CREATING):
            assert made is not None and (made.ready or sandbox.lost), sandbox.name
            assert bool(made.ips) == (options.network == cri.POD), sandbox.name
            assert sandbox.facts.ips == made.ips, sandbox.name
            assert sandbox.facts.pid == made.pid, sandbox.name
            assert bool(made.pid) == (options.pid == cri.POD), sandbox.name
        elif sandbox.state is _S.LOST:
            assert trouble or made is None or not made.ready, f"{sandbox.name} is {sandbox.state}, but works"
        elif sandbox.state is _S.STOPPED and made is not None:
            assert not made.ready and not made.ips and not made.pid, sandbox.name
            living = [each.name for each in sandbox.containers.values() if each.state in _LIVING]
            assert not living, f"{sandbox.name} is stopped, these are not: {living}"
    for container in records.containers:
        _container_agrees(node, container, trouble)


_LIVING = {_C.CREATED, _C.STARTING, _C.RUNNING}


def _container_agrees(node: Node, record: ContainerRecord, trouble: bool) -> None:
    made = node.world.containers.get(record.id)
    presence = made.presence if made is not None else Presence.MISSING
    if record.state in _LIVING and _is_unsure(node):
        return
    assert record.id in record.sandbox.containers and record.sandbox.id in node.runtime.records.sandboxes
    if record.state in (_C.CREATED, _C.CREATING):
        assert presence is Presence.CREATED, f"{record.name} is {record.state}, really {presence}"
    elif record.state is _C.RUNNING:
        assert presence is Presence.RUNNING, f"{record.name} is running, really {presence}"
    elif record.state is _C.EXITED:
        allowed = {Presence.EXITED} | ({Presence.MISSING} if record.reason == "Unknown" else set())
        # The process of a start that failed may be left when it could not be killed, either.
        if trouble and record.reason == "StartError":
            allowed |= {Presence.CREATED, Presence.RUNNING}
        assert presence in allowed, f"{record.name} has exited ({record.reason}), really {presence}"
        if made is not None and made.exit is not None and record.reason not in ("StartError", "Unknown"):
            assert (record.exit_code, record.finished_at) == (made.exit.code, made.exit.finished_at)
            assert (record.reason == "OOMKilled") == made.exit.oom_killed
    # Until an update has been taken back it may hold, or not; that waits only when it fails.
    assert record.wanted is None or trouble, f"{record.name}: an update is neither done nor taken back"
    if record.state in (*_LIVING, _C.EXITED) and made is not None and record.wanted is None:
        assert made.limit == record.resources.memory_limit_in_bytes, f"{record.name}: another limit holds"
    assert record.exited.is_set() or record.state is not _C.EXITED, f"{record.name}: waiters wait for ever"
    assert not record.exited.is_set() or record.state not in _LIVING, f"{record.name}: waiters were let go"


def _is_unsure(node: Node) -> bool:
    """Core knows that it does not know: it could not look."""
    return node.ground.look_again is not None and not node.ground.look_again.cancelled()


def addresses_are_held_once(node: Node) -> None:
    held = [each.ip for each in node.world.sandboxes.values() if each.ips]
    free = node.world.addresses.given_back()
    assert len({*held, *free}) == len(held) + len(free), f"held {held}, free {free}"


def names_are_reserved_by_records_alone(node: Node) -> None:
    assert node.runtime.records.names == {record.name: record.id for record in _records(node)}


def disk_says_what_memory_says(node: Node) -> None:
    written = Records(node.database)
    written.load()
    assert {each.id: _told(each) for each in _records(node)} == {
        each.id: _told(each) for each in (*written.sandboxes, *written.containers)
    }


_KEPT = ("id", "name", "state", "created_at", "config")
_KEPT_OF_SANDBOX = (*_KEPT, "handler", "overhead", "resources")
_KEPT_OF_CONTAINER = (
    *_KEPT,
    *("started_at", "finished_at", "exit_code", "reason", "message"),
    *("stop_signal", "log_path", "image", "resources", "wanted"),
)


def _told(record: SandboxRecord | ContainerRecord) -> list[object]:
    """What must come back after a restart."""
    # An engine removes what was being created without them.
    facts = record.facts if record.state not in (_S.CREATING, _C.CREATING) else None
    if isinstance(record, SandboxRecord):
        return [facts, *(getattr(record, name) for name in _KEPT_OF_SANDBOX)]
    # One that joined the namespace of a container that is gone needs to know it no more.
    target = record.target.id if record.target and record.target.id in record.sandbox.containers else ""
    return [record.sandbox.id, target, facts, *(getattr(record, name) for name in _KEPT_OF_CONTAINER)]


def unseen_objects_are_parked(node: Node) -> None:
    creations = node.ground.creations._under_way
    for name, creation in creations.items():
        assert creation.task.done() and not creation.claimed and not creation.waiting, name
        assert creation.expiry is not None and not creation.expiry.cancelled(), f"{name} is parked for ever"
    unseen = {each.name for each in _records(node) if each.state in (_S.CREATING, _C.CREATING)}
    assert unseen == set(creations), "neither seen nor about to be claimed or removed"


def only_known_timers_run(node: Node) -> None:
    parked = [creation.expiry for creation in node.ground.creations._under_way.values()]
    kills = [each.kill_timer for each in node.runtime.records.containers if each.state is _C.RUNNING]
    known = {id(timer) for timer in (*parked, *kills, node.ground.look_again)}
    for timer in node.engine.own_clock.pending():
        assert id(timer) in known, f"a timer of nobody: {timer}"


async def answers_are_true(node: Node, account: Account) -> None:
    listed = {*await node.sandboxes(), *await node.containers()}
    lost = account.answered - account.leaving - listed
    assert not lost, f"clients were given these ids, nobody removed them, they are not there: {lost}"
    assert not listed & account.gone, "removed, but still there"


async def statuses_are_consistent(node: Node) -> None:
    runtime = node.runtime
    pods = (await runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    containers = (await runtime.list_containers(cri.ListContainersRequest())).containers
    for pod in pods:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
        answer = await runtime.pod_sandbox_status(request)
        assert (answer.status.id, answer.status.state) == (pod.id, pod.state)
        assert answer.status.created_at == pod.created_at > 0
        assert answer.status.metadata == pod.metadata
        members = [each for each in containers if each.pod_sandbox_id == pod.id]
        assert {each.id for each in answer.containers_statuses} == {each.id for each in members}
        filter = cri.ContainerFilter(pod_sandbox_id=pod.id)
        found = (await runtime.list_containers(cri.ListContainersRequest(filter=filter))).containers
        assert sorted(found, key=_by_id) == sorted(members, key=_by_id)
        encoded = cri.PodSandboxStatusResponse.FromString(await runtime.pod_sandbox_status_wire(request))
        assert encoded.status == answer.status
        assert list(encoded.containers_statuses) == list(answer.containers_statuses)
    for container in containers:
        assert container.pod_sandbox_id in {pod.id for pod in pods}
        status = await node.status(container.id)
        wire = await runtime.container_status_wire(cri.ContainerStatusRequest(container_id=container.id))
        assert cri.ContainerStatusResponse.FromString(wire).status == status
        assert (status.state, status.created_at) == (container.state, container.created_at)
        status_is_consistent(status)


def _by_id(item: cri.Container) -> str:
    return item.id


def status_is_consistent(status: cri.ContainerStatus) -> None:
    """What clients derive from a status must not contradict itself."""
    assert status.created_at > 0
    ends = (status.finished_at, status.exit_code, status.reason, status.message)
    match status.state:
        case cri.CONTAINER_CREATED:
            assert status.started_at == 0 and ends == (0, 0, "", ""), status
        case cri.CONTAINER_RUNNING:
            assert status.created_at < status.started_at and ends == (0, 0, "", ""), status
        case cri.CONTAINER_EXITED:
            assert status.created_at < status.finished_at, status
            assert status.started_at == 0 or status.created_at < status.started_at, status
            assert status.started_at <= status.finished_at, status
            assert status.reason and (status.reason == "Completed") == (status.exit_code == 0), status
        case _:
            raise AssertionError(f"state {status.state}")


async def node_has_no_orphans(node: Node) -> None:
    assert not await node.runtime.orphans()


async def events_tell_legal_lives(node: Node, watch: Watch) -> None:
    """Each object's events are a legal life, and the last one tells the state that is shown now."""
    shown: dict[str, int] = {}
    for pod in (await node.runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items:
        shown[pod.id] = STARTED if pod.state == cri.SANDBOX_READY else STOPPED
    for each in (await node.runtime.list_containers(cri.ListContainersRequest())).containers:
        shown[each.id] = int(each.state)
    lives: dict[str, list[int]] = {}
    sandboxes: set[str] = set()
    for event in watch.events:
        lives.setdefault(event.container_id, []).append(event.container_event_type)
        if event.container_id == event.pod_sandbox_status.id:
            sandboxes.add(event.container_id)
        _event_shows_what_it_tells(event)
    half_way = {each.id for each in _records(node) if each.state in HALF_WAY}
    for id, life in lives.items():
        whole = LIVES["sandbox" if id in sandboxes else "container"]
        if id in watch.known:
            legal = {tuple(each[a:b]) for each in whole for a in range(4) for b in range(a, 5)}
        else:
            legal = {tuple(each[:b]) for each in whole for b in range(1, 5)}
        assert tuple(life) in legal, f"{id}: no life goes {life}"
        if id not in half_way:
            assert life[-1] == shown.get(id, DELETED), f"{id}: {life}, but it is shown as {shown.get(id)}"
    assert set(shown) <= set(lives) | watch.known, "shown, but never told of"


def _event_shows_what_it_tells(event: cri.ContainerEventResponse) -> None:
    # What could not be created, and not be undone either, is shown for the first time when it has ended.
    kind, id = event.container_event_type, event.container_id
    if id == event.pod_sandbox_status.id:
        state = STARTED if event.pod_sandbox_status.state == cri.SANDBOX_READY else STOPPED
        assert kind == CREATED or state == min(kind, STOPPED), event
        return
    state = next((int(each.state) for each in event.containers_statuses if each.id == id), DELETED)
    assert state == kind or (kind, state) == (CREATED, STOPPED), event


def _records(node: Node) -> list[SandboxRecord | ContainerRecord]:
    return [*node.runtime.records.sandboxes, *node.runtime.records.containers]


async def take_apart(node: Node, client: Client) -> None:
    """Stop and remove every pod, as a client does that wants its node back: then nothing is left at all."""
    for pod in await node.sandboxes():
        await client.stop_pod(pod)
        await client.remove_pod(pod)
    await node.clock.advance(PARKED_FOR + 1)
    await check(node, client.account)
    left = (node.world.sandboxes, node.world.containers, node.runtime.records.names)
    assert left == ({}, {}, {})
    assert not await node.sandboxes() and not await node.containers()
    assert not node.ground.creations._under_way
    assert not node.clock.pending() and not node.engine.own_clock.pending()
    rows = itertools.chain.from_iterable(
        node.database.execute(f"SELECT id FROM {table}") for table in ("sandboxes", "containers")
    )
    assert not list(rows)
    assert len(node.world.addresses.given_back()) == node.world.addresses._next - FIRST, "addresses are lost"
    for id in client.account.gone:
        try:
            await node.status(id)
        except NotFound:
            pass
        else:
            raise AssertionError(f"{id} was removed, but has a status")
