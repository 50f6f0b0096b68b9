"""The CRI as Python methods: one a call, a request message in, a response message out; a call that streams
its answer is an asynchronous iterator of messages.

`core.runtime.Runtime` is such an object in this process, `client.connect()` gives one for a socket. Doors
(`kube/`, `cli/`, the library) speak to this protocol and so work on both. Errors are those of
`podwright.errors` on both sides. The server offers these calls, and to others the answer is
Unimplemented; a method added here and in core's Runtime is served without another line.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Protocol

from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own


class Cri(Protocol):
    async def version(self, request: cri.VersionRequest, /) -> cri.VersionResponse: ...

    async def status(self, request: cri.StatusRequest, /) -> cri.StatusResponse: ...

    async def runtime_config(self, request: cri.RuntimeConfigRequest, /) -> cri.RuntimeConfigResponse: ...

    async def update_runtime_config(
        self, request: cri.UpdateRuntimeConfigRequest, /
    ) -> cri.UpdateRuntimeConfigResponse: ...

    async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest, /) -> cri.RunPodSandboxResponse: ...

    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest, /) -> cri.StopPodSandboxResponse: ...

    async def remove_pod_sandbox(
        self, request: cri.RemovePodSandboxRequest, /
    ) -> cri.RemovePodSandboxResponse: ...

    async def pod_sandbox_status(
        self, request: cri.PodSandboxStatusRequest, /
    ) -> cri.PodSandboxStatusResponse: ...

    async def update_pod_sandbox_resources(
        self, request: cri.UpdatePodSandboxResourcesRequest, /
    ) -> cri.UpdatePodSandboxResourcesResponse: ...

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest, /) -> cri.ListPodSandboxResponse: ...

    async def create_container(
        self, request: cri.CreateContainerRequest, /
    ) -> cri.CreateContainerResponse: ...

    async def start_container(self, request: cri.StartContainerRequest, /) -> cri.StartContainerResponse: ...

    async def stop_container(self, request: cri.StopContainerRequest, /) -> cri.StopContainerResponse: ...

    async def remove_container(
        self, request: cri.RemoveContainerRequest, /
    ) -> cri.RemoveContainerResponse: ...

    async def container_status(
        self, request: cri.ContainerStatusRequest, /
    ) -> cri.ContainerStatusResponse: ...

    async def list_containers(self, request: cri.ListContainersRequest, /) -> cri.ListContainersResponse: ...

    async def update_container_resources(
        self, request: cri.UpdateContainerResourcesRequest, /
    ) -> cri.UpdateContainerResourcesResponse: ...

    async def reopen_container_log(
        self, request: cri.ReopenContainerLogRequest, /
    ) -> cri.ReopenContainerLogResponse: ...

    async def checkpoint_container(
        self, request: cri.CheckpointContainerRequest, /
    ) -> cri.CheckpointContainerResponse:
        """Write what runs in a container to the archive at `location`, a path of the server's host; it runs
        on. A container whose image is such a path, or an image made of such an archive, is restored."""
        ...

    async def exec_sync(self, request: cri.ExecSyncRequest, /) -> cri.ExecSyncResponse: ...

    async def exec(self, request: cri.ExecRequest, /) -> cri.ExecResponse:
        """A URL at which the command is run once, for whoever comes first within a minute; likewise the next
        two."""

    async def attach(self, request: cri.AttachRequest, /) -> cri.AttachResponse: ...

    async def port_forward(self, request: cri.PortForwardRequest, /) -> cri.PortForwardResponse: ...

    async def container_stats(self, request: cri.ContainerStatsRequest, /) -> cri.ContainerStatsResponse: ...

    async def list_container_stats(
        self, request: cri.ListContainerStatsRequest, /
    ) -> cri.ListContainerStatsResponse: ...

    async def pod_sandbox_stats(
        self, request: cri.PodSandboxStatsRequest, /
    ) -> cri.PodSandboxStatsResponse: ...

    async def list_pod_sandbox_stats(
        self, request: cri.ListPodSandboxStatsRequest, /
    ) -> cri.ListPodSandboxStatsResponse: ...

    async def list_metric_descriptors(
        self, request: cri.ListMetricDescriptorsRequest, /
    ) -> cri.ListMetricDescriptorsResponse: ...

    async def list_pod_sandbox_metrics(
        self, request: cri.ListPodSandboxMetricsRequest, /
    ) -> cri.ListPodSandboxMetricsResponse: ...

    def get_container_events(
        self, request: cri.GetEventsRequest, /
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        """Events from now on. A listener that is too slow loses the oldest; close the iterator to leave."""

    def stream_pod_sandboxes(
        self, request: cri.StreamPodSandboxesRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxesResponse]:
        """What `list_pod_sandbox` answers, in several messages; so the other streams of lists."""

    def stream_containers(
        self, request: cri.StreamContainersRequest, /
    ) -> AsyncIterator[cri.StreamContainersResponse]: ...

    def stream_images(
        self, request: cri.StreamImagesRequest, /
    ) -> AsyncIterator[cri.StreamImagesResponse]: ...

    def stream_container_stats(
        self, request: cri.StreamContainerStatsRequest, /
    ) -> AsyncIterator[cri.StreamContainerStatsResponse]: ...

    def stream_pod_sandbox_stats(
        self, request: cri.StreamPodSandboxStatsRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxStatsResponse]: ...

    def stream_pod_sandbox_metrics(
        self, request: cri.StreamPodSandboxMetricsRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxMetricsResponse]: ...

    async def list_images(self, request: cri.ListImagesRequest, /) -> cri.ListImagesResponse: ...

    async def image_status(self, request: cri.ImageStatusRequest, /) -> cri.ImageStatusResponse: ...

    async def pull_image(self, request: cri.PullImageRequest, /) -> cri.PullImageResponse: ...

    async def remove_image(self, request: cri.RemoveImageRequest, /) -> cri.RemoveImageResponse: ...

    async def image_fs_info(self, request: cri.ImageFsInfoRequest, /) -> cri.ImageFsInfoResponse: ...


class Node(Protocol):
    """What podwright offers beside the CRI, at the same socket: the service podwright.v1.Node, whose messages
    are podwright's own. Other servers answer Unimplemented."""

    def watch_pulls(self, request: own.WatchPullsRequest, /) -> AsyncIterator[own.PullProgress]:
        """How far pulls are: those under way at first, then each change, until the iterator is closed. A
        watcher that is slow misses intermediate states, never the last one of a pull."""

    def watch_steps(self, request: own.WatchStepsRequest, /) -> AsyncIterator[own.StepEvent]:
        """Each begin and end of an operation, or of a step in one, whose caller sent the trace id of
        `request`. The first event is empty: whatever begins after it is told. Times are the server's:
        `began_at` in nanoseconds since the epoch, `started` and `ended` (0 while it goes on) on its monotonic
        clock. A watcher that is too slow is told so by ResourceExhausted."""

    async def explain_blob(self, request: own.ExplainBlobRequest, /) -> own.ExplainBlobResponse:
        """What a digest is here, and what keeps it. NotFound when it is nothing."""

    async def prune_images(self, request: own.PruneImagesRequest, /) -> own.PruneImagesResponse:
        """Remove the images that no container uses and that are not pinned."""

    async def import_image(self, request: own.ImportImageRequest, /) -> own.ImportImageResponse:
        """Make an image of what is at an absolute path of the server's host."""

    async def export_image(self, request: own.ExportImageRequest, /) -> own.ExportImageResponse:
        """Write an image to an absolute path of the server's host."""

    async def list_operations(self, request: own.ListOperationsRequest, /) -> own.ListOperationsResponse:
        """What goes on: calls that have not ended, and what goes on of one whose client has left, the oldest
        first. Those that only look are told when `request` asks for them."""


def method_name(rpc: str) -> str:
    """ "RunPodSandbox" -> "run_pod_sandbox"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()
