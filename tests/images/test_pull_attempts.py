"""What is read of skopeo's log, and which error a failure is: tables of words that skopeo really says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.errors import (
    FailedPrecondition,
    NotFound,
    PodwrightError,
    RegistryUnavailable,
    ResourceExhausted,
    SignatureValidationFailed,
)
from podwright.images.access import Access, prepared
from podwright.images.attempts import attempts_in, failure, fatal_words
from podwright.images.references import parse


@pytest.fixture
async def access(tmp_path: Path) -> Access:
    (tmp_path / "policy.json").write_text("{}")
    config = ImageConfig(policy=str(tmp_path / "policy.json"))
    async with prepared(parse("r.example/a"), config, Credentials("reader", "s3cret"), tmp_path) as made:
        return made


def line(message: str, level: str = "debug") -> str:
    quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'time="2026-11-22T03:35:54Z" level={level} msg="{quoted}"\n'


def test_a_log_tells_of_each_place(access: Access) -> None:
    dial = 'Get "https://m.example:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused'
    log = "".join(
        [
            'ut off line" level=debug msg="Trying\n',
            line('Loading registries configuration "/etc/containers/registries.conf"'),
            line('Trying to access "m.example:5000/copies/a:latest"'),
            line("No credentials for m.example:5000/copies/a found"),
            line("GET https://m.example:5000/v2/"),
            line(f'Ping https://m.example:5000/v2/ err {dial} (&url.Error{{Op:"Get", Err:(*OpError)(0x0)}})'),
            line(f'Accessing "m.example:5000/copies/a:latest" failed: pinging container registry: {dial}'),
            line('Trying to access "r.example/a:latest"'),
            line(
                "Found credentials for r.example/a in credential helper containers-auth.json "
                "in file /x/auth.json"
            ),
            line("GET https://r.example/v2/"),
            line("Ping https://r.example/v2/ status 401"),
            line("GET https://auth.example/token?account=reader&scope=s"),
            line("Ping https://elsewhere.example/v2/ status 500"),
        ]
    )
    first, second = attempts_in(log, access)
    assert (first.host, first.scheme, first.credentials) == ("m.example:5000", "https", "none")
    assert first.answer.endswith("connection refused") and "OpError" not in first.answer
    assert str(second) == "https://r.example: status 401 (credentials: the call's username reader)"
    error = str(failure("x: unauthorized", log, access))
    assert error.splitlines()[1:] == [f"  tried {first}", f"  tried {second}"]


def test_docker_io_is_known_by_its_other_name(access: Access) -> None:
    log = line('Trying to access "docker.io/library/a:latest"') + line(
        "Ping https://registry-1.docker.io/v2/ status 503"
    )
    assert str(attempts_in(log, access)[0]) == "https://docker.io: status 503 (credentials: none)"


def test_what_a_newer_skopeo_says_costs_nothing(access: Access) -> None:
    assert attempts_in(line("Something else altogether") + "no log at all", access) == []
    assert str(failure("words", "\0\xff level= msg=", access)) == "r.example/a:latest: words"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("reading manifest v1 in r.example/a: manifest unknown: manifest unknown", NotFound),
        ("reading manifest v1 in r.example/a: name unknown: repository name not known to registry", NotFound),
        ("invalid status code returned when fetching blob 404 (Not Found)", NotFound),
        ("dial tcp 10.0.0.1:443: connect: connection refused", RegistryUnavailable),
        ("dial tcp: lookup r.example on 10.0.0.1:53: no such host", RegistryUnavailable),
        ("dial tcp: lookup r.example: Temporary failure: server misbehaving", RegistryUnavailable),
        ("net/http: TLS handshake timeout", RegistryUnavailable),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryUnavailable),
        ("invalid status code from registry 502 (Bad Gateway)", RegistryUnavailable),
        ("invalid status code returned when fetching blob 504 (Gateway Timeout)", RegistryUnavailable),
        ("toomanyrequests: You have reached your pull rate limit", RegistryUnavailable),
        ("sha256:ab: unexpected EOF", RegistryUnavailable),
        ("x509: certificate signed by unknown authority", PodwrightError),
        ("http: server gave HTTP response to HTTPS client", PodwrightError),
        ("unauthorized: authentication required", PodwrightError),
        ("requested access to the resource is denied", PodwrightError),
        (
            "Source image rejected: A signature was required, but no signature exists",
            SignatureValidationFailed,
        ),
        ("Running image docker://r.example/a:v1 is rejected by policy.", SignatureValidationFailed),
        ("registry r.example is blocked in /etc/containers/registries.conf or x", FailedPrecondition),
        ("writing blob: write /x: no space left on device", ResourceExhausted),
        ('loading trust policy: invalid policy in "/x"', FailedPrecondition),
        ("corrupted blob, expecting sha256:ab", PodwrightError),
    ],
)
def test_which_error_a_failure_is(access: Access, words: str, error: type[PodwrightError]) -> None:
    made = failure(words, "", access)
    assert type(made) is error
    assert words in str(made)
    if error in (RegistryUnavailable, SignatureValidationFailed):
        assert str(made).startswith(f"{error.__name__}: ")


def test_no_query_string_and_no_private_path_is_said(access: Access) -> None:
    signed = 'Get "https://storage.example/blob?X-Signature=s1&more=2": EOF'
    log = line('Trying to access "r.example/a:latest"') + line(
        f'Accessing "r.example/a:latest" failed: {signed}'
    )
    config = f"{access.scratch}/home/.config/containers/registries.conf"
    text = str(failure(f"{signed} {config}", log, replace(access, registries_conf="/etc/r.conf")))
    assert "s1" not in text and text.count("https://storage.example/blob?…") == 2
    assert str(access.scratch) not in text and "/etc/r.conf" in text


def test_the_last_fatal_line_is_the_reason() -> None:
    log = line("first") + line('why: "quoted"', "fatal")
    assert fatal_words(log) == 'why: "quoted"'
    assert fatal_words("flag provided but not defined: -x\n") == "flag provided but not defined: -x"
