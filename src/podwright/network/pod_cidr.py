"""The addresses that a cluster gives the pods of this node, and the network configuration made from them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.network import conflist
from podwright.network.template import BadTemplate, Value, render
from podwright.network.template import check as parse_template

FILE = "10-podwright.conflist"
"""What is made of the template. In a directory with other files the first valid one holds."""


def parse(text: str, field: str) -> tuple[str, ...]:
    """The networks in "10.1.0.0/16,fd00::/64"; none in "". InvalidArgument."""
    if not text.strip():
        return ()
    try:
        return tuple(str(ipaddress.ip_network(each.strip(), strict=False)) for each in text.split(","))
    except ValueError as error:
        raise InvalidArgument(
            field, f'{text!r} is no list of networks such as "10.1.0.0/16": {error}'
        ) from None


def check(template: Path) -> None:
    """FailedPrecondition when `template` cannot be read, or is none."""
    try:
        parse_template(template.read_text())
    except OSError as error:
        raise FailedPrecondition(f"cni.conf_template: {template} cannot be read: {error.strerror}") from error
    except (BadTemplate, UnicodeDecodeError) as error:
        raise FailedPrecondition(f"cni.conf_template: {template}: {error}") from error


def write(conf_dir: Path, template: Path, cidrs: Sequence[str]) -> bool:
    """Make FILE in `conf_dir` from `template`; says whether it was written. Nothing is done when it is there
    already as it should be, or while another configuration holds.

    FailedPrecondition when the template or what it makes is no valid configuration; OSError.
    """
    file = conf_dir / FILE
    if _another_holds(conf_dir, file):
        return False
    text = rendered(template, cidrs)
    try:
        if file.read_text() == text:
            return False
    except FileNotFoundError:
        conf_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    # No name that a reader of the directory takes for a configuration.
    draft = conf_dir / f".{FILE}.new"
    try:
        with draft.open("w") as out:
            os.fchmod(out.fileno(), 0o644)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return True


def rendered(template: Path, cidrs: Sequence[str]) -> str:
    """The configuration that `template` makes of `cidrs`. FailedPrecondition."""
    versions = {ipaddress.ip_network(each).version for each in cidrs}
    values: dict[str, Value] = {
        "PodCIDR": cidrs[0],
        "PodCIDRRanges": list(cidrs),
        "Routes": [route for version, route in ((4, "0.0.0.0/0"), (6, "::/0")) if version in versions],
    }
    try:
        text = render(template.read_text(), values)
        tree = msgspec.json.decode(text, type=dict[str, conflist.Json])
        conflist.parse(tree, "what it makes")
    except OSError as error:
        raise FailedPrecondition(f"cni.conf_template: {template} cannot be read: {error.strerror}") from error
    except (BadTemplate, conflist.BadNetwork) as error:
        raise FailedPrecondition(f"cni.conf_template: {template}: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FailedPrecondition(
            f"cni.conf_template: {template}: what it makes is no JSON: {error}"
        ) from error
    return text


def _another_holds(conf_dir: Path, own: Path) -> bool:
    for file in conflist.files(conf_dir):
        if file == own:
            return False
        try:
            conflist.load_file(file)
        except conflist.BadNetwork:
            continue
        return True
    return False
