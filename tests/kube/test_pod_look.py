"""Looking at a pod: newest first, and what vanishes meanwhile is left out."""

from __future__ import annotations

from podwright.errors import NotFound
from podwright.kube.state.pod_state import Seen, look
from podwright.wire import cri_pb2 as cri
from tests.kube.seen_pods import EXITED, Node, simple


class Runtime:
    """Has pods, and forgets some between the list and the question."""

    def __init__(self, seen: Seen, vanished: set[str]) -> None:
        self.seen = seen
        self.vanished = vanished
        self.labels: list[dict[str, str]] = []

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        self.labels.append(dict(request.filter.label_selector))
        items = [cri.PodSandbox(id=one.id) for one in reversed(self.seen.sandboxes)]
        return cri.ListPodSandboxResponse(items=items)

    async def list_containers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        self.labels.append(dict(request.filter.label_selector))
        found = [cri.Container(id=one.id, pod_sandbox_id=one.sandbox_id) for one in self.seen.containers]
        return cri.ListContainersResponse(containers=reversed(found))

    async def pod_sandbox_status(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        self._check(request.pod_sandbox_id)
        status = next(one for one in self.seen.sandboxes if one.id == request.pod_sandbox_id)
        return cri.PodSandboxStatusResponse(status=status)

    async def container_status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        self._check(request.container_id)
        found = self.seen.by_id(request.container_id)
        assert found is not None
        return cri.ContainerStatusResponse(status=found.status)

    def _check(self, object_id: str) -> None:
        if object_id in self.vanished:
            raise NotFound(object_id)


async def test_all_of_the_pod_is_seen_newest_first() -> None:
    node = (
        Node(simple()).sandbox(ready=False).container("main", EXITED).sandbox(1).container("main", attempt=1)
    )
    runtime = Runtime(node.seen, set())
    seen = await look(runtime, "u")  # type: ignore[arg-type]
    assert seen == node.seen
    assert runtime.labels == [{"io.kubernetes.pod.uid": "u"}] * 2
    assert [one.id for one in seen.attempts("main")] == ["main-1", "main-0"]
    assert [one.id for one in seen.active()] == ["main-1"]
    assert seen.ips() == ("10.0.0.2",)


async def test_what_vanishes_between_the_list_and_the_question_is_not_there() -> None:
    node = Node(simple()).sandbox().container("main", EXITED).container("main", attempt=1).sandbox(1)
    seen = await look(Runtime(node.seen, {"main-0", "sandbox-1"}), "u")  # type: ignore[arg-type]
    assert [one.id for one in seen.containers] == ["main-1"]
    assert [one.id for one in seen.sandboxes] == ["sandbox-0"]
    assert seen.by_id("main-0") is None


def test_only_the_newest_sandbox_counts() -> None:
    seen = Node(simple()).sandbox(ip="10.0.0.9").sandbox(1, ready=False).seen
    assert seen.ready_sandbox() is None and seen.ips() == () and seen.active() == ()
