"""The pods' network by CNI plugins: what a runtime has to do of the CNI specification, 0.3 to 1.1.

The configuration directory is watched. An ADD runs the configured chain of plugins; whatever it was told
is cached, so that DEL repeats exactly that, even if the configuration, this process or the machine has
changed meanwhile. Loopback needs no plugin: namespaces come with `lo` up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    Unavailable,
)
from podwright.linux import inotify, links
from podwright.linux.waiting import to_the_end
from podwright.network import conflist, iptables, plugin, pod_cidr
from podwright.network.attachment import Attachment, capability_args, cni_args
from podwright.network.bridge import DefaultBridge
from podwright.network.cache import Cache, Entry
from podwright.network.conflist import Network

__all__ = ["Attachment", "Cni", "Result"]

log = logging.getLogger(__name__)

UNDO_TIMEOUT = 60.0
"""Seconds for the DEL after a failed ADD."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an ADD made."""

    ips: tuple[str, ...]
    """The addresses of eth0 without prefix length, the preferred one first."""
    interfaces: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any]
    """The last plugin's answer."""


class Cni:
    def __init__(
        self,
        conf_dir: Path,
        bin_dirs: Sequence[Path],
        cache_dir: Path,
        *,
        default_bridge: bool = False,
        ip_preference: str = "ipv4",
        conf_template: Path | None = None,
    ) -> None:
        self.pod_cidrs: Sequence[str] = ()
        """Handed to plugins that declare the capability ipRanges."""
        self._conf_dir = conf_dir
        self._conf_template = conf_template
        self._bin_dirs = tuple(bin_dirs)
        self._cache = Cache(cache_dir / "results")
        self._bridge = DefaultBridge(cache_dir) if default_bridge else None
        self._preference = ip_preference
        self._network: Network | None = None
        self._load_error = "the network configuration has not been read yet"
        self._watch: inotify.Watch | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the configuration and follow its changes. A missing one is no error: see `error`.

        FailedPrecondition for a template that can never work.
        """
        if self._conf_template is not None:
            pod_cidr.check(self._conf_template)
        self._watch = inotify.Watch()
        self._arm()
        self._load()
        self._watcher = asyncio.create_task(self._follow(self._watch), name="cni configuration")

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def error(self) -> str:
        """Why pods get no network; "" when they do."""
        if self._load_error:
            return self._load_error
        network = self._network
        types = network.plugin_types if network else self._bridge.plugin_types if self._bridge else []
        try:
            for type in types:
                plugin.find(type, self._bin_dirs)
        except FailedPrecondition as error:
            return str(error)
        return ""

    async def use_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        """From now on the pods' addresses come from `cidrs`: as far as plugins ask for them, and in the
        configuration that is made of the template. See `pod_cidr.write` for its errors."""
        template = self._conf_template
        if template is None:
            log.info("pod CIDR %s: cni.conf_template is not set, so nothing is written", ", ".join(cidrs))
        elif await asyncio.to_thread(pod_cidr.write, self._conf_dir, template, cidrs):
            log.info("pod CIDR %s: %s is written", ", ".join(cidrs), self._conf_dir / pod_cidr.FILE)
            # The watch would tell it, but whoever asks next shall see it.
            if self._watch is not None:
                self._arm()
            self._load()
        self.pod_cidrs = tuple(cidrs)

    @property
    def network(self) -> Network | None:
        """The configuration in force; None when there is none or it is the default bridge's."""
        return self._network

    async def add(self, attachment: Attachment) -> Result:
        """Attach a sandbox. When it fails or is cancelled, everything the plugins did is deleted again.

        Raises Unavailable when there is no configuration, InvalidArgument for a bad annotation,
        PluginFailed, DeadlineExceeded, FailedPrecondition for a missing plugin or one that gave eth0 no
        address.
        """
        network = await self._ready()
        arguments = conflist.declared_args(network.plugins, capability_args(attachment, self.pod_cidrs))
        entry = Entry(attachment.id, attachment.netns, network, cni_args(attachment), arguments, None)
        self._cache.write(entry)
        try:
            result = await self._add(entry)
            made = self._result(result)
            if not made.ips:
                raise FailedPrecondition(
                    f"network {network.name!r} gave {plugin.IFNAME} of pod {attachment.name!r} no address: "
                    "its first plugin needs an ipam section"
                )
            self._cache.write(replace(entry, result=result))
        except BaseException:
            await to_the_end(self._undo(entry))
            raise
        return made

    async def delete(self, attachment: Attachment) -> None:
        """Detach a sandbox with the words it was attached with; again and again if need be.

        A namespace that is gone (or "") is fine. Raises DeadlineExceeded or FailedPrecondition when a
        plugin cannot be asked, PluginFailed when one of a completed attachment fails: try again later.
        """
        netns = attachment.netns if _is_namespace(attachment.netns) else ""
        entry = self._cache.read(attachment.id)
        if entry is None:
            # ADD writes the entry first: without one there was no ADD, or its DEL is done. A damaged file
            # or a namespace that is still there leaves doubt: the present configuration is the best guess.
            if (self._cache.has(attachment.id) or netns) and not self.error:
                network = await self._ready()
                arguments = conflist.declared_args(
                    network.plugins, capability_args(attachment, self.pod_cidrs)
                )
                entry = Entry(attachment.id, netns, network, cni_args(attachment), arguments, None)
            else:
                self._cache.remove(attachment.id)
                return
        failure = await self._delete(entry, netns)
        # Plugins that an ADD never came to may complain. One that could not be asked at all still holds
        # what it gave, such as an address.
        if failure is not None and (entry.result is not None or not isinstance(failure, plugin.PluginFailed)):
            raise failure
        self._cache.remove(attachment.id)

    async def check(self, attachment: Attachment) -> None:
        """Ask the plugins whether the attachment is as they made it; they raise PluginFailed if not.

        Nothing is asked of configurations before 0.4.0 or with disableCheck. NotFound when it was never
        attached.
        """
        entry = self._cache.read(attachment.id)
        if entry is None or entry.result is None:
            raise NotFound(f"sandbox {attachment.id} is not attached to a network")
        if entry.network.disable_check or not entry.network.at_least("0.4.0"):
            return
        for each in entry.network.plugins:
            await self._call(entry, each, "CHECK", previous=entry.result)

    async def status(self) -> str:
        """`error`, and since CNI 1.1 also what the plugins themselves answer to STATUS."""
        if self.error:
            return self.error
        network = self._network
        if network is None or not network.at_least("1.1.0"):
            return ""
        try:
            for each in network.plugins:
                config = conflist.plugin_input(network, each, {})
                await plugin.call(str(each["type"]), "STATUS", config, bin_dirs=self._bin_dirs)
        except PodwrightError as error:
            return str(error)
        return ""

    async def gc(self, valid_ids: Iterable[str], *, sole_user: bool = False) -> list[str]:
        """Delete attachments that are cached for ids that are not valid; returns their ids.

        The `sole_user` of the network also asks its plugins, since CNI 1.1, to drop whatever else they hold:
        they would take the attachments of other runtimes for garbage. A failure is logged and the entry kept
        for the next time.
        """
        valid = set(valid_ids)
        removed: list[str] = []
        for id in sorted(self._cache.ids() - valid):
            entry = self._cache.read(id)
            try:
                await self.delete(Attachment(id=id, netns=entry.netns if entry else ""))
                removed.append(id)
            except PodwrightError as error:
                log.warning("CNI DEL of vanished sandbox %s: %s", id, error)
        network = self._network
        if sole_user and network is not None and network.at_least("1.1.0") and not network.disable_gc:
            known = [{"containerID": id, "ifname": plugin.IFNAME} for id in sorted(valid & self._cache.ids())]
            for each in network.plugins:
                config = conflist.plugin_input(network, each, {}, extra={"cni.dev/valid-attachments": known})
                try:
                    await plugin.call(str(each["type"]), "GC", config, bin_dirs=self._bin_dirs)
                except PodwrightError as error:
                    log.warning("%s", error)
        return removed

    def cached(self, id: str) -> Result | None:
        """The result of a completed ADD that has not been deleted."""
        entry = self._cache.read(id)
        return self._result(entry.result) if entry is not None and entry.result is not None else None

    def cached_ids(self) -> set[str]:
        """The sandboxes that an ADD was begun for and no DEL has ended for."""
        return self._cache.ids()

    async def remove_bridge_if_unused(self) -> bool:
        """Take the default bridge away once no pod is on it; says whether one was removed."""
        return self._bridge is not None and await self._bridge.remove_if_unused(self._cache)

    # The configuration

    async def _ready(self) -> Network:
        if error := self.error:
            hint = ""
            if error == self._absence:
                hint = "; put one there, or set default_bridge = true under [cni], or use the host's network"
            raise Unavailable(f"the network is not ready: {error}{hint}")
        if self._network is not None:
            return self._network
        assert self._bridge is not None
        return await self._bridge.ensure()

    @property
    def _absence(self) -> str:
        return f"no network configuration in {self._conf_dir}"

    def _load(self) -> None:
        try:
            self._network = conflist.load_directory(self._conf_dir)
            missing = self._network is None and self._bridge is None
            self._load_error = self._absence if missing else ""
        except (conflist.BadNetwork, OSError) as error:
            self._network = None
            self._load_error = str(error)
        if self._load_error:
            log.warning("network: %s", self._load_error)
        elif self._network is not None:
            log.info("network %r from %s", self._network.name, self._network.source)

    def _arm(self) -> None:
        """Watch the directory, or while it is absent the nearest one above that is there."""
        assert self._watch is not None
        try:
            self._watch.add(self._conf_dir, inotify.CHANGES | inotify.CREATE | inotify.ONLYDIR)
            return
        except OSError:
            pass
        for above in self._conf_dir.parents:
            try:
                self._watch.add(above, inotify.CREATE | inotify.MOVED_TO | inotify.ONLYDIR)
                return
            except OSError:
                continue

    async def _follow(self, watch: inotify.Watch) -> None:
        async for first in watch:
            events = [first, *watch.pending()]
            if any(event.path != self._conf_dir or event.overflow or event.gone for event in events):
                self._arm()
                self._load()
            elif any(_is_content(event) for event in events):
                self._load()

    # The calls

    async def _add(self, entry: Entry) -> dict[str, Any]:
        result: dict[str, Any] | None = None
        for each in entry.network.plugins:
            result = await self._call(entry, each, "ADD", previous=result)
        assert result is not None  # a network has at least one plugin
        return result

    async def _call(
        self, entry: Entry, each: Mapping[str, Any], command: str, *, previous: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        answer = await plugin.call(
            str(each["type"]),
            command,
            conflist.plugin_input(entry.network, each, entry.capability_args, previous),
            bin_dirs=self._bin_dirs,
            container_id=entry.id,
            netns=entry.netns,
            args=entry.args,
        )
        if command == "ADD" and not answer:
            raise plugin.PluginFailed(str(each["type"]), "ADD", 0, "it printed no result")
        return answer

    async def _delete(self, entry: Entry, netns: str) -> PodwrightError | None:
        """Undo an attachment; the first error, None when there was none.

        That a plugin could not be asked weighs more than what another one answered.
        """
        failure = await self._delete_by_plugins(entry, netns)
        if not netns and any(
            each["type"] == "bridge" and each.get("ipMasq") for each in entry.network.plugins
        ):
            # The bridge plugin reads the addresses of its masquerade rules from inside the namespace.
            await iptables.remove_cni_rules(entry.network.name, entry.id)
        if not netns and entry.result is not None:
            await asyncio.to_thread(_remove_host_ends, entry.id, entry.result)
        return failure

    async def _delete_by_plugins(self, entry: Entry, netns: str) -> PodwrightError | None:
        """DEL of every plugin, the last first; one that fails does not keep the others from cleaning up."""
        gone = replace(entry, netns=netns)
        previous = entry.result if entry.network.at_least("0.4.0") else None
        failure: PodwrightError | None = None
        for each in reversed(entry.network.plugins):
            try:
                await self._call(gone, each, "DEL", previous=previous)
            except PodwrightError as error:
                log.warning("sandbox %s: %s", entry.id, error)
                if failure is None or (
                    isinstance(failure, plugin.PluginFailed) and not isinstance(error, plugin.PluginFailed)
                ):
                    failure = error
        return failure

    async def _undo(self, entry: Entry) -> None:
        try:
            async with asyncio.timeout(UNDO_TIMEOUT):
                failure = await self._delete(entry, entry.netns)
        except TimeoutError:
            log.warning("sandbox %s: CNI DEL did not end within %g s", entry.id, UNDO_TIMEOUT)
            return
        if failure is None:
            self._cache.remove(entry.id)

    def _result(self, raw: Mapping[str, Any]) -> Result:
        interfaces = tuple(each for each in raw.get("interfaces") or () if isinstance(each, Mapping))
        return Result(_prefer(_addresses(raw, interfaces), self._preference), interfaces, raw)


def _is_namespace(path: str) -> bool:
    """Whether a namespace is mounted there; a pin that lost its mount is an empty file."""
    try:
        return bool(path) and Path(path).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except OSError:
        return False


def _remove_host_ends(id: str, result: Mapping[str, Any]) -> None:
    """Remove what an ADD made on the host to lead into a namespace that plugins can no longer enter.

    The kernel does it as well, once nothing holds the namespace and when it comes to it, which on a busy host
    takes seconds: the pod would still be there for whoever looks, with an address that is free again.
    """
    for each in result.get("interfaces") or ():
        name, mac = each.get("name"), each.get("mac")
        if not name or not mac or each.get("sandbox"):
            continue
        try:
            links.remove_veth(str(name), str(mac))
        except OSError as error:
            log.warning("sandbox %s: %s", id, error)


def _addresses(raw: Mapping[str, Any], interfaces: Sequence[Mapping[str, Any]]) -> list[str]:
    """The addresses of the pod's eth0; one that names no interface is that of the interface asked for."""
    found: list[str] = []
    for each in raw.get("ips") or ():
        index = each.get("interface")
        if isinstance(index, int) and 0 <= index < len(interfaces):
            owner = interfaces[index]
            if owner.get("name") != plugin.IFNAME or not owner.get("sandbox"):
                continue
        found.append(str(ipaddress.ip_interface(each["address"]).ip))
    return found


def _prefer(addresses: Sequence[str], preference: str) -> tuple[str, ...]:
    """The first address of the preferred family goes to the front; the others keep their order."""
    version = {"ipv4": 4, "ipv6": 6, "cni": 0}.get(preference)
    if version is None:
        raise InvalidArgument("cni.ip_preference", f"{preference!r} is none of ipv4, ipv6, cni")
    main = next((each for each in addresses if ipaddress.ip_address(each).version == version), None)
    rest = list(addresses)
    if main is None:
        return tuple(rest)
    rest.remove(main)
    return (main, *rest)


def _is_content(event: inotify.Event) -> bool:
    """Whether an event of the directory can have changed a configuration.

    A file that was only just created has no content yet (its closing comes as an event of its own); a
    link has all it will ever have.
    """
    if Path(event.name).suffix not in conflist.SUFFIXES and not event.mask & inotify.ISDIR:
        return False
    if event.mask & inotify.CREATE:
        file = event.path / event.name
        try:
            return file.is_symlink() or file.lstat().st_nlink > 1
        except OSError:
            return False
    return True
