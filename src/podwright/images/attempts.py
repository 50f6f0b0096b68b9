"""What skopeo tried, read from its debug log, and which error of ours a failure is.

A line of the log is `time="…" level=debug msg="…"`; the messages are those of the containers/image library.
What is not understood is left out, so that a newer skopeo costs words and nothing else. No query string of an
address leaves this file: a signed one is a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podwright.errors import (
    FailedPrecondition,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    ResourceExhausted,
    SignatureValidationFailed,
)
from podwright.images.access import Access

_LINE = re.compile(r'level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S+)')
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
_TRYING = re.compile(r'Trying to access "([^"]+)"')
_FAILED = re.compile(r'Accessing "([^"]+)" failed: (.*)', re.DOTALL)
_FOUND = re.compile(r"Found credentials for \S+ in credential helper (\S+)(?: in file (.*))?")
_HELPER = re.compile(r"Looking up in credential helper (\S+) based on credHelpers entry in (.*)")
_PING = re.compile(r"Ping (https?)://([^/\s]+)/v2/ (status (\d+)|err (.*))", re.DOTALL)
_REQUEST = re.compile(r"(?:GET|HEAD|POST) (https?)://([^/\s]+)/(?!v1/_ping)")
_GO_DUMP = re.compile(r" \(&[\w.]+\{.*\}\)$", re.DOTALL)

_REJECTED = re.compile(
    r"Source image rejected|rejected by policy|A signature was required|signatures were accepted|"
    r"[Ii]nvalid .*signature|[Ss]ignature for .* not accepted"
)
_ABSENT = re.compile(
    r"manifest unknown|name unknown|not known to registry|status 404|no image found in|blob unknown|"
    r"404 \(Not Found\)|no descriptor found|reference .* not found|[Tt]ag .* not found|"
    r"no such file or directory"
)
_REFUSED = re.compile(
    r"unauthorized|authentication required|no basic auth credentials|denied|[Ff]orbidden"
    r"|invalid username/password|\b401\b|\b403\b"
)
_NOT_TLS = re.compile(r"server gave HTTP response to HTTPS client|x509:|certificate|tls: ")
_CONFIGURATION = "loading registries configuration"
_BLOCKED = re.compile(r"registry \S+ is blocked in ")
_AWAY = re.compile(
    r"connection refused|connection reset|no such host|server misbehaving|i/o timeout|handshake timeout|"
    r"deadline exceeded|Client\.Timeout|no route to host|network is unreachable|unexpected EOF|: EOF|"
    r"unexpected HTTP status:? 5\d\d|status code from registry 5\d\d|blob 5\d\d|status 5\d\d|Bad Gateway|"
    r"Service Unavailable|Gateway Time-?out|Internal Server Error|[Tt]oo ?[Mm]any ?[Rr]equests|"
    r"\b429\b|"
    r"broken pipe|server closed idle connection"
)


@dataclass(slots=True)
class Attempt:
    """One place where an image was looked for."""

    host: str
    scheme: str = ""
    """As far as it came: "https", "http", or "" when nothing was asked."""
    credentials: str = "none"
    """Where those came from that were for this host."""
    answer: str = ""

    def __str__(self) -> str:
        where = f"{self.scheme}://{self.host}" if self.scheme else self.host
        return f"{where}: {self.answer or 'no answer'} (credentials: {self.credentials})"


def attempts_in(log: str, access: Access) -> list[Attempt]:
    """What `log`, the end of a debug log, says of the places that were tried, in order."""
    found: list[Attempt] = []
    helper = ""
    for _, message in _messages(log):
        if match := _TRYING.match(message):
            found.append(Attempt(match[1].partition("/")[0], credentials=access.none))
            helper = ""
        elif not found:
            continue
        elif match := _HELPER.match(message):
            helper = f"credential helper {match[1]} of {match[2]}"
        elif match := _FOUND.match(message):
            of_file = match[1] == "containers-auth.json"
            found[-1].credentials = helper or (access.origin if of_file else f"credential helper {match[1]}")
        elif (match := _PING.match(message)) and _same(match[2], found[-1].host):
            found[-1].scheme = match[1]
            found[-1].answer = f"status {match[4]}" if match[4] else _GO_DUMP.sub("", match[5])
        elif match := _FAILED.match(message):
            found[-1].answer = match[2]
        elif (match := _REQUEST.match(message)) and _same(match[2], found[-1].host):
            last = found[-1]
            if last.answer and last.scheme == "https" and match[1] == "http":
                # An insecure registry is asked in plain words when it does not speak TLS.
                found.append(Attempt(last.host, credentials=last.credentials))
            found[-1].scheme = match[1]
    if access.gate is not None:
        # skopeo tries TLS at the gate, too, which speaks none: of the registry that says nothing.
        gate = access.gate.host
        found = [attempt for attempt in found if (attempt.host, attempt.scheme) != (gate, "https")]
    for attempt in found:
        attempt.answer = cleaned(_told_once(attempt.answer), access)
        if access.gate is not None and attempt.host == access.gate.host:
            attempt.host = access.gate.real.partition("/")[0]
            attempt.scheme, attempt.credentials = access.gate.scheme, access.origin
            attempt.answer = access.gate.failed or attempt.answer
    return found


def failure(words: str, log: str, access: Access) -> PodwrightError:
    """The error that says `words`, skopeo's reason, and every attempt that `log` tells of."""
    words = _told_once(words)
    if access.gate is not None and access.gate.failed:
        words = access.gate.failed
    tried = attempts_in(log, access)
    text = f"{access.about}: {cleaned(words, access)}"
    if tried:
        text += "".join(f"\n  tried {attempt}" for attempt in tried)
    return classified(words, text, access)


