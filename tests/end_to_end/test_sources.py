"""Sources as a person handles them: stopped, started, and pointed at another file."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.conftest import Box


def append(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def taken(box: Box) -> dict[str, int]:
    sources = json.loads(box.ctl("sources", "--json").stdout)["sources"]
    return {source["name"]: source["taken"] for source in sources}


def configure(box: Box, **paths: str) -> Path:
    config = box.home / "gpud.toml"
    sources = (
        f'[source.{name}]\ntype = "queue-file"\npath = "{path}"\n' for name, path in paths.items()
    )
    config.write_text('[pool]\ngpus = ["0"]\n' + "".join(sources))
    return config


def test_a_stopped_source_is_not_read_until_it_is_started(box: Box) -> None:
    config = configure(box, night="night.queue", day="day.queue")
    append(box.home / "night.queue", "true")
    daemon = box.serve("--config", str(config), gpus="")
    box.until("the first line is taken", lambda: taken(box)["night"] == 1)
    box.ctl("source", "stop", "night")
    for number in range(1, 4):
        append(box.home / "night.queue", "true")
        append(box.home / "day.queue", "true")
        # As long as the other one needs to see a line, this one has had time, too.
        box.until("the other one is read", lambda n=number: taken(box)["day"] == n)
    assert taken(box)["night"] == 1
    box.stop(daemon)
    box.serve("--config", str(config), gpus="")
    append(box.home / "day.queue", "true")
    box.until("the other one is read", lambda: taken(box)["day"] == 4)
    assert taken(box)["night"] == 1, "a restart does not start it"
    box.ctl("source", "start", "night")
    box.until("what was written meanwhile is taken", lambda: taken(box)["night"] == 4)
    refused = box.ctl("source", "stop", "nihgt", check=False)
    assert refused.returncode == 3
    assert 'cannot stop source "nihgt": no such source' in refused.stderr


def test_a_source_that_is_pointed_at_another_file_takes_all_of_it(box: Box) -> None:
    ran = box.home / "ran"
    for name in ("q", "q2"):
        append(box.home / name, f"echo A >> {ran}")
    append(box.home / "q2", f"echo B >> {ran}")
    config = configure(box, night="q")
    box.serve("--config", str(config), gpus="")
    box.until("the first file is taken", lambda: taken(box)["night"] == 1)
    configure(box, night="q2")
    box.ctl("reload")
    box.until("the second file is taken", lambda: taken(box)["night"] == 3)
    box.ctl("wait", "all")
    assert ran.read_text().split() == ["A", "A", "B"]


def test_a_key_counts_from_whatever_directory_and_environment(box: Box) -> None:
    box.serve()
    (box.home / "elsewhere").mkdir()
    first = box.submit("--key", "night", "true")
    again = box.submit(
        "--key", "night", "true", cwd=box.home / "elsewhere", env={**box.env, "EXTRA": "1"}, umask=0
    )
    assert again == first
    other = box.ctl("submit", "--key", "night", "--env", "EXTRA=1", "true", check=False)
    assert other.returncode == 1
