"""The table of the built-in programs, but for the shell, which looks programs up here itself."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from podwright.engines.fake.programs import paths, plain, text
from podwright.engines.fake.programs.condition import test
from podwright.engines.fake.programs.context import Program
from podwright.engines.fake.programs.httpd import httpd
from podwright.engines.fake.programs.net import nc
from podwright.engines.fake.programs.printf import printf
from podwright.engines.fake.programs.tar import tar
from podwright.engines.fake.programs.tty import stty, tty

FOREVER = float("inf")

PROGRAMS: dict[str, Program] = {
    "[": test,
    "basename": plain.basename,
    "cat": text.cat,
    "date": plain.date,
    "dirname": plain.dirname,
    "echo": plain.echo,
    "env": plain.env,
    "exit": plain.exit,
    "false": plain.false,
    "grep": text.grep,
    "head": text.head,
    "hostname": plain.hostname,
    "httpd": httpd,
    "id": plain.id,
    "kill": plain.kill,
    "ls": paths.ls,
    "mkdir": paths.mkdir,
    "nc": nc,
    "pause": plain.pause,
    "printenv": plain.printenv,
    "printf": printf,
    "ps": plain.ps,
    "pwd": plain.pwd,
    "rm": paths.rm,
    "rmdir": paths.rmdir,
    "seq": plain.seq,
    "sleep": plain.sleep,
    "sort": text.sort,
    "stty": stty,
    "tail": text.tail,
    "tar": tar,
    "tee": text.tee,
    "test": test,
    "touch": paths.touch,
    "tr": text.tr,
    "true": plain.true,
    "tty": tty,
    "uname": plain.uname,
    "wc": text.wc,
    "whoami": plain.whoami,
    "yes": plain.yes,
}


def find(name: str) -> Program | None:
    return PROGRAMS.get(posixpath.basename(name))


def idle_seconds(argv: Sequence[str]) -> float | None:
    """How long a program does nothing and then ends with 0; None: it does more than that."""
    name = posixpath.basename(argv[0])
    if name == "pause":
        return FOREVER
    if name == "sleep":
        try:
            return plain.duration(argv[1:])
        except ValueError:
            return None
    if name == "tail" and list(argv[1:]) in (["-f", "/dev/null"], ["-F", "/dev/null"]):
        return FOREVER
    return None
