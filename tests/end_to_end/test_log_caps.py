"""A job that writes too much, as its user and the administrator see it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from gpud.errors import GpudError
from gpud.store import punching
from tests.end_to_end.conftest import GPUCTL, Box

MIB = 1 << 20


@pytest.fixture
def holes(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(bytes(MIB))
    try:
        punching.punch(str(path), 0, MIB // 2)
    except GpudError as error:
        pytest.skip(str(error))


def test_the_middle_of_a_log_is_cut_out_while_its_job_runs(box: Box, holes: None) -> None:
    config = box.home / "gpud.toml"
    config.write_text("")
    box.serve("--config", str(config), gpus="0")
    gate = box.home / "gate"
    os.mkfifo(gate)
    line = "y" * 63
    write = f"yes {line} | head -c"
    more = f"echo went on; {write} {MIB}; echo end"
    [job] = box.submit(f"{write} {4 * MIB}; read x < {gate}; {more}")
    log = box.state / "logs" / "0" / f"{job}.1.log"
    box.until("it has written", lambda: log.exists() and log.stat().st_size == 4 * MIB)
    following = subprocess.Popen(
        [GPUCTL, "logs", "-f", "-n", "2", str(job)], stdout=subprocess.PIPE, env=box.env
    )
    box.daemons.append(following)
    config.write_text('[retention]\nlog_cap = "1M"\n')
    assert "[retention] has changed" in box.ctl("reload").stdout
    box.until("it is cut", lambda: "log_cut" in box.show(job)["attempts"][0])
    box.until("it gave room back", lambda: log.stat().st_blocks * 512 <= MIB)
    shown = box.ctl("logs", str(job)).stdout
    assert "\n[… 3.5 MiB cut …]\n" in shown
    assert "\0" not in shown
    assert shown.startswith(line)
    assert len(shown) < MIB
    assert "its log lost its middle: 3.5 MiB were cut out" in box.ctl("show", str(job)).stdout
    gate.write_text("go\n")
    assert box.ctl("wait", str(job), check=False).returncode == 0
    assert box.ctl("logs", "-n", "1", str(job)).stdout == "end\n"
    followed = following.communicate(timeout=20)[0].decode()
    assert followed.count("went on\n") == 1
    assert followed.endswith("end\n")
    assert "\0" not in followed
    assert len(followed) == 2 * 64 + len("went on\n") + MIB + len("end\n")
    assert json.loads(box.ctl("show", str(job), "--json").stdout)["jobs"][0]["attempts"][0][
        "log_cut"
    ] == [MIB // 4, 4 * MIB - MIB // 4]
