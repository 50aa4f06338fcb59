"""System mode as users meet it: a real daemon of root, and gpuctl run by two others.

The users are two lines of a password database of its own, bound over the machine's in a mount
namespace that the daemon and the clients share; so nothing of the machine is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import GPUCTL, Box

ALICE, BOB, CAROL, MAY, ADMINS = 41001, 41002, 41003, 41010, 41011
SECRET = "s3cret-of-alice"
PASSWD = f"""\
root:x:0:0::/root:/bin/sh
alice:x:{ALICE}:{ALICE}::/:/bin/sh
bob:x:{BOB}:{BOB}::/:/bin/sh
carol:x:{CAROL}:{CAROL}::/:/bin/sh
closed:x:41004:41004::/:/usr/sbin/nologin
"""
GROUP = f"""\
root:x:0:
alice:x:{ALICE}:
bob:x:{BOB}:
lab:x:{MAY}:alice,bob,carol
admins:x:{ADMINS}:carol
extra:x:41020:alice
"""
CONFIG = """\
[access]
mode = "system"
group = "lab"
admins = "admins"
"""
BIND = 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"'


def can_bind() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount --bind /etc/passwd /etc/passwd"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


pytestmark = pytest.mark.skipif(
    not can_bind(), reason="it takes root, setpriv and a mount namespace to be several users"
)


class Lab(Box):
    """A box whose daemon is everybody's."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.chmod(0o755)
        run = home / "run"
        run.mkdir(mode=0o755)
        self.socket = run / "gpud.sock"
        self.env["GPUD_SOCKET"] = str(self.socket)
        (home / "passwd").write_text(PASSWD)
        (home / "group").write_text(GROUP)
        self.configure()
        for name, uid in (("alice", ALICE), ("bob", BOB), ("carol", CAROL)):
            (home / name).mkdir(mode=0o700)
            os.chown(home / name, uid, uid)

    def configure(self, more: str = "") -> None:
        (self.home / "gpud.toml").write_text(CONFIG + more)

    def up(self, more: str = "") -> subprocess.Popen[bytes]:
        self.configure(more)
        return self.serve("--config", str(self.home / "gpud.toml"))

    def _popen_words(self, words: list[str]) -> list[str]:
        return ["unshare", "-m", "sh", "-c", BIND, str(self.home), *words]

    def serve(self, *args: str, gpus: str = "none") -> subprocess.Popen[bytes]:
        from tests.end_to_end import conftest

        plain = conftest.GPUD
        wrapper = self.home / "gpud-in-lab"
        words = " ".join(f"'{w}'" for w in self._popen_words([plain]))
        wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        wrapper.chmod(0o755)
        conftest.GPUD = str(wrapper)
        try:
            return super().serve(*args, gpus=gpus)
        finally:
            conftest.GPUD = plain

    def by(self, name: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """gpuctl, run by that user."""
        options.setdefault("cwd", self.home / name)
        env = {**self.env, "HOME": str(self.home / name), "USER": name, "SECRET": SECRET}
        return self._call(self.words_of(name, *args), env=env, **options)

    def words_of(self, name: str, *args: str) -> list[str]:
        uid = {"alice": ALICE, "bob": BOB, "carol": CAROL}[name]
        groups = {"alice": f"{MAY},41020", "bob": f"{MAY}", "carol": f"{MAY},{ADMINS}"}[name]
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={groups}", GPUCTL]
        return self._popen_words([*words, *args])

    def submit_by(self, name: str, *args: str) -> int:
        done = self.by(name, "submit", *args)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)


