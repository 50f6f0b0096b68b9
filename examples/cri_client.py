"""A CRI client made of nothing but the generated stubs: it takes one pod through its whole life at a server.

Usage: python examples/cri_client.py [SOCKET [IMAGE]]

`podwright serve` (or containerd, or CRI-O) listens at SOCKET, by default at /run/podwright/podwright.sock.
IMAGE is pulled when it is not there; the default is localhost/podwright/busybox:latest, which
`podwright image import` makes (see README.md).
"""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc

from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as stubs

SOCKET = "/run/podwright/podwright.sock"
IMAGE = "localhost/podwright/busybox:latest"
PROGRAM = (
    'trap "echo asked to stop; exit 3" TERM; echo "hello from $(hostname)"; touch /tmp/up; sleep 600 & wait'
)


def main(socket: str = SOCKET, image: str = IMAGE) -> int:
    with grpc.insecure_channel(f"unix:{socket}") as channel, tempfile.TemporaryDirectory() as logs:
        runtime = stubs.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]
        images = stubs.ImageServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            return take_through_life(runtime, images, image, Path(logs))
        except grpc.RpcError as error:
            hint = "; is `podwright serve` running?" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
            print(f"{socket}: {error.code().name}: {error.details()}{hint}", file=sys.stderr)
            return 1


def take_through_life(
    runtime: stubs.RuntimeServiceStub, images: stubs.ImageServiceStub, image: str, logs: Path
) -> int:
    version = runtime.Version(cri.VersionRequest())
    print(f"server: {version.runtime_name} {version.runtime_version}, CRI {version.runtime_api_version}")

    spec = cri.ImageSpec(image=image, user_specified_image=image)
    if not images.ImageStatus(cri.ImageStatusRequest(image=spec)).HasField("image"):
        print("pulled:", images.PullImage(cri.PullImageRequest(image=spec)).image_ref)

    pod = sandbox_config(runtime, logs)
    sandbox = runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=pod)).pod_sandbox_id
    try:
        network = runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)).status.network
        print(f"sandbox: {sandbox[:12]} {network.ip or '(on the network of the host)'}")

        container = runtime.CreateContainer(
            cri.CreateContainerRequest(
                pod_sandbox_id=sandbox,
                sandbox_config=pod,
                config=cri.ContainerConfig(
                    metadata=cri.ContainerMetadata(name="main"),
                    image=spec,
                    command=["sh", "-c", PROGRAM],
                    envs=[cri.KeyValue(key="GREETING", value=b"hello")],
                    log_path="main.log",
                    linux=cri.LinuxContainerConfig(
                        security_context=cri.LinuxContainerSecurityContext(
                            namespace_options=pod.linux.security_context.namespace_options
                        )
                    ),
                ),
            )
        ).container_id
        runtime.StartContainer(cri.StartContainerRequest(container_id=container))
        print(f"container: {container[:12]} {state(runtime, container)}")

        # A command inside: it waits until the container's program says that it is up.
        words = ["sh", "-c", 'until [ -e /tmp/up ]; do sleep 0.05; done; echo "$GREETING from an exec"']
        answer = runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=words, timeout=20))
        print(f"exec: {answer.stdout.decode().strip()} (exit code {answer.exit_code})")

        runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=10))
        print(f"container: {container[:12]} {state(runtime, container)}")
        for line in (logs / "main.log").read_text().splitlines():
            print("log:", line.split(" ", 3)[3])  # time, stream, F or P, text
        runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    finally:
        runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    mine = cri.PodSandboxFilter(id=sandbox)
    left = runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=mine)).items
    print("left:", len(left))
    return 0


def sandbox_config(runtime: stubs.RuntimeServiceStub, logs: Path) -> cri.PodSandboxConfig:
    """A pod with an address of its own, or on the host's network when the server has no other."""
    conditions = runtime.Status(cri.StatusRequest()).status.conditions
    networked = any(one.type == "NetworkReady" and one.status for one in conditions)
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="life", namespace="examples", uid=str(uuid.uuid4())),
        hostname="life" if networked else "",
        log_directory=str(logs),
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(
                    network=cri.POD if networked else cri.NODE, pid=cri.CONTAINER
                )
            )
        ),
    )


def state(runtime: stubs.RuntimeServiceStub, container: str) -> str:
    status = runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container)).status
    if status.state != cri.CONTAINER_EXITED:
        return f"{cri.ContainerState.Name(status.state)} for {time.time() - status.started_at / 1e9:.1f} s"
    return f"exited with {status.exit_code} ({status.reason})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
