"""Recorded cases: what containerd makes of a request, an image and a host, against what podwright makes.

A case passes when the specs agree field by field, and when a recorded error is an error here too. Where
podwright differs on purpose, or leaves it to another room stands in
golden_differences.toml with the reason; a difference that is not listed fails, and so does a listed one
that has gone. The cases and how to read them: tests/golden/spec/README.md.
"""

from __future__ import annotations

import base64
import posixpath
import tomllib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from podwright.errors import PodwrightError
from podwright.spec import base_spec, blockio, cdi, rdt
from podwright.spec.inputs import (
    ContainerInput,
    DeviceNode,
    HandlerOptions,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
    Policy,
    RootfsFiles,
    SandboxInput,
    SystemFiles,
)
from podwright.spec.linux import cdi as cdi_rules
from podwright.spec.linux import devices, mounts, security, selinux
from podwright.spec.linux.build import build_container, build_sandbox
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.spec.selinux import Context, SELinux
from podwright.spec.signals import effective_stop_signal
from podwright.wire import cri_pb2 as cri
from tests.spec import oci_rules
from tests.spec.golden_cases import index, load

Json = Any

TABLE = tomllib.loads((Path(__file__).parent / "golden_differences.toml").read_text())
FILES = "${ROOT}/io.containerd.grpc.v1.cri/sandboxes/${SANDBOX_ID}"
STATE = "${STATE}/io.containerd.grpc.v1.cri"
PROC = "/proc/${SANDBOX_PID}/ns"


CASES = index("linux")
ELSEWHERE = {name: entry["reason"] for entry in TABLE["elsewhere"] for name in entry["cases"]}


@pytest.mark.parametrize("name", list(CASES))
def test_recorded_case(name: str) -> None:
    if name in ELSEWHERE:
        pytest.skip(f"not the builder's: {ELSEWHERE[name]}")
    case = load(CASES[name])
    intended = _intended(name)
    found = dict(_differences(case))
    unexpected = {path: found[path] for path in found if path not in intended}
    assert not unexpected
    # What is listed for this very case must still be so; what is listed for all need not show in each.
    assert {path for path, exact in intended.items() if exact} <= set(found), (
        "listed, but no longer different"
    )


def test_every_listed_case_exists() -> None:
    names = set(CASES)
    listed = [name for kind in TABLE.values() for entry in kind for name in entry.get("cases", ())]
    assert [name for name in listed if name != "*" and name not in names] == []


def test_what_is_listed_for_all_cases_shows_in_an_ordinary_one() -> None:
    everywhere = {path for entry in TABLE["intended"] if "*" in entry["cases"] for path in entry["paths"]}
    assert set(dict(_differences(load("caps/default.json")))) == everywhere


def _intended(name: str) -> dict[str, bool]:
    """Paths that may differ in this case -> whether they must."""
    paths: dict[str, bool] = {}
    for entry in TABLE["intended"]:
        if name in entry["cases"] or "*" in entry["cases"]:
            paths.update(dict.fromkeys(entry["paths"], "*" not in entry["cases"]))
    return paths


# Comparing


def _differences(case: Json) -> Iterator[tuple[str, str]]:
    recorded = case["containerd"]
    error = recorded.get("error", {})
    try:
        sandbox = _sandbox(case)
    except PodwrightError as refusal:
        if error.get("call") != "RunPodSandbox":
            yield "sandbox.error", f"only podwright refuses: {refusal}"
        return
    if error.get("call") == "RunPodSandbox":
        yield "sandbox.error", f"only containerd refuses: {error['message']}"
        return
    yield from _compare("sandbox", recorded["sandbox_spec"], sandbox)
    yield from ((f"oci.{problem}", "breaks a rule of the OCI") for problem in oci_rules.problems(sandbox))
    try:
        request = _container(case)
        built = build_container(request, _host(case, "container_spec"), explain=True)
    except PodwrightError as refusal:
        if not error:
            yield "container.error", f"only podwright refuses: {refusal}"
        return
    if error:
        yield "container.error", f"only containerd refuses: {error['message']}"
        return
    yield from _compare("container", recorded["container_spec"], _shm_as_recorded(built.spec))
    yield from ((f"oci.{problem}", "breaks a rule of the OCI") for problem in oci_rules.problems(built.spec))
    yield from _unexplained(built.spec, built.origins)
    try:
        signal = effective_stop_signal(request.config.stop_signal, request.image.stop_signal).name
    except PodwrightError as refusal:
        signal = str(refusal)
    if recorded.get("stop_signal") != signal:
        yield "stop_signal", f"containerd {recorded.get('stop_signal')}, podwright {signal}"


