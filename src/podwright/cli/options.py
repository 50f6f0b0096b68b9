"""Arguments and options that several commands have, each declared once."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podwright.cli.output import Format

if TYPE_CHECKING:
    from podwright.streaming.client import Options

FAKE = "Fake engine"
STREAMS = "Reaching a streaming server"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Transport(enum.StrEnum):
    AUTO = "auto"
    WEBSOCKET = "websocket"
    SPDY = "spdy"


Container = Annotated[
    str, typer.Argument(metavar="CONTAINER", help="The container, or the pod when it has only one.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Containers or pods.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only ids, one a line.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How it is written.")]
DetachKeys = Annotated[
    str,
    typer.Option(
        metavar="KEYS",
        help='What leaves, on a terminal: letters and ctrl-LETTER, with commas between; "": nothing.',
    ),
]
StreamTransport = Annotated[
    Transport,
    typer.Option(
        help="auto: WebSocket, or SPDY where the server has no v5 of the protocol.", rich_help_panel=STREAMS
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Authorities that sign its certificate, PEM (default: those the host trusts).",
        rich_help_panel=STREAMS,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Do not verify its certificate.", rich_help_panel=STREAMS),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option("--cert", metavar="FILE", help="This client's certificate, PEM.", rich_help_panel=STREAMS),
]
ClientKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The key of --cert, PEM.", rich_help_panel=STREAMS),
]


def streaming(
    transport: Transport, ca: Path | None, insecure: bool, cert: Path | None, key: Path | None
) -> Options:
    from podwright.streaming import client
    from podwright.streaming.client_http import Tls

    return client.Options(client.Transport(transport.value), Tls(ca, insecure, cert, key))
