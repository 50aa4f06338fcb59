"""gpuctl edit, move and swap: what is sent, what an editor may do, and that no word is lost."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.requests import JobFields
from gpud.protocol.text import Raw

from . import samples
from .fake_server import DROP, FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]
IS_RUNNING = (
    "cannot edit job 45: it is running: only its priority and its retries can be changed now"
)


@pytest.fixture(autouse=True)
def daemon(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job 45 waits, and whatever is asked for is done."""
    job = samples.JOBS[9]
    server.answers = {
        requests.Ls: replies.JobsReply(id=0, jobs=(job,), more=0),
        requests.Show: replies.Shown(id=0, jobs=(samples.detail(job),)),
        requests.Edit: lambda asked: replies.Edited(id=0, jobs=(45,)),
    }
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it was before is remembered there


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this shell script $EDITOR: $1 is the file."""

    def use(script: str) -> None:
        path = tmp_path / "an editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("EDITOR", f"'{path}'")

    return use


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]


def change(server: FakeServer) -> JobFields:
    (request,) = server.asked(requests.Edit)
    found: JobFields = request.change
    return found


# -- options ---------------------------------------------------------------------------------------


def test_options_are_those_of_a_submit(server: FakeServer, gpuctl: Gpuctl) -> None:
    result = gpuctl(
        "edit", "45", "--command", "python x.py", "--priority", "9", "--gpus", "2", "--vram",
        "12G", "--env", "A=1", "--env", "B=2", "--backoff", "30s..10m", "--retry-on", "oom,75",
        "--retry-args", "--resume", "--time-limit", "2h", "--after", "12,14-20", "--exclusive",
        "--cwd", "/tmp", "--name", "x", "--group", "lr", "-l", "a=1", "-l", "b=",
    )  # fmt: skip
    assert (result.status, result.out, result.err) == (0, "job 45: changed\n", "")
    assert change(server) == JobFields(
        command="python x.py", priority=9, gpus=2, vram_mib=12288, env_add=("A=1", "B=2"),
        backoff_s=30.0, backoff_max_s=600.0, retry_on=("oom", 75), retry_args="--resume",
        time_limit_s=7200.0, after=("12", "14-20"), exclusive=True, cwd="/tmp", name="x",
        group="lr", labels={"a": "1", "b": ""},
    )  # fmt: skip


def test_none_takes_things_away(server: FakeServer, gpuctl: Gpuctl) -> None:
    options = (
        "gpus",
        "vram",
        "time-limit",
        "begin",
        "deadline",
        "after",
        "after-any",
        "checkpoint",
        "group",
    )
    given = [f"--{option}=none" for option in options]
    assert gpuctl("edit", "45", *given, "--no-exclusive", "--gpu-model", "", "--name=").status == 0
    assert change(server) == JobFields(
        gpus=None, vram_mib=0, time_limit_s=None, begin_ms=0, deadline_ms=0, after=(),
        after_any=(), exclusive=False, gpu_model="", name="", checkpoint="none", group="",
    )  # fmt: skip


def test_bytes_and_places_are_those_of_this_shell(server: FakeServer, gpuctl: Gpuctl) -> None:
    assert gpuctl("edit", "45", "--command", os.fsdecode(b"x\xff"), "--cwd", "sub").status == 0
    assert change(server) == JobFields(command=Raw("eP8="), cwd=os.path.join(os.getcwd(), "sub"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--time-limit", "soon"], '--time-limit "soon": that is no duration'),
        (["--gpus", "many"], '--gpus "many": it takes a whole number'),
        (["--gpsu", "1"], "no such option: --gpsu (did you mean --gpus?)"),
        ([], "JOBS ... is missing"),
    ],
)
def test_bad_options(server: FakeServer, gpuctl: Gpuctl, words: list[str], why: str) -> None:
    result = gpuctl("edit", *(["45"] if words else []), *words)
    assert result.status == 2
    assert result.err.startswith(f"gpuctl: cannot edit: {why}")
    assert not server.requests


def test_running_jobs_count_where_they_can_be_changed(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=samples.JOBS, more=0)
    gpuctl("edit", "name:x", "--retries", "3")
    gpuctl("edit", "name:x", "--retries", "3", "--grace", "5s")
    assert [asked.jobs for asked in server.asked(requests.Edit)] == [("42-47",), ("45-46",)]


def test_nothing_that_is_different(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Edit] = replies.Edited(id=0, jobs=())
    result = gpuctl("edit", "45", "--priority", "5")
    assert (result.status, result.out) == (0, "nothing to change\n")


def test_json(gpuctl: Gpuctl) -> None:
    found = json.loads(gpuctl("edit", "45", "--priority", "5", "--json").out)
    assert found == {"jobs": [45], "refused": []}


# -- an editor -------------------------------------------------------------------------------------


def test_what_is_typed_is_sent(
    server: FakeServer, gpuctl: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    editor(
        """sed -i -e 's/^priority = 5/priority = 9/' -e 's/^gpus = "none"/gpus = 2/' """
        """-e "s/^command = .*/command = 'echo \\"hi\\" > log'/" -e '$a LR = "0.1"' "$1" """
    )
    result = gpuctl("edit", "45")
    assert (result.status, result.out, result.err) == (0, "job 45: changed\n", "")
    assert change(server) == JobFields(
        command='echo "hi" > log', priority=9, gpus=2, env_add=("LR=0.1",)
    )
    assert server.asked(requests.Edit)[0].jobs == ("45",)
    assert not kept(tmp_path)


def test_the_file_is_for_its_owner_alone_and_says_what_it_is(
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    editor('cp "$1" $OUT/seen; stat -c %a "$(dirname "$1")" > $OUT/mode; echo "$1" > $OUT/name')
    assert gpuctl("edit", "45").out == "nothing to change\n"
    assert (tmp_path / "mode").read_text() == "700\n"
    assert (tmp_path / "name").read_text().endswith("/job-45.toml\n")
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("# Job 45, queued\n# waits for a free slot: all 4 are taken\n")


def test_an_argv_is_one_and_may_become_a_line(
    server: FakeServer, gpuctl: Gpuctl, editor: Callable[[str], None]
) -> None:
    shown = samples.detail(samples.JOBS[9], argv=("python", "a b"))
    server.answers[requests.Show] = replies.Shown(id=0, jobs=(shown,))
    editor("""sed -i 's/^argv = .*/argv = ["python", "c"]/' "$1" """)
    gpuctl("edit", "45")
    editor("""sed -i 's/^argv = .*/command = "python c | tee log"/' "$1" """)
    gpuctl("edit", "45")
    assert [asked.change for asked in server.asked(requests.Edit)] == [
        JobFields(argv=("python", "c")), JobFields(command="python c | tee log"),
    ]  # fmt: skip


@pytest.mark.parametrize("script", ["true", ': > "$1"', 'touch "$1"', "printf ' \\n' > \"$1\""])
def test_a_file_that_is_left_alone_changes_nothing(
    server: FakeServer, gpuctl: Gpuctl, editor: Callable[[str], None], tmp_path: Path, script: str
) -> None:
    editor(script)
    result = gpuctl("edit", "45")
    assert (result.status, result.out, result.err) == (0, "nothing to change\n", "")
    assert not server.asked(requests.Edit)
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    ("script", "how"),
    [("exit 3", "status 3"), ("kill -9 $$", "SIGKILL"), ("kill $$", "SIGTERM")],
)
def test_an_editor_that_fails_changes_nothing(
    server: FakeServer,
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    tmp_path: Path,
    script: str,
    how: str,
) -> None:
    editor(script)
    result = gpuctl("edit", "45")
    why = f"gpuctl: cannot edit job 45: the editor ended with {how}; nothing was changed\n"
    assert result.status == 1
    assert result.err.endswith(why), "the shell may have said something, too"
    assert not kept(tmp_path)
    editor(f'echo "typed = 1" >> "$1"; {script}')
    result = gpuctl("edit", "45")
    (path,) = kept(tmp_path)
    assert result.err.endswith(f"{why}  what you typed is in {path}\n")
    assert "typed = 1" in path.read_text()
    assert not server.asked(requests.Edit)


def test_an_editor_that_is_not_there_or_takes_the_file_away(
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("EDITOR", "no-such-editor --wait")
    result = gpuctl("edit", "45")
    assert result.status == 1
    assert "cannot edit job 45: there is no editor no-such-editor --wait\n" in result.err
    assert "set EDITOR, or say what to change" in result.err
    editor('rm "$1"')
    result = gpuctl("edit", "45")
    assert result.status == 1
    assert result.err.endswith("job-45.toml: no such file or directory\n")
    assert not kept(tmp_path)


def test_visual_goes_before_editor_and_may_have_arguments(
    server: FakeServer,
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    editor("exit 1")
    monkeypatch.setenv("VISUAL", "sed -i 's/^priority = 5/priority = 6/'")
    assert gpuctl("edit", "45").status == 0
    assert change(server) == JobFields(priority=6)


def test_without_an_editor_and_a_terminal(gpuctl: Gpuctl, process: Gpuctl) -> None:
    result = process("edit", "45")
    assert result.status == 2
    assert result.err == (
        "gpuctl: cannot edit job 45 without an editor: this is not a terminal\n"
        "  set EDITOR, or say what to change: gpuctl edit 42 --priority 9\n"
    )


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("$a nonsense", "this is not TOML, where texts stand in quotes: "),
        ("s/^priority = 5/priority = soon/", "this is not TOML"),
        ("s/^gpus = .*/gpus = 99999/", 'gpus cannot be "99999": it takes'),
        ('s/^time-limit = .*/time-limit = "soon"/', 'time-limit cannot be "soon": '),
        ("s/^priority/prioritty/", 'there is no "prioritty" (did you mean priority?)'),
        ("$a A = [1]", "env takes lines like NAME = 'value'"),
    ],
)
def test_nonsense_is_kept_with_a_sentence(
    server: FakeServer,
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    tmp_path: Path,
    script: str,
    why: str,
) -> None:
    editor(f"""sed -i '{script}' "$1" """)
    result = gpuctl("edit", "45")
    assert result.status == 2
    assert result.err.startswith(f"gpuctl: cannot edit job 45: {why}")
    (path,) = kept(tmp_path)
    assert result.err.endswith(f"  what you typed is in {path}\n")
    assert result.err.count("\n") == 2
    assert not server.asked(requests.Edit)


def test_a_job_that_starts_meanwhile_is_refused_and_the_text_is_kept(
    server: FakeServer, gpuctl: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    refused = (replies.RefusedView(45, IS_RUNNING),)
    server.answers[requests.Edit] = replies.Edited(id=0, jobs=(), refused=refused)
    editor("sed -i 's/^gpus = .*/gpus = 2/' \"$1\"")
    result = gpuctl("edit", "45")
    (path,) = kept(tmp_path)
    assert result.status == 1
    assert result.err == f"gpuctl: {IS_RUNNING}\n  what you typed is in {path}\n"
    assert "gpus = 2" in path.read_text()


@pytest.mark.parametrize(
    "answer", [DROP, GpudError("cannot write the database: the disk is full", kind="storage")]
)
def test_a_daemon_that_is_in_trouble_costs_no_text(
    server: FakeServer,
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    tmp_path: Path,
    answer: Any,
) -> None:
    server.answers[requests.Edit] = answer
    editor("sed -i 's/^gpus = .*/gpus = 2/' \"$1\"")
    result = gpuctl("edit", "45")
    assert result.status in (1, 4)
    (path,) = kept(tmp_path)
    assert f"what you typed is in {path}\n" in result.err


@pytest.mark.parametrize(
    ("jobs", "status", "why"),
    [
        (samples.JOBS[8:10], 2, "cannot edit 2 jobs in an editor: it takes one\n"),
        (samples.JOBS[1:2], 1, "cannot edit job 37: it is done (failed)\n"),
    ],
)
def test_the_editor_is_for_one_job_that_can_be_edited(
    server: FakeServer,
    gpuctl: Gpuctl,
    editor: Callable[[str], None],
    jobs: tuple[replies.JobView, ...],
    status: int,
    why: str,
) -> None:
    editor("exit 9")
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=jobs, more=0)
    result = gpuctl("edit", "name:x")
    assert result.status == status
    assert result.err.startswith(f"gpuctl: {why}")


def test_an_array_is_many_and_its_first_element_is_one(
    server: FakeServer, gpuctl: Gpuctl, editor: Callable[[str], None]
) -> None:
    editor("sed -i 's/^priority = 5/priority = 6/' \"$1\"")
    array = samples.job(45, array=45, indices="0-9", count=10, priority=5)
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=(array,), more=0)
    result = gpuctl("edit", "45")
    assert result.err.startswith("gpuctl: cannot edit 10 jobs in an editor: it takes one\n")
    first = samples.job(45, array=45, indices="0", priority=5)
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=(first,), more=0)
    server.answers[requests.Show] = replies.Shown(id=0, jobs=(samples.detail(first),))
    assert gpuctl("edit", "45[0]").status == 0
    assert server.asked(requests.Show)[0].jobs == ("45[0]",)
    assert server.asked(requests.Edit)[0].jobs == ("45[0]",), "45 would be all of them"


def test_a_job_that_is_not_there(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Ls] = GpudError("cannot list job 9: no such job", kind="not-found")
    result = gpuctl("edit", "9")
    assert (result.status, result.err) == (3, "gpuctl: cannot edit job 9: no such job\n")


# -- an editor on a terminal -----------------------------------------------------------------------

TWICE = """
if grep -q '^# cannot edit' "$1"; then
  cp "$1" {seen}; sed -i 's/^gpus = 99/gpus = 2/' "$1"
