"""What runs: arguments, environment, working directory, terminal, OOM score."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from podwright.errors import InvalidArgument
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HandlerOptions, HostFacts, SandboxInput
from podwright.wire import cri_pb2 as cri

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PAUSE_OOM_SCORE_ADJ = -998
"""The pod's namespaces must outlive its containers when memory runs out (kubelet, qos policy)."""
_SYSTEMD = ("/sbin/init", "/usr/sbin/init")


def args(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """`command` replaces the image's entrypoint and drops its cmd; `args` replaces the cmd only.

    Raises InvalidArgument when nothing is left to run.
    """
    config, image = request.config, request.image
    command: Sequence[str] = config.command
    rest: Sequence[str] = config.args
    origin = "request: config.command, config.args"
    if not command:
        # An image built FROM scratch with `ENTRYPOINT [""]` says: none.
        command = () if image.entrypoint == ("",) else image.entrypoint
        if rest:
            origin = "image: Entrypoint; request: config.args" if command else "request: config.args"
        else:
            rest = image.cmd
            origin = "image: Entrypoint, Cmd"
    draft.process["args"] = [*command, *rest]
    if not draft.process["args"]:
        raise InvalidArgument(
            "config.command",
            "no command specified: neither command and args nor the image's Entrypoint and Cmd name one",
        )
    draft.note("process.args", origin)


def env(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Defaults, then the image's, then the request's variables; a later one replaces the earlier in place.

    Raises InvalidArgument for values that are not UTF-8: the runtimes read the spec as JSON, where such
    bytes have no form (crun refuses the whole file, runc puts U+FFFD in their place).
    """
    defaults = [f"PATH={DEFAULT_PATH}"]
    if request.config.tty:
        defaults.append("TERM=xterm")
    defaults.append(f"HOSTNAME={request.sandbox.hostname or host.hostname}")
    if runs_systemd(draft, host):
        defaults.append("container=podwright")
    variables: list[str] = draft.process.get("env", [])
    override(variables, defaults)
    override(variables, request.image.env)
    override(variables, [f"{item.key}={text(item)}" for item in request.config.envs])
    processors = _gomaxprocs(request) if host.policy.gomaxprocs else 0
    if processors and not any(variable.startswith("GOMAXPROCS=") for variable in variables):
        variables.append(f"GOMAXPROCS={processors}")
    draft.process["env"] = variables
    if draft.origins is not None:
        draft.note("process.env", "default: PATH, TERM with a terminal, HOSTNAME; then image, then request")
        for variable in variables:
            name = variable.partition("=")[0]
            draft.note(f"process.env[{name}]", _env_origin(name, request))
            if name not in _names(defaults) and request.handler.base_spec and not _is_asked(name, request):
                draft.note(f"process.env[{name}]", base_origin(request.handler))


def text(item: cri.KeyValue) -> str:
    """The variable's value, or InvalidArgument (see `env`)."""
    try:
        return item.value.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"config.envs[{item.key}].value", f"cannot be passed to the OCI runtime: {error}"
        ) from error


def override(variables: list[str], layer: Iterable[str]) -> None:
    """Put `layer` over `variables`. A name without "=" removes the variable; a name that stands twice in
    the layer itself stays twice, if it is new."""
    places = {variable.partition("=")[0]: place for place, variable in enumerate(variables)}
    removed = set()
    for variable in layer:
        name, equals, _ = variable.partition("=")
        place = places.get(name)
        if not equals:
            if place is not None:
                removed.add(place)
        elif place is None:
            variables.append(variable)
        else:
            variables[place] = variable
            removed.discard(place)
    for place in sorted(removed, reverse=True):
        del variables[place]


def _names(variables: Iterable[str]) -> set[str]:
    return {variable.partition("=")[0] for variable in variables}


def _is_asked(name: str, request: ContainerInput) -> bool:
    return name in _names(request.image.env) or any(item.key == name for item in request.config.envs)


def _env_origin(name: str, request: ContainerInput) -> str:
    if any(item.key == name for item in request.config.envs):
        return f"request: config.envs[{name}]"
    if name in _names(request.image.env):
        return "image: Env"
    if name == "HOSTNAME":
        return "request: sandbox_config.hostname" if request.sandbox.hostname else "host: hostname"
    return _DEFAULT_ENV.get(name, "default: search path")


_DEFAULT_ENV = {
    "TERM": "default: for a terminal",
    "GOMAXPROCS": "node: gomaxprocs; request: config.linux.resources.cpu_quota",
    "container": "node: systemd",
}


def _gomaxprocs(request: ContainerInput) -> int:
    """How many processors the CPU quota is worth, at least one; 0 without a quota."""
    limits = request.config.linux.resources
    if limits.cpu_quota <= 0:
        return 0
    return -(-limits.cpu_quota // (limits.cpu_period or 100_000))


def base_origin(handler: HandlerOptions) -> str:
    return f"handler: {handler.name} base_runtime_spec".replace("  ", " ")


def runs_systemd(draft: Draft, host: HostFacts) -> bool:
    """Whether the node prepares containers for systemd, and this one's program is systemd."""
    if not host.policy.systemd:
        return False
    program: str = draft.process["args"][0]
    return program in _SYSTEMD or posixpath.basename(program) == "systemd"


def hostname(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The pod's UTS namespace has it already, except where that is not seen."""
    if request.handler.own_kernel:
        draft.hostname = request.sandbox.hostname or host.hostname
        draft.note("hostname", _env_origin("HOSTNAME", request))


def cwd(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The request's, else the image's, else "/". The OCI demands an absolute path, an image may have a
    relative one (Dockerfile WORKDIR in a FROM scratch image)."""
    if request.config.working_dir:
        path, origin = request.config.working_dir, "request: config.working_dir"
    elif request.image.working_dir:
        path, origin = request.image.working_dir, "image: WorkingDir"
    elif draft.process.get("cwd"):
        path, origin = draft.process["cwd"], base_origin(request.handler)
    else:
        path, origin = "/", "default: the root"
    draft.process["cwd"] = path if path.startswith("/") else f"/{path}"
    draft.note("process.cwd", origin)


def terminal(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    if request.config.tty:
        draft.process["terminal"] = True
        draft.note("process.terminal", "request: config.tty")


def oom_score_adj(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Without `resources` the container inherits the daemon's."""
    if not request.config.linux.HasField("resources"):
        return
    asked = request.config.linux.resources.oom_score_adj
    _set_oom_score_adj(draft, asked, host, "request: config.linux.resources.oom_score_adj")


def _set_oom_score_adj(draft: Draft, asked: int, host: HostFacts, origin: str) -> None:
    """Only CAP_SYS_RESOURCE may lower a score (proc_pid_oom_score_adj(5)); without it runtimes fail with
    EPERM, so ask for no less than the daemon has itself."""
    if not -1000 <= asked <= 1000:
        raise InvalidArgument("config.linux.resources.oom_score_adj", f"{asked} is not in -1000..1000")
    floor = host.own_oom_score_adj
    given = asked
    if asked < floor:
        if host.policy.restrict_oom_score_adj:
            given, origin = floor, "node: restrict_oom_score_adj, raised to the daemon's own"
        elif "CAP_SYS_RESOURCE" not in host.capabilities:
            given, origin = floor, "host: no CAP_SYS_RESOURCE, raised to the daemon's own"
            draft.warn(f"oom_score_adj is {given} instead of {asked}: this host gives no CAP_SYS_RESOURCE")
    draft.process["oomScoreAdj"] = given
    draft.note("process.oomScoreAdj", origin)


def update_oom_score_adj(resources: cri.LinuxContainerResources, host: HostFacts) -> int:
    """The score that `resources` may ask for on this host (for in-place updates)."""
    draft = Draft(explain=False)
    _set_oom_score_adj(draft, resources.oom_score_adj, host, "")
    return int(draft.process["oomScoreAdj"])


def pause_program(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    draft.process["args"] = list(request.args)
    draft.process["env"] = [f"PATH={DEFAULT_PATH}"]
    draft.process["cwd"] = "/"
    draft.note("process.args", "rule: a pod that shares its PID namespace needs a first process")
    draft.note("process.env", "default: search path")
    draft.note("process.cwd", "default: the root")
    _set_oom_score_adj(
        draft, PAUSE_OOM_SCORE_ADJ, host, "default: the pod's namespaces outlive its containers"
    )
