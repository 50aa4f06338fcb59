"""Where metrics are offered: what can be written, and what is said of what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.listen import is_path, read_listen
from gpud.config.load import ConfigError, parse
from gpud.errors import GpudError

EXAMPLE = 'write text like "127.0.0.1:9464" or "./metrics.sock"'
NO_PORT = "is not a port: it is a number from 1 to 65535"


def listen(word: str) -> str | None:
    text = f"[metrics]\nlisten = {word}\n"
    return parse(text, name="gpud.toml", directory=Path("/etc/gpud")).metrics.listen


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464),
        ("localhost:1", "127.0.0.1", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[::1]:9464", "::1", 9464),
        ("[::]:9464", "::", 9464),
    ],
)
def test_an_address(text: str, address: str, port: int) -> None:
    assert listen(f'"{text}"') == text
    found, number = read_listen(text)
    assert (str(found), number) == (address, port)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/run/gpud/metrics.sock", "/run/gpud/metrics.sock"),
        ("~/m.sock", "/home/ada/m.sock"),
        ("./m.sock", "/etc/gpud/m.sock"),
        ("run/m.sock", "/etc/gpud/run/m.sock"),
        ("$HOME/m:1", "/home/ada/m:1"),
    ],
)
def test_a_path(monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    found = listen(f'"{text}"')
    assert found == path
    assert is_path(found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9464", f"it has no port: {EXAMPLE}"),
        (":9464", f"it has no address: {EXAMPLE}"),
        ("127.0.0.1", f"it has no port: {EXAMPLE}"),
        ("127.0.0.1:", f'"" {NO_PORT}'),
        ("127.0.0.1:0", f'"0" {NO_PORT}'),
        ("1.2.3.4:65536", f'"65536" {NO_PORT}'),
        ("1.2.3.4:٣", f'"٣" {NO_PORT}'),
        ("node7:9464", f'"node7" is not an address: {EXAMPLE}'),
        ("::1:9464", f'"::1" is not an address: {EXAMPLE}'),
        ("[127.0.0.1]:1", f'"[127.0.0.1]" is not an address: {EXAMPLE}'),
    ],
)
def test_an_address_that_is_none_is_named_with_the_reason(text: str, why: str) -> None:
    assert problem_with(f'"{text}"') == f"cannot be {text!r}: {why}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ('""', "may not be empty"),
        ("9464", 'must be text, not a number: write "9464"'),
        ('"/x\\u0000y"', "may not contain a NUL character"),
    ],
)
def test_what_is_no_text_for_it_is_said_in_one_sentence(word: str, said: str) -> None:
    assert problem_with(word) == said


def test_a_path_with_a_variable_that_is_not_set() -> None:
    assert "the variable NO_SUCH_THING is not set" in problem_with('"$NO_SUCH_THING/x"')


def problem_with(word: str) -> str:
    with pytest.raises(ConfigError) as caught:
        listen(word)
    [problem] = caught.value.problems
    return problem.removeprefix("gpud.toml:2: metrics.listen ")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        address, port = read_listen(text)
    except GpudError:
        return
    assert 0 < port < 65536
    assert address.version in (4, 6)
