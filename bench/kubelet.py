"""Requests as a kubelet sends them: what it puts into the configuration of a pod and of its containers.

A container's configuration is about 2 KiB encoded: labels, annotations, ten variables, five mounts,
resources and a security context.
"""

from __future__ import annotations

from pathlib import Path

from podwright.wire import cri_pb2 as cri

IMAGE = "registry.example/web:1"
CONTAINERS = ("web", "proxy", "logs")
"""The containers of a pod."""
APP = {"app": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "5d59d67564"}

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_MASKED = [
    *(f"/proc/{name}" for name in ("asound", "acpi", "interrupts", "kcore", "keys", "latency_stats")),
    *(f"/proc/{name}" for name in ("timer_list", "timer_stats", "sched_debug", "scsi")),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
]
_READONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]


def pod(number: int, logs: Path) -> cri.PodSandboxConfig:
    """`logs`: the directory of all pods' logs."""
    name, uid = _names(number)
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace="bench"),
        hostname=name,
        log_directory=f"{logs}/bench_{name}_{uid}",
        dns_config=cri.DNSConfig(
            servers=["10.96.0.10"],
            searches=["bench.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            options=["ndots:5"],
        ),
        labels=_labels(number) | APP,
        annotations={
            "kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z",
            "kubernetes.io/config.source": "api",
        },
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=f"/kubepods/burstable/pod{uid}",
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(pid=cri.CONTAINER),
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
            ),
        ),
    )


def container(number: int, name: str) -> cri.ContainerConfig:
    _, uid = _names(number)
    folder = f"/var/lib/kubelet/pods/{uid}"
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image=IMAGE, user_specified_image=IMAGE),
        command=["sleep", "inf"],
        envs=[
            cri.KeyValue(key="KUBERNETES_SERVICE_HOST", value=b"10.96.0.1"),
            cri.KeyValue(key="KUBERNETES_SERVICE_PORT", value=b"443"),
            cri.KeyValue(key="KUBERNETES_PORT", value=b"tcp://10.96.0.1:443"),
            cri.KeyValue(key="KUBERNETES_PORT_443_TCP", value=b"tcp://10.96.0.1:443"),
            *(cri.KeyValue(key=f"SHOP_SETTING_{n}", value=b"value %d" % n) for n in range(6)),
        ],
        mounts=[
            _mount(_ACCOUNT, f"{folder}/volumes/kubernetes.io~projected/kube-api-access-x7k2p", True),
            _mount("/etc/hosts", f"{folder}/etc-hosts", False),
            _mount("/dev/termination-log", f"{folder}/containers/{name}/0a1b2c3d", False),
            _mount("/etc/shop", f"{folder}/volumes/kubernetes.io~configmap/shop", True),
            _mount("/var/cache/shop", f"{folder}/volumes/kubernetes.io~empty-dir/cache", False),
        ],
        labels=_labels(number) | {"io.kubernetes.container.name": name},
        annotations={
            "io.kubernetes.container.hash": "8a7c7d2e",
            "io.kubernetes.container.restartCount": "0",
            "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
            "io.kubernetes.container.terminationMessagePolicy": "File",
            "io.kubernetes.pod.terminationGracePeriod": "30",
        },
        log_path=f"{name}/0.log",
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(
                cpu_period=100_000,
                cpu_quota=50_000,
                cpu_shares=102,
                memory_limit_in_bytes=128 << 20,
                oom_score_adj=992,
            ),
            security_context=cri.LinuxContainerSecurityContext(
                namespace_options=cri.NamespaceOption(pid=cri.CONTAINER),
                run_as_user=cri.Int64Value(value=1000),
                no_new_privs=True,
                capabilities=cri.Capability(drop_capabilities=["ALL"]),
                masked_paths=_MASKED,
                readonly_paths=_READONLY,
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
            ),
        ),
    )


def _names(number: int) -> tuple[str, str]:
    return f"web-5d59d67564-{number:05d}", f"{number:08d}-3b1c-4a6e-9d7f-2c8e5a0b4f61"


def _labels(number: int) -> dict[str, str]:
    name, uid = _names(number)
    return {
        "io.kubernetes.pod.name": name,
        "io.kubernetes.pod.namespace": "bench",
        "io.kubernetes.pod.uid": uid,
    }


def _mount(inside: str, outside: str, readonly: bool) -> cri.Mount:
    return cri.Mount(container_path=inside, host_path=outside, readonly=readonly)