def usable_by_all() -> bool:
    """Whether others may run our own Python: a home of root is closed, as a rule."""
    done = subprocess.run(
        ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", GPUCTL, "--version"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Not under pytest's directory, which nobody else may cross."""
    if not usable_by_all():
        pytest.skip("other users may not run this Python")
    with tempfile.TemporaryDirectory() as home:
        found = Lab(Path(home).resolve())
        try:
            yield found
        finally:
            found.close()


def test_a_job_runs_as_who_submitted_it(lab: Lab) -> None:
    lab.up()
    assert oct(lab.socket.stat().st_mode & 0o777) == "0o660"
    assert lab.socket.stat().st_gid == MAY
    script = 'id -u; id -g; id -G; pwd; echo "$HOME"; umask; echo > made'
    job = lab.submit_by("alice", script)
    assert lab.by("alice", "wait", str(job)).returncode == 0
    lines = lab.by("alice", "logs").stdout.split("\n")
    home = str(lab.home / "alice")
    assert lines[:2] == [str(ALICE)] * 2
    assert set(lines[2].split()) == {str(ALICE), str(MAY), "41020"}
    assert lines[3:5] == [home, home]
    assert (lab.home / "alice" / "made").stat().st_uid == ALICE
    log = Path(lab.show(job)["attempts"][0]["log"])
    assert (log.stat().st_uid, log.stat().st_gid, log.stat().st_mode & 0o777) == (
        *(ALICE, ADMINS),
        0o640,
    )
    assert lab.state.stat().st_mode & 0o777 == 0o711
    assert (lab.state / "gpud.db").stat().st_mode & 0o077 == 0


def test_another_user_sees_that_it_is_there_and_no_more(lab: Lab) -> None:
    lab.up()
    job = lab.submit_by("alice", "--name", "visible", "echo private-words; sleep 600")
    lab.until("it runs", lambda: lab.job(job)["phase"] == "running")
    for args in (["ls"], ["ls", "--json"], ["show", str(job)], ["show", str(job), "--json"]):
        done = lab.by("bob", *args)
        assert done.returncode == 0
        assert "alice" in done.stdout
        assert "visible" in done.stdout
        for hidden in ("private-words", SECRET, "SECRET", str(lab.home)):
            assert hidden not in done.stdout, args
    for args in (["why", str(job)], ["status"], ["status", "--json"]):
        assert "private-words" not in lab.by("bob", *args).stdout
    events = lab._call(
        ["timeout", "2", *lab.words_of("bob", "events", "--since", "0", "--json")]
    ).stdout
    assert '"job":' in events
    assert "private-words" not in events
    refused = lab.by("bob", "logs", str(job))
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith(f"cannot show the log of job {job}: it belongs to alice")
    log = lab.show(job)["attempts"][0]["log"]
    done = lab._call(["setpriv", f"--reuid={BOB}", f"--regid={BOB}", "--clear-groups", "cat", log])
    assert done.returncode != 0
    assert "private-words" in lab.by("carol", "logs", str(job)).stdout  # an administrator
    assert "private-words" in lab.by("alice", "ls").stdout


def test_verbs_on_anothers_job_are_refused_and_root_and_administrators_may(lab: Lab) -> None:
    lab.up()
    job = lab.submit_by("alice", "sleep 600")
    waiting = lab.submit_by("alice", "--hold", "true")
    lab.until("it runs", lambda: lab.job(job)["phase"] == "running")
    for verb in ("cancel", "pause", "hold", "retry", "release"):
        done = lab.by("bob", verb, str(job))
        assert done.returncode == 1, verb
        assert f"cannot {verb} job {job}: it belongs to alice" in done.stderr
    assert "it belongs to alice" in lab.by("bob", "edit", str(waiting), "--priority", "-1").stderr
    for args in (["drain"], ["reload"], ["group", "x", "--limit", "1"], ["source", "stop", "x"]):
        done = lab.by("bob", *args)
        assert done.returncode == 1, args
        assert "only administrators may" in done.stderr
    assert "priority above 0" in lab.by("bob", "submit", "--priority", "urgent", "true").stderr
    assert lab.job(job)["phase"] == "running"
    assert lab.by("carol", "cancel", str(job), "--grace", "1").returncode == 0
    assert lab.by("alice", "wait", str(job)).returncode == 125
    assert lab.ctl("cancel", str(waiting)).returncode == 0  # root
    shown = lab.by("alice", "show", str(job), "--audit").stdout
    assert "submit by alice" in shown
    assert f"cancel by carol (uid {CAROL}" in shown
    audit = json.loads(lab.ctl("show", str(waiting), "--audit", "--json").stdout)["jobs"][0][
        "audit"
    ]
    assert [(one["verb"], one["uid"]) for one in audit] == [("submit", ALICE), ("cancel", 0)]
    refused = [
        line for line in (lab.home / "serve.log").read_text().splitlines() if "refused" in line
    ]
    assert any(str(BOB) in line for line in refused)


def test_sweeps_mean_ones_own_jobs(lab: Lab) -> None:
    lab.up()
    hers = lab.submit_by("alice", "--hold", "true")
    his = lab.submit_by("bob", "--hold", "true")
    roots = lab.submit("--hold", "true")[0]
    assert "@" not in lab.by("alice", "show", "@").stdout
    assert lab.by("alice", "show").stdout.startswith(f"job {hers}")
    done = lab.by("bob", "cancel", "all", "--yes")
    assert done.returncode == 0
    assert "2 jobs of other users left alone" in done.stderr
    assert [lab.job(n)["state"] for n in (hers, his, roots)] == ["held", "done", "held"]
    assert lab.by("bob", "cancel", "all", "--all-users", "--yes").returncode == 1
    assert lab.by("carol", "cancel", "user:alice", "--yes").returncode == 0
    assert [lab.job(n)["state"] for n in (hers, roots)] == ["done", "held"]
    assert lab.by("carol", "cancel", "all", "--all-users", "--yes").returncode == 0
    assert lab.job(roots)["state"] == "done"


def test_who_is_not_in_the_group_and_who_cannot_log_in(lab: Lab) -> None:
    lab.up()
    words = ["setpriv", "--reuid=41004", "--regid=41004", "--clear-groups", GPUCTL, "ls"]
    assert lab._call(words).returncode == 4
    words[3] = f"--groups={MAY}"
    words[-1:] = ["submit", "--cwd", "/", "true"]
    job = int(lab._call(words).stdout)
    assert lab.ctl("wait", str(job), check=False).returncode == 127
    assert "may not log in" in lab.job(job)["why"]


def test_a_forged_uid_and_directories_that_are_not_ones_own(lab: Lab) -> None:
    lab.up()
    program = (
        "import json,socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "f=s.makefile('rw'); f.readline(); f.write(sys.argv[2]+'\\n'); f.flush(); "
        "print(f.readline())"
    )

    def say(line: dict[str, Any]) -> dict[str, Any]:
        words = ["setpriv", f"--reuid={BOB}", f"--regid={BOB}", f"--groups={MAY}", "python3", "-c"]
        done = lab._call([*words, program, str(lab.socket), json.dumps(line)])
        return dict(json.loads(done.stdout))

    job: dict[str, Any] = {"command": "id -u", "cwd": "/"}
    for forged in ({"id": 1, "uid": 0}, {"id": 1, "user": "root"}):
        assert say({"type": "submit", "job": job, **forged})["kind"] == "protocol"
    assert say({"type": "submit", "id": 1, "job": {**job, "uid": 0}})["kind"] == "protocol"
    env = ["HOME=/root", "USER=root", "PATH=/usr/bin:/bin", "LOGNAME=root"]
    reply = say({"type": "submit", "id": 1, "job": {**job, "env": env}})
    lab.ctl("wait", str(reply["first"]))
    assert lab.ctl("logs", str(reply["first"])).stdout == f"{BOB}\n"
    private = lab.submit_by("bob", "--cwd", str(lab.home / "bob"), "true")
    lab.ctl("wait", str(private))
    (lab.home / "bob" / "link").symlink_to(lab.home / "alice")
    reply = say({"type": "submit", "id": 1, "job": {**job, "cwd": str(lab.home / "bob" / "link")}})
    assert lab.ctl("wait", str(reply["first"]), check=False).returncode == 127


def test_a_queue_file_runs_as_its_user_and_is_refused_when_others_may_write_it(lab: Lab) -> None:
    path = lab.home / "alice" / "gpu.queue"
    path.write_text("id -u > ran; id -G >> ran\n")
    os.chown(path, ALICE, ALICE)
    source = f'[source.q]\ntype = "queue-file"\npath = "{path}"\npoll_s = 0.1\n'
    lab.configure(source)
    done = lab.gpud("check", "--config", str(lab.home / "gpud.toml"))
    assert "as whom its jobs run" in done.stderr
    daemon = lab.up(source + f'user = "{ALICE}"\n')
    ran = lab.home / "alice" / "ran"
    lab.until("it ran", lambda: ran.exists() and len(ran.read_text().split()) > 1)
    assert ran.read_text().split()[0] == str(ALICE)
    assert ran.stat().st_uid == ALICE

    def problem() -> str:
        sources = json.loads(lab.ctl("sources", "--json").stdout)["sources"]
        return str(sources[0]["problem"])

    with path.open("a") as file:
        path.chmod(0o666)
        file.write("echo bad > worse\n")
    lab.until("it is refused", lambda: "everybody may write to" in problem())
    os.chown(path, BOB, BOB)
    path.chmod(0o644)
    lab.until("it says who", lambda: "user bob may write to" in problem())
    path.unlink()
    secret = lab.home / "of-root.queue"
    secret.write_text("echo bad > worse\n")
    path.symlink_to(secret)
    os.chown(path, ALICE, ALICE, follow_symlinks=False)
    lab.until("no link", lambda: "is a symbolic link of user alice" in problem())
    assert not (lab.home / "alice" / "worse").exists()
    lab.stop(daemon)


def test_a_command_too_long_for_an_argument_runs_as_its_user(lab: Lab) -> None:
    lab.up()
    job = lab.submit_by("alice", "--file", str(long_script(lab)))
    assert lab.by("alice", "wait", str(job)).returncode == 0
    assert lab.by("alice", "logs", str(job)).stdout.strip().endswith(str(ALICE))


def long_script(lab: Lab) -> Path:
    path = lab.home / "alice" / "long.sh"
    path.write_text(f": {'x' * 200_000}; id -u\n")
    os.chown(path, ALICE, ALICE)
    return path


def test_limits_of_one_user(lab: Lab) -> None:
    lab.up("max_queued = 3\nmax_submits_per_s = 0.5\n")
    for _ in range(3):
        lab.submit_by("alice", "--hold", "true")
    refused = lab.by("alice", "submit", "--hold", "true")
    assert "a user may have 3" in refused.stderr
    assert "a second" in lab.by("alice", "submit", "true").stderr + "".join(
        lab.by("alice", "submit", "true").stderr for _ in range(3)
    )
    lab.submit_by("bob", "true")  # is not bothered
    lab.submit_by("carol", "--priority", "5", "true")


def test_a_socket_that_others_may_exchange_is_refused(lab: Lab) -> None:
    (lab.home / "run").chmod(0o777)
    with pytest.raises(AssertionError, match="others than root may write in"):
        lab.up()
    (lab.home / "run").chmod(0o755)
    lab.socket.write_text("squatted")
    with pytest.raises(AssertionError, match="something that is not a socket"):
        lab.up()


def test_back_in_private_mode_nothing_of_another_runs_as_root(lab: Lab) -> None:
    daemon = lab.up()
    job = lab.submit_by("alice", "--hold", "id -u")
    path = lab.home / "gpud.toml"
    path.write_text("")
    reloaded = lab.ctl("reload", check=False)
    assert "access.mode has changed: this needs a restart" in reloaded.stderr
    lab.stop(daemon)
    lab.serve("--config", str(path))
    lab.ctl("release", str(job))
    assert lab.ctl("wait", str(job), check=False).returncode == 127
    assert f"it is a job of user {ALICE}" in lab.job(job)["why"]
    assert lab.by("alice", "ls").returncode == 4


def test_a_user_who_is_gone(lab: Lab) -> None:
    lab.up()
    job = lab.submit_by("alice", "--hold", "true")
    lines = [line for line in PASSWD.splitlines() if "alice" not in line]
    (lab.home / "passwd").write_text("\n".join(lines) + "\n")
    lab.ctl("release", str(job))
    assert lab.ctl("wait", str(job), check=False).returncode == 127
    assert f"this machine knows no user {ALICE} any more" in lab.job(job)["why"]


def test_system_mode_is_refused_without_its_group(lab: Lab) -> None:
    (lab.home / "group").write_text("root:x:0:\n")
    with pytest.raises(AssertionError, match=r"access.group is .*knows no such group"):
        lab.up()
