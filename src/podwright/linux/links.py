"""Network interfaces of the calling thread's network namespace, by ioctl(2) and rtnetlink(7)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

_SIOCGIFHWADDR = 0x8927
_SIOCGIFINDEX = 0x8933
_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x3
_DRIVER_INFO = 196  # struct ethtool_drvinfo; a number and the driver's name of 32 bytes come first
_RTM_DELLINK = 17
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg


def remove_veth(name: str, mac: str) -> bool:
    """Remove the pair (veth(4)) one end of which is the interface `name` with the address `mac`.

    False when there is none, or when what has the name is something else. Raises OSError.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            if _driver(control, name) != "veth" or _address(control, name) != mac.lower():
                return False
            (index,) = struct.unpack_from("=i", _ask(control, _SIOCGIFINDEX, name), 16)
        _delete(index)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise OSError(error.errno, f"removing interface {name}: {error.strerror}") from error
    return True


def _driver(control: socket.socket, name: str) -> str:
    info = ctypes.create_string_buffer(struct.pack("=I", _ETHTOOL_GDRVINFO), _DRIVER_INFO)
    try:
        fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(info)))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ""
        raise
    return info.raw[4:36].rstrip(b"\0").decode(errors="replace")


def _address(control: socket.socket, name: str) -> str:
    return _ask(control, _SIOCGIFHWADDR, name)[18:24].hex(":")


def _ask(control: socket.socket, what: int, name: str) -> bytes:
    return fcntl.ioctl(control, what, struct.pack("16s24x", name.encode()))


def _delete(index: int) -> None:
    """Raises OSError."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as kernel:
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        head = _HEADER.pack(_HEADER.size + len(body), _RTM_DELLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        kernel.send(head + body)
        (code,) = struct.unpack_from("=i", kernel.recv(4096), _HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code))