def classified(words: str, text: str, access: Access) -> PodwrightError:
    """The error with `text` that fits skopeo's `words`."""
    if "loading trust policy" in words or "invalid policy" in words:
        return FailedPrecondition(f"{text} (images.policy: {access.policy})")
    if _CONFIGURATION in words:
        return FailedPrecondition(f"{text} (images.registries_conf)")
    found = of_registry(words, text)
    # A file that ends too early is no registry that is away.
    return NotFound(text) if isinstance(found, RegistryUnavailable) and not access.registry else found


def of_registry(words: str, text: str) -> PodwrightError:
    """The error with `text` for `words` that a registry, or who asked one, has said."""
    for pattern, make in _KINDS:
        if pattern.search(words):
            return make(text)
    return PodwrightError(text)


def cleaned(text: str, access: Access) -> str:
    """`text` without query strings, and with the host's paths instead of our private ones."""
    home = f"{access.scratch}/home/"
    text = text.replace(f"{home}.config/containers/registries.conf", access.registries_conf)
    if access.gate is not None:
        text = text.replace(access.gate.location, access.gate.real)
        text = text.replace(access.gate.host, access.gate.real.partition("/")[0])
    return _QUERY.sub(r"\1?…", text).replace(home, "")


def fatal_words(stderr: str) -> str:
    """The reason that a skopeo which has ended gave."""
    fatal = [message for level, message in _messages(stderr) if level == "fatal"]
    return fatal[-1] if fatal else stderr.strip()[-1000:]


def _messages(log: str) -> list[tuple[str, str]]:
    found = []
    for match in _LINE.finditer(log):
        level, quoted = match.groups()
        try:
            message = json.loads(quoted) if quoted[0] == '"' else quoted
        except ValueError:
            message = quoted.strip('"')
        found.append((level, message))
    return found


def _same(asked: str, host: str) -> bool:
    return asked == ("registry-1.docker.io" if host == "docker.io" else host)


def _told_once(words: str) -> str:
    """Without what is said of mirrors within the last attempt's words: they have lines of their own."""
    words = re.sub(rf"({_CONFIGURATION}: )(?={_CONFIGURATION} )", "", words)
    words = re.sub(r'^Error parsing image name "[^"]*": ', "", words)  # which is not what has failed
    return re.sub(r"\(Mirrors also failed: .*\): ", "", words, flags=re.DOTALL)


def _refused(words: str) -> PodwrightError:
    return PodwrightError(f"the registry refuses access, check the pull secret: {words}")


def _untrusted(words: str) -> PodwrightError:
    return PodwrightError(
        f"{words}\n  (if its certificate is not trusted, put its CA into images.certs_dir, or name the "
        "registry in images.insecure_registries)"
    )


_KINDS: Sequence[tuple[re.Pattern[str], Callable[[str], PodwrightError]]] = (
    (_REJECTED, SignatureValidationFailed),
    (_BLOCKED, FailedPrecondition),
    (re.compile("no space left on device"), ResourceExhausted),
    (_NOT_TLS, _untrusted),
    (_AWAY, RegistryUnavailable),
    (_REFUSED, _refused),
    (_ABSENT, NotFound),
)
