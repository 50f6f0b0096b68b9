"""Who runs: user, group and supplementary groups, resolved against the image's own passwd and group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from podwright.errors import InvalidArgument
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts, RootfsFiles, SandboxInput
from podwright.wire import cri_pb2 as cri

MAX_ID = 2**31 - 1
NOBODY_IN_PARTICULAR = 65535
"""User and group of the pause process, as pause images have it."""

_SECURITY = "config.linux.security_context"


class User(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary groups, ascending, each once."""


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int


def user(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The request's user, else the image's USER, else root."""
    security = request.security
    asked, origin = asked_user(security, request.image.user)
    found = resolve_user(
        asked,
        request.rootfs,
        supplemental=security.supplemental_groups,
        strict=is_strict(security.supplemental_groups_policy),
        field=origin.partition(": ")[2] or "config",
    )
    _write(draft, found, origin)
    if draft.origins is not None and found.groups:
        draft.note(
            "process.user.additionalGids",
            f"request: {_SECURITY}.supplemental_groups; the primary group"
            + ("" if security.supplemental_groups_policy else "; the image's /etc/group"),
        )


def pause_user(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    security = request.security
    if security.HasField("run_as_group") and not security.HasField("run_as_user"):
        raise group_without_user(security.run_as_group.value)
    if security.HasField("run_as_user"):
        uid = number(security.run_as_user.value, f"{_SECURITY}.run_as_user")
        gid = number(security.run_as_group.value, f"{_SECURITY}.run_as_group")
        _write(draft, User(uid, gid, (gid,)), f"request: {_SECURITY}.run_as_user")
    else:
        account = User(NOBODY_IN_PARTICULAR, NOBODY_IN_PARTICULAR, (NOBODY_IN_PARTICULAR,))
        _write(draft, account, "default: a user without rights")


def resolve_user(
    asked: str,
    files: RootfsFiles,
    *,
    supplemental: Iterable[int] = (),
    strict: bool = False,
    field: str = "User",
) -> User:
    """The ids of `asked`: "", "USER" or "USER:GROUP", each a name or a number.

    A number is an id even if somebody has it as a name. A known user's group is that of passwd, an unknown
    number's is 0. The user's memberships in /etc/group are added unless `strict`; the primary group always
    is, save for a Strict request that names no user at all. Raises InvalidArgument (on `field`) for names
    that the image does not have and for numbers outside 0..2^31-1.
    """
    if not asked:
        account = _find_account(files.passwd, uid=0) or _Account("", 0, 0)
        uid, gid, groups = 0, 0, set() if strict else {0}
    else:
        user_part, colon, group_part = asked.partition(":")
        uid, account = _resolve_account(user_part, files, field)
        # "app:" names no group: the user's own.
        gid = _resolve_group(group_part, files, field) if colon and group_part else account.gid
        groups = {gid}
    if not strict and account.name:
        groups.update(_memberships(files.group, account.name))
    for group in supplemental:
        groups.add(number(group, f"{_SECURITY}.supplemental_groups"))
    return User(uid, gid, tuple(sorted(groups)))


def asked_user(security: cri.LinuxContainerSecurityContext, image_user: str) -> tuple[str, str]:
    """The user string and its origin."""
    if security.run_as_username:
        asked, origin = security.run_as_username, f"request: {_SECURITY}.run_as_username"
    elif security.HasField("run_as_user"):
        asked, origin = str(security.run_as_user.value), f"request: {_SECURITY}.run_as_user"
    elif security.HasField("run_as_group"):
        raise group_without_user(security.run_as_group.value)
    elif image_user:
        return image_user, "image: User"
    else:
        return "", "default: root"
    if security.HasField("run_as_group"):
        return f"{asked}:{security.run_as_group.value}", origin
    return asked, origin


def group_without_user(group: int) -> InvalidArgument:
    return InvalidArgument(
        f"{_SECURITY}.run_as_group", f"user group {group} is specified without user: give run_as_user as well"
    )


def is_strict(policy: int) -> bool:
    if policy not in (cri.SupplementalGroupsPolicy.Merge, cri.SupplementalGroupsPolicy.Strict):
        raise InvalidArgument(
            f"{_SECURITY}.supplemental_groups_policy", f"{policy} is neither Merge (0) nor Strict (1)"
        )
    return policy == cri.SupplementalGroupsPolicy.Strict


def _write(draft: Draft, found: User, origin: str) -> None:
    entry: dict[str, object] = {"uid": found.uid, "gid": found.gid}
    if "umask" in draft.process.get("user", ()):
        entry["umask"] = draft.process["user"]["umask"]
    if found.groups:
        entry["additionalGids"] = list(found.groups)
    draft.process["user"] = entry
    draft.uid, draft.gid, draft.additional_gids = found.uid, found.gid, list(found.groups)
    draft.note("process.user", origin)


def _resolve_account(part: str, files: RootfsFiles, field: str) -> tuple[int, _Account]:
    if _is_number(part):
        uid = number(int(part), field)
        return uid, _find_account(files.passwd, uid=uid) or _Account("", uid, 0)
    if not part:  # ":50" is root's with another group, as everywhere else
        return 0, _find_account(files.passwd, uid=0) or _Account("", 0, 0)
    account = _find_account(files.passwd, name=part)
    if account is None:
        why = "has no /etc/passwd" if files.passwd is None else "has no such user in /etc/passwd"
        raise InvalidArgument(field, f"no users found: the image {why}: {part!r}")
    return number(account.uid, field), account


def _resolve_group(part: str, files: RootfsFiles, field: str) -> int:
    if _is_number(part):
        return number(int(part), field)
    for name, gid, _ in _groups(files.group):
        if name == part:
            return number(gid, field)
    why = "has no /etc/group" if files.group is None else "has no such group in /etc/group"
    raise InvalidArgument(field, f"no groups found: the image {why}: {part!r}")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii()


def number(value: int, field: str) -> int:
    """A user's or a group's id. Raises InvalidArgument on `field` for what is none."""
    if not 0 <= value <= MAX_ID:
        raise InvalidArgument(field, f"{value} is out of range: ids are 0..{MAX_ID}")
    return value


def _find_account(passwd: str | None, *, name: str | None = None, uid: int | None = None) -> _Account | None:
    for line in (passwd or "").split("\n"):
        fields = line.split(":")
        if len(fields) < 4 or not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue
        if fields[0] == name or (uid is not None and int(fields[2]) == uid):
            return _Account(fields[0], int(fields[2]), int(fields[3]))
    return None


def _groups(group: str | None) -> Iterator[tuple[str, int, list[str]]]:
    for line in (group or "").split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal():
            yield fields[0], int(fields[2]), [member.strip() for member in fields[3].split(",")]


def _memberships(group: str | None, name: str) -> Iterator[int]:
    for _, gid, members in _groups(group):
        if name in members:
            yield gid
