"""A configuration file becomes a Config, or one sentence per problem, all at once."""

from __future__ import annotations

import errno
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.load import ConfigError, default_path, load, parse, problems
from gpud.config.schema import Config
from gpud.errors import EXIT_CONFIG

HOME = "/home/ada"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gpud.toml"


def said(text: str) -> list[str]:
    """The problems of a text; each begins with its place."""
    try:
        parse(text, name="gpud.toml", directory=Path("/etc/gpud"))
    except ConfigError as error:
        return error.problems
    return []


def good(text: str) -> Config:
    return parse(text, name="gpud.toml", directory=Path("/etc/gpud"))


@pytest.mark.parametrize(
    "env",
    [
        "{ PIN = 4242 }", "{ PIN = 4242.5 }", "{ PIN = [4242] }", "{ PIN = true }", "4242",
        '"PIN=4242"', '["PIN=4242"]', '{ "PIN=4242" = "x" }', '{ "PIN=4242" = 1 }',
        '{ PIN = "4242\\u0000" }', '{ PIN = 4242, PIN = 4242 }', "{ PIN = 4242-42-42 }",
    ],
)  # fmt: skip
def test_the_value_of_a_variable_is_never_shown(env: str) -> None:
    found = said(f'[source.a]\ntype = "queue-file"\npath = "q"\nenv = {env}\n')
    assert found
    assert not [text for text in found if "4242" in text or "true" in text]


def test_an_empty_file_is_the_defaults(file: Path) -> None:
    file.write_text("")
    assert load(file) == Config()


