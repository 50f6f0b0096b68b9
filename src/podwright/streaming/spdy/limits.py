"""What a SPDY peer may use."""

from __future__ import annotations

from dataclasses import dataclass

from podwright.streaming.spdy import frames, windows


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes. ValueError for those that cannot work."""

    streams: int = 1000
    """Opened by the peer and not closed."""
    stream_window: int = 1 << 19
    """What may come on one stream before it is used; at least 64 KiB, which a peer assumes. With less than
    twice what is read and written at a time, both ends keep waiting for each other."""
    session_window: int = 1 << 21
    """The same of all streams together."""
    control_frame: int = 1 << 16
    header_block: int = 1 << 17
    """Decompressed."""
    data_frame: int = 1 << 16
    """Of a frame that is sent. Longer frames hold up the other streams."""

    def __post_init__(self) -> None:
        if not windows.DEFAULT <= self.stream_window <= self.session_window <= windows.LARGEST:
            raise ValueError("64 KiB <= stream_window <= session_window < 2 GiB does not hold")
        if not 0 < self.data_frame <= frames.MAX_LENGTH:
            raise ValueError(f"data_frame {self.data_frame} is not between 1 and 16 MiB less one")


DEFAULTS = Limits()
