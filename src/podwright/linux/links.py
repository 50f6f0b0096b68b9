"""Network interfaces of this network namespace, by rtnetlink(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_RTM_DELLINK = 17
_NLM_F_REQUEST_ACK = 0x1 | 0x4
_IFLA_IFNAME = 3


def delete(name: str) -> bool:
    """Delete the interface `name` (and a veth's other end); False when there is none. Raises OSError.

    The kernel waits for all readers of the interface to finish, which takes ten milliseconds and more: do
    not call this on the event loop's thread.
    """
    text = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _IFLA_IFNAME) + text
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute + bytes(-len(attribute) % 4)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as link:
        link.send(_HEADER.pack(_HEADER.size + len(body), _RTM_DELLINK, _NLM_F_REQUEST_ACK, 1, 0) + body)
        (number,) = struct.unpack_from("=i", link.recv(4096), _HEADER.size)
    if number == -errno.ENODEV:
        return False
    if number != 0:
        raise OSError(-number, f"deleting the interface: {os.strerror(-number)}", name)
    return True
