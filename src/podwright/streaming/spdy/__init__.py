"""SPDY/3.1 as Kubernetes uses it: many byte streams over one connection. No HTTP: its requests are not ours.

`Connection` is the protocol without I/O: bytes in, events out. `Session` runs it over an asyncio transport or
any other `Pipe` of bytes, and its `Stream`s are read and written with back-pressure.

The rules are those of the SPDY/3.1 draft; its section numbers stand beside the code. The peers met in
practice are kubectl, the kubelet, the API server, crictl, containerd and CRI-O, and all of them use Go's
spdystream. Where it differs from the draft, podwright gets along with it:

- It keeps no windows: it sends no WINDOW_UPDATE, waits for none, and ignores SETTINGS. `windows.py` finds
  out.
- It drops DATA that arrives before the SYN_REPLY of the stream, so `Session.open` waits for the reply.
- A Go client may lose what a server sends before the client's first frame (it stays in the buffer that read
  the HTTP response), so a server is silent until then.
- Its servers end the error stream, after the exit status, with RST_STREAM: `Stream.read` gives what came
  before a reset, then raises.
- It reads nothing after a GOAWAY, so that is the last frame sent.
- Old ones send the SYN_STREAMs of concurrent streams out of order; those streams are reset, not the session.
"""

from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.frames import GoAwayStatus, ProtocolError, ResetStatus
from podwright.streaming.spdy.limits import Limits
from podwright.streaming.spdy.pipe import Pipe
from podwright.streaming.spdy.session import Session
from podwright.streaming.spdy.stream import Stream

__all__ = [
    "Connection",
    "GoAwayStatus",
    "Limits",
    "Pipe",
    "ProtocolError",
    "ResetStatus",
    "Session",
    "Stream",
]
