"""Names that are reserved, requests that come twice, and ids that are cut short."""

from __future__ import annotations

from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Pod, rejected


def test_a_sandbox_name_is_taken_while_the_sandbox_exists(client: Client) -> None:
    pod = client.pod()
    with rejected(StatusCode.ALREADY_EXISTS, pod.id):
        client.pod(pod.config)
    assert pod.status().state == cri.SANDBOX_READY
    pod.stop()
    with rejected(StatusCode.ALREADY_EXISTS):
        client.pod(pod.config)


def test_a_sandbox_whose_client_gave_up_is_found_by_the_retry(client: Client) -> None:
    config = client.pod_config(name="slow-given-up")
    with rejected(StatusCode.DEADLINE_EXCEEDED):
        client.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=0.02)
    pod = client.pod(config)
    assert pod.status().state == cri.SANDBOX_READY
    assert len(client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items) == 1


def test_a_different_request_under_a_pending_name_is_refused(client: Client) -> None:
    config, other = client.pod_config(name="slow-pending"), cri.PodSandboxConfig()
    other.CopyFrom(config)
    other.hostname = "other"
    first = client.runtime.RunPodSandbox.future(cri.RunPodSandboxRequest(config=config))
    with rejected(StatusCode.ALREADY_EXISTS):
        client.pod(other)
    first.result(30)


def test_equal_sandbox_requests_at_once_make_one_sandbox(client: Client) -> None:
    request = cri.RunPodSandboxRequest(config=client.pod_config(name="slow-equal"))
    # All are sent before any is answered: what begins later is refused.
    asked = [client.runtime.RunPodSandbox.future(request) for _ in range(4)]
    (id,) = {each.result(60).pod_sandbox_id for each in asked}
    client.pods.append(Pod(client, id, request.config))
    assert len(client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items) == 1


def test_a_container_name_is_taken_while_the_container_exists(client: Client) -> None:
    pod = client.pod()
    container = pod.create("/bin/true")
    with rejected(StatusCode.ALREADY_EXISTS, container.id):
        pod.create(config=container.config)
    container.start()
    container.ended()
    with rejected(StatusCode.ALREADY_EXISTS):
        pod.create(config=container.config)


def test_equal_container_requests_at_once_make_one_container(client: Client) -> None:
    pod = client.pod(name="slow-containers")
    request = cri.CreateContainerRequest(
        pod_sandbox_id=pod.id, config=pod.container_config("/bin/true"), sandbox_config=pod.config
    )
    asked = [client.runtime.CreateContainer.future(request) for _ in range(4)]
    errors = [each.exception(60) for each in asked]
    (id,) = {each.result().container_id for each, error in zip(asked, errors, strict=True) if error is None}
    # Docker makes one so quickly that on a busy machine a request arrives when it is there.
    late = [each for each, error in zip(asked, errors, strict=True) if error is not None]
    assert all(each.code() is StatusCode.ALREADY_EXISTS and id in each.details() for each in late)
    listed = client.runtime.ListContainers(cri.ListContainersRequest()).containers
    assert [each.id for each in listed] == [id]


def test_another_attempt_is_another_object(client: Client) -> None:
    first = client.pod(name="attempts", attempt=0)
    second = client.pod(name="attempts", attempt=1)
    assert first.id != second.id
    one = first.create("/bin/true", name="c", attempt=0)
    two = first.create("/bin/true", name="c", attempt=1)
    assert one.id != two.id
    assert two.status().metadata == cri.ContainerMetadata(name="c", attempt=1)


def test_a_removed_name_is_free_again(client: Client) -> None:
    pod = client.pod()
    container = pod.create("/bin/true", name="again")
    container.remove()
    assert pod.create("/bin/true", name="again").id != container.id
    pod.remove()
    assert client.pod(pod.config).id != pod.id


def test_a_unique_prefix_of_an_id_works_in_every_call(client: Client) -> None:
    pod = client.pod()
    container = pod.create("/bin/sleep", "2147483")
    full, pod_full = container.id, pod.id
    container.id, pod.id = full[:13], pod_full[:13]
    assert pod.status().id == pod_full
    container.start()
    assert container.status().id == full
    assert container.exec("true").code == 0
    assert pod.create("/bin/true").status().state == cri.CONTAINER_CREATED
    listed = cri.ListContainersRequest(filter=cri.ContainerFilter(id=full[:13]))
    assert [c.id for c in client.runtime.ListContainers(listed).containers] == [full]
    listed = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=pod_full[:13]))
    assert len(client.runtime.ListContainers(listed).containers) == 2
    pods = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(id=pod_full[:13]))
    assert [p.id for p in client.runtime.ListPodSandbox(pods).items] == [pod_full]
    container.stop()
    container.remove()
    pod.stop()
    pod.remove()
    with rejected(StatusCode.NOT_FOUND):
        pod.status()


def test_an_ambiguous_prefix_is_an_error(client: Client) -> None:
    pod = client.pod()
    # Seventeen ids share a first digit somewhere.
    ids = [pod.create("/bin/true").id for _ in range(17)]
    digit = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    with rejected(StatusCode.INVALID_ARGUMENT, "ambiguous"):
        client.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=digit))
    with rejected(StatusCode.INVALID_ARGUMENT):
        client.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=digit))
    assert len(client.runtime.ListContainers(cri.ListContainersRequest()).containers) == 17


def test_an_empty_id_matches_nothing(client: Client) -> None:
    pod = client.pod()
    container = pod.run()
    with rejected(StatusCode.INVALID_ARGUMENT):
        client.runtime.ContainerStatus(cri.ContainerStatusRequest())
    with rejected(StatusCode.INVALID_ARGUMENT):
        client.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest())
    with rejected(StatusCode.INVALID_ARGUMENT):
        client.runtime.StopContainer(cri.StopContainerRequest())
    assert container.status().state == cri.CONTAINER_RUNNING


def test_lists_match_unknown_ids_with_nothing(client: Client) -> None:
    client.pod().run()
    listed = cri.ListContainersRequest(filter=cri.ContainerFilter(id="e" * 64))
    assert not client.runtime.ListContainers(listed).containers
    pods = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(id="e" * 64))
    assert not client.runtime.ListPodSandbox(pods).items