else
  sed -i -e 's/^gpus = .*/gpus = 99/' -e 's/^priority = 5/priority = 7/' "$1"
fi
"""


def test_on_a_terminal_the_file_is_opened_again_with_the_sentence_on_top(
    server: FakeServer, terminal: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    def answer(asked: requests.Edit) -> Any:
        if asked.change.gpus == 99:
            why = "cannot edit job 45: this machine has 4 GPUs"
            return replies.Edited(id=0, jobs=(), refused=(replies.RefusedView(45, why),))
        return replies.Edited(id=0, jobs=(45,))

    server.answers[requests.Edit] = answer
    editor(TWICE.format(seen=tmp_path / "seen"))
    result = terminal("edit", "45")
    assert (result.status, result.out) == (0, "job 45: changed\n")
    assert [asked.change for asked in server.asked(requests.Edit)] == [
        JobFields(gpus=99, priority=7), JobFields(gpus=2, priority=7),
    ]  # fmt: skip
    assert (
        (tmp_path / "seen")
        .read_text()
        .startswith(
            "# cannot edit job 45: this machine has 4 GPUs\n"
            "# Correct it below. If you leave it as it is, nothing is changed.\n"
            "# Job 45, queued\n"
        )
    )
    assert not kept(tmp_path)


def test_a_line_of_a_syntax_error_is_that_of_the_file_with_the_sentence(
    terminal: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    editor(
        f"""if grep -q '^# cannot edit' "$1"; then cp "$1" {seen}; exit 1; fi
        sed -i 's/^priority = 5/priority = soon/' "$1" """
    )
    terminal("edit", "45")
    first, *lines = seen.read_text().splitlines()
    number = int(first.partition("at line ")[2].partition(",")[0])
    assert lines[number - 2].startswith("priority = soon")


def test_who_corrects_nothing_gets_the_sentence_and_keeps_the_text(
    server: FakeServer, terminal: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    editor("sed -i 's/^gpus = .*/gpus = many/' \"$1\"")
    result = terminal("edit", "45", columns=200)
    (path,) = kept(tmp_path)
    assert result.status == 2
    assert result.out.startswith("gpuctl: cannot edit job 45: this is not TOML")
    assert f"what you typed is in {path}\n" in result.out
    assert "gpus = many" in path.read_text()


def test_on_a_terminal_a_job_that_starts_meanwhile_is_not_asked_about_again(
    server: FakeServer, terminal: Gpuctl, editor: Callable[[str], None], tmp_path: Path
) -> None:
    refused = (replies.RefusedView(45, IS_RUNNING),)
    server.answers[requests.Edit] = replies.Edited(id=0, jobs=(), refused=refused)
    looks = iter([samples.JOBS[9], samples.running(45)])
    server.answers[requests.Ls] = lambda _: replies.JobsReply(id=0, jobs=(next(looks),), more=0)
    editor(f"echo x >> {tmp_path}/opened; sed -i 's/^gpus = .*/gpus = 2/' \"$1\"")
    result = terminal("edit", "45", columns=200)
    (path,) = kept(tmp_path)
    assert result.status == 1
    assert result.out == f"gpuctl: {IS_RUNNING}\n  what you typed is in {path}\n"
    assert (tmp_path / "opened").read_text() == "x\n"


def test_a_ctrl_c_is_the_editors(
    server: FakeServer, terminal: Gpuctl, editor: Callable[[str], None]
) -> None:
    editor(
        """trap 'sed -i "s/^priority = 5/priority = 8/" "$1"; exit 0' INT
        stty -echo; kill -INT 0; while :; do sleep 0.05; done"""
    )
    assert terminal("edit", "45").status == 0
    assert change(server) == JobFields(priority=8)


def test_vi_is_the_last_resort(
    server: FakeServer, terminal: Gpuctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vi").write_text("#!/bin/sh\nsed -i 's/^priority = 5/priority = 6/' \"$1\"\n")
    (tmp_path / "vi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert terminal("edit", "45").status == 0
    assert change(server) == JobFields(priority=6)


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        (["--before", "17"], {"before": "17"}, "before job 17"),
        (["--after=@"], {"after": "@"}, "after job @"),
        (["--first"], {"to": "first"}, "first of all that wait"),
        (["--last"], {"to": "last"}, "last of all that wait"),
    ],
)
def test_moves(
    server: FakeServer, gpuctl: Gpuctl, words: list[str], sent: dict[str, str], said: str
) -> None:
    server.answers[requests.Move] = replies.Moved(id=0, jobs=(45,))
    result = gpuctl("move", "45", *words)
    assert (result.status, result.out) == (0, f"job 45: {said}\n")
    (request,) = server.asked(requests.Move)
    assert request == requests.Move(id=request.id, jobs=("45",), **sent)
    priorities = (replies.PriorityView(45, 7),)
    server.answers[requests.Move] = replies.Moved(id=0, jobs=(45, 46), priorities=priorities)
    told = f"2 jobs (45, 46): {said}, and now of its priority, 7\n"
    assert gpuctl("move", "45", "46", *words).out == told


@pytest.mark.parametrize("words", [[], ["--first", "--last"], ["--first", "--before", "3"]])
def test_a_move_goes_to_one_place(server: FakeServer, gpuctl: Gpuctl, words: list[str]) -> None:
    result = gpuctl("move", "45", *words)
    assert result.status == 2
    assert result.err.startswith("gpuctl: cannot move: it takes one of --before JOB, --after JOB")
    assert not server.requests


def test_swaps(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Swap] = replies.Swapped(id=0, jobs=(17, 42))
    result = gpuctl("swap", "42", "17")
    assert (result.status, result.out) == (0, "2 jobs (17, 42): have each other's places\n")
    assert server.asked(requests.Swap)[0].jobs == ("42", "17")
    priorities = (replies.PriorityView(42, 7), replies.PriorityView(17, 0))
    server.answers[requests.Swap] = replies.Swapped(id=0, jobs=(17, 42), priorities=priorities)
    assert gpuctl("swap", "42", "17").out.endswith("each other's places and priorities\n")
    assert gpuctl("swap", "42").status == 2
