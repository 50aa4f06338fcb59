"""The README is run: every command of the tour, and the blocks that show `gpud run`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.end_to_end.conftest import BIN, Box

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.S | re.M)


def shell(box: Box, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env={**box.env, "PATH": f"{BIN}:{box.env['PATH']}"},
        cwd=box.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_tour(box: Box) -> None:
    [tour] = blocks("console")
    lines = [line[2:] for line in tour.splitlines() if line.startswith("$ ")]
    assert lines.pop(0) == "gpud serve --gpus 0,1 &"
    box.serve()
    assert len(lines) > 10
    for line in lines:
        command, _, expected = line.partition("  # exit status ")
        done = shell(box, command)
        status = int(expected.split(":")[0]) if expected else 0
        assert done.returncode == status, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    assert "hello from GPU" in shell(box, "gpuctl logs 1").stdout
    assert "42" in shell(box, "gpuctl logs 2").stdout


def test_the_blocks_about_gpud_run(box: Box) -> None:
    (box.home / "commands.txt").write_text("echo $CUDA_VISIBLE_DEVICES\nexit 0\n")
    found = [b.strip() for b in blocks("sh") if b.startswith("gpud run")]
    assert found
    for block in found:
        done = shell(box, block)
        assert done.returncode == 0, done.stderr
        assert "2 succeeded" in done.stderr


def test_the_example_commands(box: Box) -> None:
    examples = README.parent / "examples" / "commands.txt"
    done = box.gpud("run", "--gpus", "0,1", input=examples.read_text())
    assert done.returncode == 0, done.stderr
    for words in ("training on GPU", "PIPES WORK", "4", "a here-document, too: 8"):
        assert words in done.stdout


def test_the_example_commands_submitted(box: Box) -> None:
    """The same five jobs, whoever takes them."""
    box.serve()
    with (README.parent / "examples" / "commands.txt").open() as examples:
        assert box.submit("-", stdin=examples) == [1, 2, 3, 4, 5]
    box.ctl("wait", "all")
    printed = box.ctl("logs", "all").stdout
    for words in ("training on GPU", "PIPES WORK", "] 4\n", "a here-document, too: 8"):
        assert words in printed
    assert "[4] a command over two lines" in printed
    assert (box.job(4)["name"], box.show(4)["retries"]) == ("report", 2)


def test_the_configuration_block(box: Box) -> None:
    [block] = blocks("toml")
    (box.home / "gpud.toml").write_text(block)
    assert box.gpud("check", "--config", "gpud.toml").returncode == 0
    box.serve("--config", "gpud.toml", gpus="")
    with (box.home / "gpu.queue").open("a") as queue:
        queue.write("touch ran\n")
    box.until("the line ran", (box.home / "ran").exists)
