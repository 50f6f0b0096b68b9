"""Whole CRI configs by chance, for hypothesis: sound ones, odd ones, and impossible ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from podwright.spec import blockio, cdi, oci_hooks, rdt
from podwright.spec.inputs import (
    ContainerInput,
    DeviceNode,
    HandlerOptions,
    HostFacts,
    ImageConfig,
    NamespacePaths,
    Policy,
    RootfsFiles,
)
from podwright.spec.linux import cdi as cdi_rules
from podwright.spec.linux import devices, mounts
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.rlimits import Rlimit
from podwright.spec.selinux import Context, SELinux
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import DEFAULT_SECCOMP, FILES

ANNOTATIONS = (
    "umask.crio.io",
    "devices.crio.io",
    "cgroup2-mount-hierarchy-rw.crio.io",
    "ulimits.noderesource.dev/container.main",
    "seccomp-profile.crio.io/POD",
    "cdi.k8s.io/x",
    "io.kubernetes.cri.blockio-class",
    "rdt.resources.beta.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/main",
    "container.apparmor.security.beta.kubernetes.io/main",
    "plain",
)
TEXTS = st.text(max_size=4)
PLACES = st.one_of(
    st.lists(st.sampled_from(["dev", "sys", "etc", "hosts", "x", "..", ".", ""]), min_size=1, max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
    st.sampled_from(["relative", "/sys/fs/cgroup", "/dev/shm", "/etc/localtime"]),
)
MAPPING = st.builds(
    cri.IDMapping, host_id=st.sampled_from([0, 100000]), container_id=st.just(0), length=st.just(65536)
)
SOUND_ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "umask.crio.io": st.just("077"),
        "devices.crio.io": st.just("/dev/fuse"),
        "cgroup2-mount-hierarchy-rw.crio.io": st.just("true"),
        "ulimits.noderesource.dev/container.main": st.just("- {type: nofile, soft: 1, hard: 2}"),
        "container.seccomp.security.alpha.kubernetes.io/main": st.just("unconfined"),
        "plain": TEXTS,
    },
)


class Wishes:
    """Strategies for the parts of a request. `odd` ones hold impossible values, too: hardly a request with
    them is sound, so that both kinds have to be drawn."""

    def __init__(self, odd: bool) -> None:
        self.odd = odd
        self.names = self.of([*sorted(KNOWN)[:20], "ALL", "all", "net_admin"], ["NO_SUCH", ""])
        self.capabilities = st.lists(self.names, max_size=3)
        self.ids = st.none() | st.builds(cri.Int64Value, value=self.of([0, 1000], [-1, 2**31]))
        self.words = self.of(
            ["", "unconfined"], ["true", "077", "gold", "runtime/default", "localhost/p", "x"]
        )
        self.paths = self.with_odd(PLACES, "")
        self.profiles: st.SearchStrategy[Any] = st.none() | st.builds(
            cri.SecurityProfile,
            profile_type=self.of([1], [0, 2, 3]),
            localhost_ref=self.of([""], ["p", "../p"]),
        )
        self.annotations: st.SearchStrategy[Any] = SOUND_ANNOTATIONS
        if odd:
            self.annotations = st.dictionaries(st.sampled_from(ANNOTATIONS), self.words, max_size=3)

    def of(self, sound: Sequence[Any], odd: Sequence[Any]) -> st.SearchStrategy[Any]:
        return st.sampled_from([*sound, *odd] if self.odd else sound)

    def with_odd(self, sound: st.SearchStrategy[Any], odd: Any) -> st.SearchStrategy[Any]:
        return sound | st.just(odd) if self.odd else sound

    def selinux(self) -> st.SearchStrategy[Any]:
        level = self.of(["", "s0", "s0:c1,c2"], ["x"])
        return st.none() | st.builds(cri.SELinuxOption, level=level, type=self.of(["", "spc_t"], ["a b"]))

    def namespaces(self) -> st.SearchStrategy[Any]:
        mappings = st.lists(MAPPING, min_size=0 if self.odd else 1, max_size=2 if self.odd else 1)
        userns = st.none() | st.builds(
            cri.UserNamespace,
            mode=self.of([cri.NamespaceMode.POD], [1, 2, 3, 4]),
            uids=mappings,
            gids=mappings,
        )
        mode = self.of([0, 1, 2, 3], [4])
        return st.builds(
            cri.NamespaceOption, network=mode, pid=mode, ipc=mode, userns_options=userns, target_id=TEXTS
        )

    def security(self) -> st.SearchStrategy[Any]:
        capabilities = st.builds(
            cri.Capability,
            add_capabilities=self.capabilities,
            drop_capabilities=self.capabilities,
            add_ambient_capabilities=self.capabilities,
        )
        return st.builds(
            cri.LinuxContainerSecurityContext,
            capabilities=st.none() | capabilities,
            privileged=st.booleans(),
            namespace_options=st.none() | self.namespaces(),
            selinux_options=self.selinux(),
            run_as_user=self.ids if self.odd else st.builds(cri.Int64Value, value=st.just(5)),
            run_as_group=self.ids,
            run_as_username=self.of(["", "", "root", "nobody", "5:7"], ["x:y"]),
            readonly_rootfs=st.booleans(),
            supplemental_groups=st.lists(self.of([0, 7], [-1]), max_size=2),
            apparmor_profile=self.words,
            seccomp_profile_path=self.words,
            no_new_privs=st.booleans(),
            masked_paths=st.lists(PLACES, max_size=2),
            readonly_paths=st.lists(PLACES, max_size=2),
            seccomp=self.profiles,
            apparmor=self.profiles,
            supplemental_groups_policy=self.of([0, 1], [2]),
        )

    def resources(self) -> st.SearchStrategy[Any]:
        number = self.of([0, 3, 2**31], [-1, -2, 2**62])
        return st.none() | st.builds(
            cri.LinuxContainerResources,
            cpu_period=number,
            cpu_quota=st.sampled_from([-1, 0, 5]),
            cpu_shares=number,
            memory_limit_in_bytes=number,
            memory_swap_limit_in_bytes=number,
            oom_score_adj=self.of([0, -1000, 1000], [1001]),
            cpuset_cpus=TEXTS,
            hugepage_limits=st.lists(st.just(cri.HugepageLimit(page_size="2MB", limit=9)), max_size=1),
            unified=st.dictionaries(TEXTS, TEXTS, max_size=2),
        )

    def mounts(self) -> st.SearchStrategy[Any]:
        return st.builds(
            cri.Mount,
            container_path=self.paths,
            host_path=self.with_odd(st.sampled_from(["/host", "/data/x"]), ""),
            readonly=st.booleans(),
            recursive_read_only=st.booleans() if self.odd else st.just(False),
            selinux_relabel=st.booleans(),
            propagation=self.of([0, 1, 2], [3]),
            uidMappings=st.lists(MAPPING, max_size=2) if self.odd else st.just([]),
        )

    def devices(self) -> st.SearchStrategy[Any]:
        return st.builds(
            cri.Device,
            host_path=self.of(["/dev/null", "/dev/dir", "/dev/fuse"], ["/dev/none"]),
            container_path=st.sampled_from(["", "/dev/here"]),
            permissions=self.of(["", "r", "rwm"], ["rx"]),
        )

    def config(self) -> st.SearchStrategy[Any]:
        value = st.binary(max_size=3) if self.odd else st.sampled_from([b"", b"1"])
        return st.builds(
            cri.ContainerConfig,
            metadata=st.just(cri.ContainerMetadata(name="main")),
            command=st.lists(TEXTS, min_size=0 if self.odd else 1, max_size=2),
            args=st.lists(TEXTS, max_size=2),
            working_dir=PLACES,
            tty=st.booleans(),
            envs=st.lists(
                st.builds(cri.KeyValue, key=st.sampled_from(["A", "PATH", "HOSTNAME"]), value=value),
                max_size=3,
            ),
            mounts=st.lists(self.mounts(), max_size=3),
            devices=st.lists(self.devices(), max_size=2),
            CDI_devices=st.lists(
                st.builds(cri.CDIDevice, name=self.of(["v.com/d=x"], ["v.com/d=y", "bad"])), max_size=1
            ),
            annotations=self.annotations,
            linux=st.builds(
                cri.LinuxContainerConfig, resources=self.resources(), security_context=self.security()
            ),
        )

    def pod(self) -> st.SearchStrategy[Any]:
        security = st.builds(
            cri.LinuxSandboxSecurityContext,
            namespace_options=st.none() | self.namespaces(),
            selinux_options=self.selinux(),
            run_as_user=self.ids,
            privileged=st.booleans() if self.odd else st.just(True),
            seccomp=self.profiles,
        )
        return st.builds(
            cri.PodSandboxConfig,
            hostname=TEXTS,
            annotations=self.annotations,
            linux=st.builds(cri.LinuxPodSandboxConfig, security_context=security, resources=self.resources()),
        )


SOUND, ODD = Wishes(odd=False), Wishes(odd=True)
PODS = SOUND.pod() | ODD.pod()
IMAGES = st.builds(
    ImageConfig,
    entrypoint=st.lists(TEXTS, max_size=2).map(tuple),
    cmd=st.lists(TEXTS, max_size=2).map(tuple),
    env=st.lists(st.sampled_from(["A=1", "A", "PATH=/i", "B="]), max_size=3).map(tuple),
    user=st.sampled_from(["", "root", "5", "nobody:5", ":"]),
    working_dir=PLACES,
    volumes=st.lists(PLACES, max_size=2, unique=True).map(tuple),
)
POLICIES = st.builds(
    Policy,
    restrict_oom_score_adj=st.booleans(),
    disable_proc_mount=st.booleans(),
    unset_seccomp_profile=st.sampled_from(["", "runtime/default"]),
    hugepages=st.booleans(),
    pids_limit=st.sampled_from([0, -1, 9]),
    default_ulimits=st.sampled_from([(), (Rlimit("RLIMIT_CORE", 0, 1),)]),
    umask=st.sampled_from([None, 0, 0o77]),
    read_only_rootfs=st.booleans(),
    gomaxprocs=st.booleans(),
    systemd=st.booleans(),
    unlabel_host_namespaces=st.booleans(),
)
_CDI = b"""
{"cdiVersion": "0.7.0", "kind": "v.com/d", "containerEdits": {"env": ["CDI=1"]}, "devices": [
 {"name": "x", "containerEdits": {"deviceNodes": [{"path": "/dev/cdi", "type": "c", "major": 9, "minor": 9}],
  "mounts": [{"hostPath": "/cdi", "containerPath": "/etc/hosts/x", "options": ["rbind"]}],
  "additionalGids": [44], "intelRdt": {"closID": "x"}}}]}