def _shm_as_recorded(spec: Json) -> Json:
    """The one difference that every pod has, in a field that must be compared all the same: we repeat the
    flags of the pod's shared memory, for crun drops them when it remounts for "rw"."""
    mounts = []
    for mount in spec["mounts"]:
        if mount["destination"] == "/dev/shm" and mount["source"] not in ("shm", "/dev/shm"):
            kept = [option for option in mount["options"] if option not in ("nosuid", "nodev", "noexec")]
            if mount["options"] == [*kept, "nosuid", "nodev", "noexec"]:
                mount = {**mount, "options": kept}
        mounts.append(mount)
    return {**spec, "mounts": mounts}


def _compare(prefix: str, recorded: Json, ours: Json) -> Iterator[tuple[str, str]]:
    theirs, mine = dict(_leaves(recorded)), dict(_leaves(ours))
    for path in sorted(theirs.keys() | mine.keys()):
        if theirs.get(path) != mine.get(path) and path != "ociVersion":
            yield f"{prefix}.{path}", f"containerd {theirs.get(path)!r}, podwright {mine.get(path)!r}"


UNORDERED = ("bounding", "effective", "permitted", "additionalGids", "maskedPaths", "readonlyPaths")


def _leaves(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """The members that say something, lists without an order as sorted ones."""
    if value in (None, {}, [], "", False):
        return
    name = path.rpartition(".")[2]
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif name in UNORDERED:
        yield path, sorted(value)
    elif path == "mounts":
        yield path, [entry for _, group in groupby(value, _volume_depth) for entry in _sorted_volumes(group)]
    elif name == "namespaces":
        yield path, sorted(value, key=lambda entry: str(entry["type"]))
    else:
        yield path, value


def _volume_depth(mount: Json) -> int:
    """Volumes of an image come in any order as long as parents come first; 0: not one of them."""
    return mount["destination"].count("/") if "${VOLUME:" in mount["source"] else 0


def _sorted_volumes(group: Iterator[Json]) -> list[Json]:
    mounts = list(group)
    return sorted(mounts, key=lambda mount: str(mount["destination"])) if _volume_depth(mounts[0]) else mounts


def _unexplained(spec: Json, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every value has an origin, at its own place or at one that contains it."""
    for section in ("process", "root", "linux", "hooks"):
        for path, _ in _leaves(spec.get(section), section):
            if not any(path == place or path.startswith(f"{place}.") for place in origins):
                if path == "linux.devices" and any(place.startswith("linux.devices[") for place in origins):
                    continue
                yield f"origins.{path}", "has no origin"
    for entry in spec["mounts"]:
        if f"mounts[{entry['destination']}]" not in origins:
            yield f"origins.mounts[{entry['destination']}]", "has no origin"
    for key in spec["annotations"]:
        if f"annotations[{key}]" not in origins:
            yield f"origins.annotations[{key}]", "has no origin"


# A case as podwright's inputs: what the engine would have looked up on the recorded host


def _host(case: Json, kind: str) -> HostFacts:
    facts, options = case["host_facts"], case["host_facts"].get("containerd_options", {})
    missing = set(facts["bounding_capabilities"]["all_except"])
    major, minor = facts["kernel_version"].split(".")[:2]
    return HostFacts(
        hostname=facts["hostname"],
        architecture=facts["architecture"],
        kernel=(int(major), int(minor)),
        cgroup_version=facts["cgroup_version"],
        swap_controller=facts["swap_controller"],
        hugetlb_controller=facts["hugetlb_controller"],
        capabilities=sorted(KNOWN - missing),
        own_oom_score_adj=facts["own_oom_score_adj"],
        seccomp=facts["seccomp"],
        default_seccomp=_default_seccomp(case, kind),
        apparmor=facts["apparmor"] and not options.get("disable_apparmor", False),
        apparmor_profiles=frozenset(facts.get("apparmor_profiles_loaded", ())),
        apparmor_default="cri-containerd.apparmor.d",
        selinux=_selinux(facts) if options.get("enable_selinux") else None,
        cgroup_mount_options=frozenset(facts.get("sys_fs_cgroup_mount_options", "").split(",")),
        cdi=_cdi(facts) if options.get("enable_cdi", True) else None,
        blockio=_blockio(facts) if facts["blockio"] else None,
        rdt={name: rdt.Class() for name in facts["rdt_classes"]} if facts["rdt"] else None,
        policy=Policy(
            restrict_oom_score_adj=options.get("restrict_oom_score_adj", False),
            disable_proc_mount=options.get("disable_proc_mount", False),
            unset_seccomp_profile=options.get("unset_seccomp_profile", ""),
            device_ownership_from_security_context=options.get(
                "device_ownership_from_security_context", False
            ),
            unprivileged_ports=options.get("enable_unprivileged_ports", True),
            unprivileged_icmp=options.get("enable_unprivileged_icmp", True),
            hugepages=not options.get("disable_hugetlb_controller", True),
            tolerate_missing_hugetlb=options.get("tolerate_missing_hugetlb_controller", True),
            ignore_blockio_not_enabled=options.get("ignore_blockio_not_enabled_errors", False),
            ignore_rdt_not_enabled=options.get("ignore_rdt_not_enabled_errors", False),
            image_volumes=not options.get("ignore_image_defined_volumes", False),
        ),
    )


def _default_seccomp(case: Json, kind: str) -> SeccompProfile:
    """containerd's own table as far as it was recorded, so that the choice of the profile is compared, not
    its content; elsewhere a profile that no recorded spec has."""
    recorded = (case["containerd"].get(kind) or {}).get("linux", {}).get("seccomp", {})
    if len(recorded.get("syscalls", ())) > 5:
        return SeccompProfile(recorded, "default")
    return SeccompProfile({"defaultAction": "SCMP_ACT_KILL"}, "default")


def _selinux(facts: Json) -> SELinux | None:
    if not facts["selinux"]:
        return None
    contexts = facts["selinux_contexts"]
    return SELinux(
        process=Context.parse(contexts["process"], "process"), file=Context.parse(contexts["file"], "file")
    )


def _cdi(facts: Json) -> cdi.Registry:
    directories = facts.get("cdi_spec_dirs", ())
    return cdi.Registry.build(
        cdi.File(path, directories.index(posixpath.dirname(path)), entry["content"].encode())
        for path, entry in _fixtures(facts).items()
        if posixpath.dirname(path) in directories and entry["type"] == "file"
    )


def _blockio(facts: Json) -> blockio.Classes:
    path = facts["blockio_config"]
    found = {
        device: [(int(numbers.split(":")[0]), int(numbers.split(":")[1]))]
        for device, numbers in facts["block_devices"].items()
    }
    return blockio.parse(_fixtures(facts)[path]["content"].encode(), path).resolve(found)


def _handler(case: Json) -> HandlerOptions:
    facts = case["host_facts"]
    options = dict(facts.get("handler_options", {}))
    base = options.pop("base_runtime_spec", None)
    return HandlerOptions(
        name=case["runtime_handler"],
        base_spec=base_spec.parse(_fixtures(facts)[base]["content"].encode(), base) if base else None,
        recursive_read_only=facts["runtime_features"]["recursive_read_only_mounts"],
        idmapped_mounts=facts["runtime_features"]["id_mapped_mounts"],
        **options,
    )


def _container(case: Json) -> ContainerInput:
    facts = case["host_facts"]
    config = json_format.ParseDict(case["container_config"], cri.ContainerConfig())
    sandbox = json_format.ParseDict(case["sandbox_config"], cri.PodSandboxConfig())
    image = ImageConfig.parse(case["image_config"])
    recorded = case["containerd"].get("container_spec") or {}
    target = config.linux.security_context.namespace_options.target_id
    host = _host(case, "container_spec")
    policy = host.policy
    handler = _handler(case)
    return ContainerInput(
        id="${CONTAINER_ID}",
        config=config,
        sandbox_id="${SANDBOX_ID}",
        sandbox=sandbox,
        image=image,
        # Made by the cgroup driver, not by a rule of the spec.
        cgroups_path=recorded.get("linux", {}).get("cgroupsPath", ""),
        rootfs=RootfsFiles(facts["rootfs_files"].get("/etc/passwd"), facts["rootfs_files"].get("/etc/group")),
        namespaces=NamespacePaths(
            net=f"{PROC}/net",
            ipc=f"{PROC}/ipc",
            uts=f"{PROC}/uts",
            pid=f"{PROC}/pid",
            user=f"{PROC}/user",
            target_pid="/proc/${TARGET_PID}/ns/pid" if target == "${TARGET_ID}" else "",
        ),
        system=SystemFiles(
            hostname=f"{FILES}/hostname",
            hosts=f"{FILES}/hosts",
            resolv_conf=f"{FILES}/resolv.conf",
            shm=f"{STATE}/sandboxes/${{SANDBOX_ID}}/shm",
        ),
        handler=handler,
        mount_sources=[_mount_source(lookup, facts) for lookup in mounts.lookups(config)],
        devices={
            path: nodes
            for path in (*devices.lookups(config, handler).paths, *cdi_rules.lookups(config, host))
            if (nodes := _device_nodes(path, _fixtures(facts))) is not None
        },
        host_devices=[_node(entry["path"], entry) for entry in _host_devices(facts)],
        volumes={
            path: "${ROOT}/io.containerd.grpc.v1.cri/containers/${CONTAINER_ID}/volumes/"
            f"${{VOLUME:{path}}}"
            for path in mounts.volumes_needed(config, image, policy)
        },
        seccomp_profile=_content(
            security.localhost_path(
                config.linux.security_context, policy, sandbox.annotations, config.metadata.name
            ),
            facts,
        ),
        pod_selinux_level="${MCS1}" if selinux.needs_level(sandbox, host) else "",
        selinux_level="${MCS2}" if selinux.needs_level(config, host) else "",
    )


def _sandbox(case: Json) -> Json:
    host = _host(case, "sandbox_spec")
    config = json_format.ParseDict(case["sandbox_config"], cri.PodSandboxConfig())
    recorded = case["containerd"].get("sandbox_spec") or {}
    request = SandboxInput(
        id="${SANDBOX_ID}",
        config=config,
        cgroups_path=recorded.get("linux", {}).get("cgroupsPath", ""),
        rootfs_path="rootfs",
        namespaces=NamespacePaths(net="${NETNS}", ipc="${IPCNS}", uts="${UTSNS}", user="${USERNS}"),
        handler=_handler(case),
        seccomp_profile=_content(
            security.localhost_path(config.linux.security_context, host.policy, config.annotations),
            case["host_facts"],
        ),
        selinux_level="${MCS1}" if selinux.needs_level(config, host) else "",
    )
    spec = build_sandbox(request, host).spec
    # The pod's parameters are written when its namespaces are pinned, before there is a pause process.
    spec["linux"]["sysctl"] = sandbox_sysctls(config, host.policy)
    return spec


def _content(path: str, facts: Json) -> bytes | None:
    entry = _fixtures(facts).get(path)
    if entry is None:
        return None
    text = entry["content"]
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else text.encode()


def _fixtures(facts: Json) -> Json:
    return facts.get("fixtures", {}).get("paths", {})


def _follow(path: str, fixtures: Json) -> str:
    entry = fixtures.get(path, {})
    if entry.get("type") != "symlink":
        return path
    return _follow(posixpath.normpath(posixpath.join(posixpath.dirname(path), entry["target"])), fixtures)


def _mount_source(lookup: mounts.Lookup, facts: Json) -> MountSource:
    if lookup.image is not None:
        images = load("host/images.json")["images"].values()
        digest = {image["ref"]: image["digest"] for image in images}[lookup.image.image]
        shown = f"{STATE}/image-volumes/${{SANDBOX_ID}}/{digest.removeprefix('sha256:')}"
        return MountSource(
            path=posixpath.join(shown, lookup.image_sub_path) if lookup.image_sub_path else shown
        )
    path = _follow(lookup.host_path, _fixtures(facts))
    if not lookup.propagated:
        return MountSource(path=path)
    table = [entry for entry in facts["mount_table"] if path.startswith(entry["mountpoint"])]
    entry = max(table, key=lambda entry: len(entry["mountpoint"]))
    return MountSource(
        path=path,
        mountpoint=entry["mountpoint"],
        shared="shared:" in entry["optional"],
        slave="master:" in entry["optional"],
    )


def _device_nodes(path: str, fixtures: Json) -> list[DeviceNode] | None:
    real = _follow(path, fixtures)
    entry = fixtures.get(real)
    if entry is None:
        return None
    if entry["type"] != "directory":
        return [_node(path, entry)] if entry["type"] in ("char", "block") else []
    return [
        _node(path + below[len(real) :], node)
        for below, node in sorted(fixtures.items())
        if below.startswith(f"{real}/") and node["type"] in ("char", "block")
    ]


def _node(path: str, entry: Json) -> DeviceNode:
    return DeviceNode(
        path=path,
        type=entry["type"][0],
        major=entry["major"],
        minor=entry["minor"],
        mode=int(entry["mode"], 8),
        uid=entry["uid"],
        gid=entry["gid"],
    )


def _host_devices(facts: Json) -> list[Json]:
    return [
        entry
        for entry in facts.get("devices", ())
        if entry["type"] in ("c", "b")
        and posixpath.basename(entry["path"]) not in devices.SKIPPED_NODES
        and not devices.SKIPPED_DIRECTORIES.intersection(entry["path"].split("/"))
    ]
