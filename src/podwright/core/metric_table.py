"""Every metric of ListPodSandboxMetrics: its name, what it means, its kind, and its labels in order.

Names and labels are those that cAdvisor made common and that containerd and CRI-O report, so that dashboards
work unchanged; where the two differ in labels it is containerd's. Values are whole numbers, so seconds are
whole seconds. A metric whose figure the host does not have is left out, never reported as 0.
"""

from __future__ import annotations

from typing import NamedTuple

from podwright.wire import cri_pb2 as cri

LABELS = ("pod", "namespace", "container", "id", "image")
"""What every metric is labelled with. A pod's own have no container and no image, and the pod's id."""

C, G = cri.MetricType.COUNTER, cri.MetricType.GAUGE


class Described(NamedTuple):
    name: str
    kind: cri.MetricType
    help: str
    labels: tuple[str, ...] = ()
    """After LABELS."""


_DEVICE = ("device",)
_INTERFACE = ("interface",)

TABLE = (
    # CPU
    Described("container_cpu_usage_seconds_total", C, "CPU time used, seconds."),
    Described("container_cpu_user_seconds_total", C, "CPU time used in user mode, seconds."),
    Described("container_cpu_system_seconds_total", C, "CPU time used in the kernel, seconds."),
    Described("container_cpu_cfs_periods_total", C, "Periods of the CPU quota that have passed."),
    Described("container_cpu_cfs_throttled_periods_total", C, "Periods in which the CPU quota was used up."),
    Described("container_cpu_cfs_throttled_seconds_total", C, "Time without CPU for want of quota, seconds."),
    # Memory
    Described("container_memory_usage_bytes", G, "Memory used, page cache included, bytes."),
    Described("container_memory_working_set_bytes", G, "Memory that cannot be given up at once, bytes."),
    Described("container_memory_max_usage_bytes", G, "The most memory that was ever used, bytes."),
    Described("container_memory_rss", G, "Memory that is not backed by files, bytes."),
    Described("container_memory_cache", G, "Page cache, bytes."),
    Described("container_memory_kernel_usage", G, "Memory that the kernel uses for the container, bytes."),
    Described("container_memory_mapped_file", G, "Files mapped into memory, bytes."),
    Described("container_memory_swap", G, "Swap used, bytes."),
    Described("container_memory_total_active_file_bytes", G, "Page cache used lately, bytes."),
    Described("container_memory_total_inactive_file_bytes", G, "Page cache not used lately, bytes."),
    Described("container_memory_failcnt", C, "How often memory met its limit."),
    Described(
        "container_memory_failures_total",
        C,
        "Page faults (pgfault), and those that had to read (pgmajfault), of the container's own cgroup"
        " (container) or with those below it (hierarchy).",
        ("failure_type", "scope"),
    ),
    Described("container_oom_events_total", C, "Processes that were killed for want of memory."),
    # Huge pages
    Described("container_hugetlb_usage_bytes", G, "Huge pages used, bytes.", ("pagesize",)),
    Described("container_hugetlb_max_usage_bytes", G, "The most huge pages ever used, bytes.", ("pagesize",)),
    # Network, of the pod
    Described("container_network_receive_bytes_total", C, "Bytes received.", _INTERFACE),
    Described("container_network_receive_packets_total", C, "Packets received.", _INTERFACE),
    Described(
        "container_network_receive_packets_dropped_total", C, "Packets dropped on receipt.", _INTERFACE
    ),
    Described("container_network_receive_errors_total", C, "Errors on receipt.", _INTERFACE),
    Described("container_network_transmit_bytes_total", C, "Bytes sent.", _INTERFACE),
    Described("container_network_transmit_packets_total", C, "Packets sent.", _INTERFACE),
    Described(
        "container_network_transmit_packets_dropped_total", C, "Packets dropped on sending.", _INTERFACE
    ),
    Described("container_network_transmit_errors_total", C, "Errors on sending.", _INTERFACE),
    # Files: the writable layer with the image's volumes, and the file system it is on
    Described("container_fs_usage_bytes", G, "What the container has written, bytes.", _DEVICE),
    Described("container_fs_limit_bytes", G, "Size of the file system, bytes.", _DEVICE),
    Described("container_fs_inodes_total", G, "Inodes of the file system.", _DEVICE),
    Described("container_fs_inodes_free", G, "Inodes of the file system that are free.", _DEVICE),
    # Disks
    Described("container_fs_reads_bytes_total", C, "Bytes read.", _DEVICE),
    Described("container_fs_reads_total", C, "Reads.", _DEVICE),
    Described("container_fs_writes_bytes_total", C, "Bytes written.", _DEVICE),
    Described("container_fs_writes_total", C, "Writes.", _DEVICE),
    Described(
        "container_blkio_device_usage_total",
        C,
        "Bytes moved, by operation.",
        ("device", "major", "minor", "operation"),
    ),
    # Processes
    Described("container_processes", G, "Processes."),
    Described("container_threads", G, "Threads."),
    Described("container_threads_max", G, "How many threads there may be, 0 for any number."),
    Described("container_file_descriptors", G, "Open file descriptors."),
    Described("container_sockets", G, "Open sockets."),
    Described(
        "container_ulimits_soft",
        G,
        "Soft limits of the container's first process; the largest number, which is -1, for none.",
        ("ulimit",),
    ),
    # Pressure, where the kernel accounts it
    Described("container_pressure_cpu_waiting_seconds_total", C, "Time in which some task waited for a CPU."),
    Described("container_pressure_cpu_stalled_seconds_total", C, "Time in which all tasks waited for a CPU."),
    Described("container_pressure_memory_waiting_seconds_total", C, "Time in which some waited for memory."),
    Described("container_pressure_memory_stalled_seconds_total", C, "Time in which all waited for memory."),
    Described("container_pressure_io_waiting_seconds_total", C, "Time in which some waited for a device."),
    Described("container_pressure_io_stalled_seconds_total", C, "Time in which all waited for a device."),
    # What was asked for; 0 is unlimited
    Described("container_spec_cpu_period", G, "Period of the CPU quota, microseconds."),
    Described("container_spec_cpu_quota", G, "CPU time in each period, microseconds."),
    Described("container_spec_cpu_shares", G, "CPU shares."),
    Described("container_spec_memory_limit_bytes", G, "Memory limit, bytes."),
    Described("container_spec_memory_reservation_limit_bytes", G, "Memory that is kept for it, bytes."),
    Described("container_spec_memory_swap_limit_bytes", G, "Limit of memory and swap together, bytes."),
    # Life
    Described("container_start_time_seconds", G, "When it was started, seconds since the epoch."),
    Described("container_last_seen", G, "When these figures were taken, seconds since the epoch."),
)

KINDS = {each.name: each.kind for each in TABLE}


def descriptors() -> cri.ListMetricDescriptorsResponse:
    return cri.ListMetricDescriptorsResponse(
        descriptors=[
            cri.MetricDescriptor(name=each.name, help=each.help, label_keys=[*LABELS, *each.labels])
            for each in TABLE
        ]
    )