def test_every_problem_is_reported_at_once_with_its_line() -> None:
    text = """\
stat_dir = "x"
[pool]
cpu_slots = "4"
[log]
level = "warn"
[source.nightly]
type = "queue-file"
path = "gpu.queue"
pritority = 3
env = { OMP_NUM_THREADS = 4 }
"""
    assert said(text) == [
        "gpud.toml:1: unknown key stat_dir: did you mean state_dir?",
        "gpud.toml:3: pool.cpu_slots must be a whole number, not text",
        'gpud.toml:5: log.level cannot be "warn": did you mean "warning"?',
        "gpud.toml:9: unknown key source.nightly.pritority: did you mean priority?",
        "gpud.toml:10: source.nightly.env.OMP_NUM_THREADS must be text: put it in quotes",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpus = [0]", "unknown key gpus: it belongs in [pool] or [source.NAME]"),
        ("zzz = 1", "unknown key zzz: known here are state_dir, socket, cgroup, pool, defaults,"),
        ("[defaults]\ntime_limit = 1", "did you mean time_limit_s?"),
        ("[sources.a]", "unknown key sources: did you mean source?"),
        ('source.a = "x"', "source.a must be a table, not text"),
        ("pool = 3", "pool must be a table, not a number"),
        ("source = []", "source must be a table, not a list"),
        ("[source.a]", 'source.a has no type, and needs one: type = "queue-file"'),
        ('[source.a]\ntype = "queue"', 'source.a.type cannot be "queue": did you mean'),
        ("[source.a]\ntype = 1", "source.a.type must be text, not a number"),
        ('[source.a]\ntype = "queue-file"', "source.a has no path, and needs one"),
        (
            '[source."my runs"]\ntype="queue-file"\npath="q"',
            "cannot use the name 'my runs': the name of a source has letters",
        ),
        ('state_dir = ""', "state_dir may not be empty"),
        ('state_dir = "a\\u0000b"', "state_dir may not contain a NUL character"),
        ("state_dir = 2026-11-21", "state_dir must be text, not a date or time"),
        ("state_dir = true", "state_dir must be text, not true"),
        ("[pool]\ncpu_slots = -1", "pool.cpu_slots must be at least 0, not -1"),
        ("[pool]\ncpu_slots = 1001", "pool.cpu_slots must be at most 1000, not 1001"),
        ("[pool]\ncpu_slots = true", "pool.cpu_slots must be a whole number, not true"),
        (
            '[pool]\nrespect_others = "yes"',
            "pool.respect_others must be true or false, not text: write it without quotes",
        ),
        ("[pool]\nstop_idle = 1", "pool.stop_idle must be true or false, not a number"),
        ("[pool]\nignore = ['']", "pool.ignore[0] may not be empty"),
        ("[pool]\nguests = [0, '']", "pool.guests[1] may not be empty"),
        ('[pool]\nmodel = "A\\nB"', "pool.model may not contain a line break or the like"),
        (f'[pool]\nmodel = "{"x" * 101}"', "pool.model may have 100 characters at most"),
        ("[pool]\ngpus = 2", "pool.gpus must be a list, not a number: like [0, 1]"),
        ("[pool]\ngpus = []", "pool.gpus may not be empty: like [0, 1]; leave it out"),
        ("[pool]\ngpus = [0, true]", "pool.gpus[1] must be text, not true"),
        ('[pool]\ngpus = ["0,"]', 'cannot use pool.gpus = ["0,"]: a GPU id is missing'),
        ("[defaults]\nshell = []", "defaults.shell may not be empty"),
        ('[defaults]\nshell = ["/bin/sh", ""]', "defaults.shell[1] may not be empty"),
        ('[defaults]\nshell = "bash"', 'defaults.shell must be a list, not text: like ["/bin/sh"'),
        ("[defaults]\ngrace_s = -1", "defaults.grace_s must be at least 0, not -1"),
        ("[defaults]\ngrace_s = inf", "defaults.grace_s must be finite"),
        ("[defaults]\ngrace_s = nan", "defaults.grace_s must be finite"),
        ("[defaults]\ngrace_s = 1e12", "defaults.grace_s must be at most 316224000"),
        ("[defaults]\ngrace_s = true", "defaults.grace_s must be a duration"),
        ('[defaults]\ngrace_s = "soon"', "defaults.grace_s: cannot read"),
        ('[defaults]\nlinger_s = "wiat"', ', or "wait"'),
        ("[defaults]\ntime_limit_s = 0", "defaults.time_limit_s must be more than 0, not 0"),
        (
            '[source.a]\ntype = "queue-file"\npath = "q"\ngpus = 1025',
            "source.a.gpus cannot be 1025: it takes a whole number from 0 to 1024, or a share",
        ),
        ("[defaults]\nretries = 1.5", "defaults.retries must be a whole number, not a number"),
        ("[defaults]\nretries = 99999999999999999999", "defaults.retries must be at most 1000000"),
        ('state_dir = "$GPUD_TEST_UNSET/x"', "the variable GPUD_TEST_UNSET is not set"),
        ('state_dir = "~nobody-of-that-name/x"', "no home directory for ~nobody-of-that-name"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, sentence: str) -> None:
    found = said(text)
    assert len(found) == 1
    assert sentence in found[0]
    assert found[0].startswith("gpud.toml:")
    assert "\n" not in found[0]


def test_values_arrive_as_the_schema_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setenv("SWEEPS", "/data/sweeps")
    config = good("""\
state_dir = "~/state"
socket = "run/gpud.sock"
[pool]
gpus = [0, 0, "GPU-1a2b"]
[defaults]
backoff_s = 5
time_limit_s = "2h30m"
linger_s = "wait"
[source.nightly]
type = "queue-file"
path = "${SWEEPS}/../gpu.queue"
cwd = "$SWEEPS"
grace_s = "90s"
env = { PATH = "$HOME/bin" }
shell = ["/bin/bash", "-lc"]
""")
    source = config.source["nightly"]
    assert config.state_dir == f"{HOME}/state"
    assert config.socket == "/etc/gpud/run/gpud.sock"
    assert config.pool.gpus == ("0", "0", "GPU-1a2b")
    assert config.defaults.backoff_s == 5.0
    assert config.defaults.time_limit_s == 9000.0
    assert config.defaults.linger_s == "wait"
    assert (source.path, source.cwd) == ("/data/gpu.queue", "/data/sweeps")
    assert source.grace_s == 90.0
    assert source.env == {"PATH": "$HOME/bin"}  # as written
    assert source.shell == ("/bin/bash", "-lc")


def test_relative_paths_are_relative_to_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('state_dir = "state"')
    monkeypatch.chdir(file.parent.parent)
    relative = Path(file.parent.name) / file.name
    assert load(relative).state_dir == str(file.parent / "state")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb =", ":2"),
        ("a = 1\n\nb = = 2", ":3:5: not TOML: invalid value"),
        ("a = 1\na = 2", ":2:"),
        ('a = "', ":1"),
        ("a = " + "[" * 20_000, ": not TOML that gpud reads: nested too deeply"),
        ("a = " + "9" * 5_000, ": not TOML: "),
    ],
)
def test_toml_errors_have_a_place(text: str, problem: str) -> None:
    (found,) = said(text)
    assert found.startswith("gpud.toml" + problem)
    assert "not TOML" in found
    assert "\n" not in found