"""
_HOOK = b'{"version": "1.0.0", "hook": {"path": "/h"}, "when": {"commands": ["a"]}, "stages": ["prestart"]}'
HOSTS = st.builds(
    HostFacts,
    hostname=st.just("node"),
    kernel=st.just((6, 1)),
    cgroup_version=st.sampled_from([1, 2]),
    swap_controller=st.booleans(),
    hugetlb_controller=st.booleans(),
    capabilities=st.sampled_from([tuple(sorted(KNOWN)), ("CAP_CHOWN", "CAP_KILL")]),
    own_oom_score_adj=st.sampled_from([0, -5]),
    seccomp=st.sampled_from([True, True, False]),
    default_seccomp=st.sampled_from([DEFAULT_SECCOMP, None]),
    apparmor=st.booleans(),
    apparmor_profiles=st.just(frozenset({"p"})),
    apparmor_default=st.sampled_from(["", "default"]),
    selinux=st.sampled_from([None, SELinux(Context("u", "r", "t", "s0"), Context("u", "o", "f", "s0"))]),
    cdi=st.sampled_from([None, cdi.Registry.build([cdi.File("/etc/cdi/x.json", 0, _CDI)])]),
    blockio=st.sampled_from([None, blockio.parse(b"Classes: {gold: [{Weight: 80}]}", "f").resolve({})]),
    rdt=st.sampled_from([None, {"gold": rdt.Class()}]),
    hooks=st.sampled_from([(), (oci_hooks.parse(_HOOK, "/hooks/h.json"),)]),
    localtime=st.sampled_from(["", "/usr/share/zoneinfo/UTC"]),
    policy=POLICIES,
)
HANDLERS = st.builds(
    HandlerOptions,
    recursive_read_only=st.booleans(),
    idmapped_mounts=st.booleans(),
    privileged_without_host_devices=st.booleans(),
    cgroup_writable=st.booleans(),
    container_annotations=st.sampled_from([(), ("*",)]),
    allowed_annotations=st.sampled_from([(), ("*",)]),
    minimum_memory=st.sampled_from([0, 2]),
    own_kernel=st.booleans(),
)
NODES = {
    "/dev/null": [DeviceNode(path="/dev/null", type="c", major=1, minor=3)],
    "/dev/dir": [DeviceNode(path="/dev/dir/a", type="b", major=8, minor=1)],
    "/dev/fuse": [DeviceNode(path="/dev/fuse", type="c", major=10, minor=229)],
}
EVERYTHING = (DeviceNode(path="/dev/sda", type="b", major=8, minor=0),)


@st.composite
def requests(draw: st.DrawFn) -> tuple[ContainerInput, HostFacts]:
    """A request with all that the engine would have looked up for it; the lookups may refuse it, too."""
    wishes = draw(st.sampled_from([SOUND, SOUND, ODD]))
    config, sandbox, host = draw(wishes.config()), draw(wishes.pod()), draw(HOSTS)
    image, handler = draw(IMAGES), draw(HANDLERS)
    if wishes is SOUND:
        # Otherwise hardly any container and pod would agree.
        options = sandbox.linux.security_context.namespace_options
        if options.HasField("userns_options"):
            config.linux.security_context.namespace_options.userns_options.CopyFrom(options.userns_options)
        else:
            config.linux.security_context.namespace_options.ClearField("userns_options")
    user = "/pins/user" if wishes is SOUND else ""
    request = ContainerInput(
        id="c",
        config=config,
        sandbox_id="s",
        sandbox=sandbox,
        image=image,
        cgroups_path="/pod/c",
        rootfs=RootfsFiles("root:x:0:0::/:\nnobody:x:65534:65534::/:\n", "root:x:0:\n"),
        namespaces=NamespacePaths(net="/n", ipc="/i", uts="/u", user=user, target_pid="/t"),
        system=FILES,
        handler=handler,
        devices=NODES,
        host_devices=EVERYTHING,
        volumes=dict.fromkeys(mounts.volumes_needed(config, image, host.policy), "/volume"),
        seccomp_profile=draw(st.sampled_from([None, b"{", b'{"defaultAction": "SCMP_ACT_LOG"}'])),
        pod_selinux_level="s0:c7,c8",
        selinux_level="s0:c9,c10",
    )
    return request, host


def look_up(request: ContainerInput, host: HostFacts) -> None:
    """What the engine asks the rules before it builds."""
    mounts.lookups(request.config)
    devices.lookups(request.config, request.handler, request.sandbox, host.policy)
    cdi_rules.lookups(request.config, host)
