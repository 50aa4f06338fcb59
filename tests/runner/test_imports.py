"""An upgrade may replace the files under a runner: nothing is imported while it works."""

import ast
import subprocess
import sys
from pathlib import Path

import gpud.runner

from .conftest import RUNNER, Box, wait_until

# A runner that says at its end what it has imported since its start.
WATCHED = """
import atexit, sys
from gpud.runner import main
before = set(sys.modules)
atexit.register(lambda: print("imported:", sorted(set(sys.modules) - before), file=sys.stderr))
sys.exit(main.main(sys.argv[1:]))
"""


def test_nothing_is_imported_while_it_works(box: Box) -> None:
    package = str(RUNNER.parents[2])
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({package!r})" + WATCHED,
    ]
    with open(box.path / "runner.log", "ab") as log:
        box.runners.append(
            subprocess.Popen([*command, str(box.path)], stdout=log, stderr=log, cwd="/")
        )
    wait_until(box.socket.exists, "it listens")
    c = box.connect()
    c.send(**box.job("exit 3", job=1))
    c.until("ended", 1)
    c.send(**box.job("", job=2, argv=["no-such-program"]))
    c.send(**box.job("", job=3, cwd="/nowhere"))
    c.until("not-started", 3)
    box.start(c, "setsid sleep 1000 & exit 0", job=4, linger_s=0.1)
    c.until("ended", 4)
    box.start(c, "sleep 1000", job=5, time_limit_s=0.1)
    c.until("ended", 5)
    other = box.dial()
    other.send_raw(b"garbage\n")
    other.until("refused")
    box.start(c, "sleep 1000", job=6)
    box.runner.terminate()
    box.runner.wait(20)
    assert "imported: []" in box.said()


def test_no_function_imports() -> None:
    for path in RUNNER.parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not inner, f"{path.name}: {node.name}"


def test_it_imports_nothing_of_gpud_but_itself() -> None:
    code = (
        f"import sys; sys.path.append({str(RUNNER.parents[2])!r}); import gpud.runner.main;"
        "print(sorted(m for m in sys.modules if m.startswith('gpud')))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert all(m == "gpud" or m.startswith("gpud.runner") for m in ast.literal_eval(found))


def test_the_daemon_pays_nothing_for_the_version() -> None:
    code = (
        f"import sys; sys.path.append({str(RUNNER.parents[2])!r}); before = set(sys.modules);"
        "from gpud.runner import VERSION, ENTRY; print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert ast.literal_eval(found) == ["gpud", "gpud.runner"]
    assert Path(gpud.runner.ENTRY) == RUNNER
