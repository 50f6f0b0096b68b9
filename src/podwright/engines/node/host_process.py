"""A process of a container as this host's kernel has it: waited for and signalled without the daemon that
runs it. Docker's API has no way to end what an exec has started, containerd's none for its process group."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from podwright.linux.readiness import readable


class HostProcess:
    """Open as long as this is: its pid cannot become another's unseen."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    @classmethod
    def of(cls, pid: int, container_id: str) -> HostProcess | None:
        """Process `pid` of a container in whose cgroup's path `container_id` stands. None when it has ended,
        and when it is no process of this host's kernel: its number is another's here."""
        try:
            pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, ValueError):
            return None
        try:
            theirs = container_id in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            theirs = False
        if not theirs:
            os.close(pidfd)
            return None
        return cls(pid, pidfd)

    async def ended(self) -> None:
        """Wait for its end."""
        await readable(self._pidfd)

    async def ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            return False
        return True

    def hang_up(self) -> None:
        """SIGHUP, as a terminal that closes sends it: to it and, if it has one, to the group in front."""
        group = _foreground(self.pid)
        self._signal(signal.SIGHUP)
        if group > 1 and group != _group(self.pid):
            _signal_group(group, signal.SIGHUP)

    def kill(self) -> None:
        """SIGKILL to it and its process group."""
        group = _group(self.pid)
        self._signal(signal.SIGKILL)
        if group > 1 and group != os.getpgid(0):
            _signal_group(group, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._pidfd)

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass  # it has ended


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def _foreground(pid: int) -> int:
    """The process group that its terminal has in front; 0 without a terminal (proc_pid_stat(5), tpgid)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return max(0, int(text[text.rindex(b")") + 2 :].split()[5]))