def test_files_that_cannot_be_read(file: Path) -> None:
    assert problems(file) == [f"{file}: cannot read it: no such file or directory"]
    assert problems(file.parent) == [f"{file.parent}: cannot read it: is a directory"]
    file.write_bytes(b'a = 1\nb = "\xff"\n')
    assert problems(file) == [f"{file}:2: not UTF-8: byte 0xff"]
    assert "cannot read it" in problems(Path("a\0b"))[0]


def test_an_unreadable_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # root, too, may be told no
    assert problems(file) == [f"{file}: cannot read it: permission denied"]


def test_a_byte_order_mark_is_no_problem(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "debug"\r\n')
    assert load(file).log.level == "debug"


def test_the_error_lists_all_problems_and_has_the_status_of_the_unit(file: Path) -> None:
    file.write_text("x = 1\ny = 2\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.exit_status == EXIT_CONFIG
    assert caught.value.kind == "config"
    assert caught.value.message.startswith("cannot use the configuration: 2 problems\n  ")
    assert all(problem in caught.value.message for problem in problems(file))


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "gpud" / "gpud.toml"
    assert default_path() != place
    place.parent.mkdir()
    place.write_text("")
    assert default_path() == place
    monkeypatch.setenv("GPUD_CONFIG", "/x/gpud.toml")
    assert default_path() == Path("/x/gpud.toml")


def test_a_signal_is_a_name_or_a_number() -> None:
    assert good('[defaults]\ncheckpoint = "USR1"\n').defaults.checkpoint == 10
    assert good("[defaults]\ncheckpoint = 15\n").defaults.checkpoint == 15
    why = "it takes a signal that a program can catch, like SIGUSR1, SIGTERM or 10, or none"
    assert said('[defaults]\ncheckpoint = "KILL"\n') == [f"gpud.toml:2: defaults.checkpoint: {why}"]


def test_the_lines_survive_multi_line_strings_and_dotted_keys() -> None:
    text = '[defaults]\nsetup = """\nretries = 1\n"""\nretrys = 1\n[source]\na.path = 7\n'
    assert said(text) == [
        "gpud.toml:5: unknown key defaults.retrys: did you mean retries?",
        'gpud.toml:7: source.a has no type, and needs one: type = "queue-file"',
    ]


@given(text=st.text(alphabet=st.sampled_from("a.[]={}\"'\n#0:-s \\é"), max_size=60))
def test_whatever_the_text_nothing_else_is_raised(text: str) -> None:
    found = said(text)
    try:
        document = tomllib.loads(text)
    except ValueError:
        assert len(found) == 1
    else:
        assert bool(found) or not document or good(text)
