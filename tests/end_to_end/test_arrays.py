"""Arrays: one submit, many jobs; the installed commands."""

from __future__ import annotations

import json

from tests.end_to_end.conftest import Box


def rows(box: Box, *jobs: str) -> list[tuple[str, str, int]]:
    """(indices, state, elements) of each line of `ls`."""
    listed = json.loads(box.ctl("ls", *jobs, "--json").stdout)["jobs"]
    return [
        (job.get("indices", ""), job["outcome"] or job["state"], job.get("count", 1))
        for job in listed
    ]


def test_elements_know_their_index_and_survive_a_kill(box: Box) -> None:
    daemon = box.serve(gpus="0")
    go = box.home / "go"
    says = "echo $GPUD_ARRAY_ID $GPUD_ARRAY_INDEX $GPUD_ARRAY_SIZE"
    [first] = box.submit("--array", "3,5-8", f"{says}; until test -e {go}; do sleep 0.05; done")
    [after] = box.submit("--after", "@", "true")
    assert after == first + 5, "each element has an id"
    assert rows(box, str(first)) == [("3", "active", 1), ("5-8", "queued", 4)]
    box.ctl("hold", f"{first}[6]")
    box.ctl("cancel", f"{first}[7]")
    box.kill(daemon)
    box.serve(gpus="0")
    assert sorted(rows(box, str(first))) == [
        ("3", "active", 1), ("5,8", "queued", 2), ("6", "held", 1), ("7", "cancelled", 1),
    ]  # fmt: skip
    assert "was cancelled" in box.show(after)["job"]["why"]
    box.ctl("release", str(first), "--yes")
    go.touch()
    assert box.ctl("wait", str(first), check=False).returncode == 125, "one was cancelled"
    assert rows(box, str(first)) == [
        ("3", "succeeded", 1), ("5", "succeeded", 1), ("6", "succeeded", 1),
        ("7", "cancelled", 1), ("8", "succeeded", 1),
    ]  # fmt: skip
    logs = [f"[{first}[{index}]] {first} {index} 5\n" for index in (3, 5, 6, 8)]
    assert box.ctl("logs", str(first)).stdout == "".join(logs)


def test_an_array_is_one_name_for_many(box: Box) -> None:
    box.serve(gpus="0 1")
    [first] = box.submit("--array", "0-9", "test $GPUD_ARRAY_INDEX -lt 8")
    assert box.ctl("wait", str(first), check=False).returncode == 1
    told = box.ctl("show", str(first)).stdout
    assert f"array {first}[0-9]: 8 succeeded, 2 failed" in told
    assert f"ended badly: {first}[8-9]" in told
    box.ctl("retry", f"{first}[8-9]", "--yes")
    box.ctl("wait", str(first), check=False)
    [detail] = json.loads(box.ctl("show", f"{first}[9]", "--json").stdout)["jobs"]
    assert [detail["job"]["id"], len(detail["attempts"])] == [first + 9, 2]


def test_what_cannot_be_is_refused_with_a_sentence(box: Box) -> None:
    box.serve()
    [first] = box.submit("--array", "0-3", "--hold", "true")
    [alone] = box.submit("--hold", "true")
    for words, why in [
        (["submit", "--array", "5-1", "true"], "5 is greater than 1"),
        (["submit", "--array", "1,0-3", "true"], "an index stands there twice"),
        (["submit", "--array", "0-9999999", "true"], "the largest index is 1000000"),
        (["submit", "--array", "0-3%0", "true"], "how many may run at a time"),
        (["submit", "--array", "", "true"], "it takes indices"),
        (["submit", "--max-fails", "2", "true"], "max_fails is for an array"),
        (["show", f"{first}[4]"], "the array has 0-3"),
        (["show", f"{first}[3-1]"], "3 is greater than 1"),
        (["show", f"{alone}[0]"], f"job {alone} is no array"),
    ]:
        done = box.ctl(*words, check=False)
        assert done.returncode in (1, 2, 3), words
        assert why in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_queue_file_has_arrays(box: Box) -> None:
    (box.home / "gpu.queue").write_text(
        "#gpud: array=1-3\necho $GPUD_ARRAY_INDEX >> out\n#gpud: array=3-1\ntrue\n"
    )
    (box.home / "gpud.toml").write_text('[source.q]\ntype = "queue-file"\npath = "gpu.queue"\n')
    box.serve("--config", str(box.home / "gpud.toml"), gpus="0")
    box.ctl("wait", "1-4", check=False)
    assert [state for _, state, _ in rows(box, "1-4")] == ["succeeded"] * 3 + ["not-started"]
    assert "3 is greater than 1" in box.show(4)["job"]["why"]
    assert (box.home / "out").read_text().split() == ["1", "2", "3"]
