"""Metrics of a real daemon: gpuctl, a port, a socket, and what happens when neither can be had."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.metrics.strict import Found, parse

from .conftest import Box


@pytest.fixture
def port() -> int:
    """One that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as kept:
        return int(kept.getsockname()[1])


def configure(box: Box, listen: str) -> list[str]:
    path = box.home / "gpud.toml"
    queue = '[source."my.queue"]\ntype = "queue-file"\npath = "queue"\n'
    path.write_text((f'[metrics]\nlisten = "{listen}"\n' if listen else "") + queue)
    return ["--config", str(path)]


def scrape(port: int) -> dict[str, Found]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    return parse(body)


def answers(port: int) -> bool:
    try:
        scrape(port)
    except OSError:
        return False
    return True


def test_gpuctl_metrics(box: Box) -> None:
    daemon = box.serve()
    box.submit("exit 0")
    box.submit("exit 3")
    box.ctl("wait", "all", check=False)
    box.submit("--hold", "exit 0")
    text = box.ctl("metrics").stdout
    seen = parse(text)
    assert seen["gpud_jobs"].value(state="held") == 1
    assert seen["gpud_jobs_done"].value(outcome="failed") == 1
    assert seen["gpud_jobs_ended"].value("_total", outcome="succeeded") == 1
    assert seen["gpud_job_wait_seconds"].value("_count") == 2
    assert seen["gpud_commit_seconds"].value("_count") > 4
    assert seen["gpud_slots"].value(kind="gpu") == 2
    assert box.ctl("metrics", "--json").stdout.startswith('{"text":')
    box.kill(daemon)
    box.serve()
    seen = parse(box.ctl("metrics").stdout)
    assert seen["gpud_jobs_done"].value(outcome="failed") == 1  # of the database
    assert seen["gpud_jobs_ended"].value("_total", outcome="failed") == 0  # of this daemon


def test_without_a_daemon_gpuctl_says_so(box: Box) -> None:
    done = box.ctl("metrics", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("gpuctl: cannot reach gpud")


def test_a_real_parser_reads_them(box: Box) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    box.serve()
    box.submit("exit 0")
    box.ctl("wait", "all")
    text = box.ctl("metrics").stdout
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    ours = {
        (name + suffix, labels): value
        for name, found in parse(text).items()
        for (suffix, labels), value in found.samples.items()
    }
    assert theirs == ours
    older = pytest.importorskip("prometheus_client.parser")
    assert list(older.text_string_to_metric_families(text))  # node_exporter's text files


def test_prometheus_scrapes_a_port(box: Box, port: int) -> None:
    (box.home / "queue").write_text("exit 0\nexit 0\n")
    box.serve(*configure(box, f"127.0.0.1:{port}"))
    box.until("the port answers", lambda: answers(port))

    def taken() -> bool:
        return scrape(port)["gpud_source_taken"].value("_total", source="my.queue") == 2

    box.until("the queue file is read", taken)
    box.ctl("wait", "all")
    seen = scrape(port)
    assert seen["gpud_jobs_ended"].value("_total", outcome="succeeded") == 2
    assert seen["gpud_source_up"].value(source="my.queue") == 1
    assert seen["gpud_problems"].value() == 0


def test_a_path_is_a_socket_for_its_owner_alone(box: Box) -> None:
    daemon = box.serve(*configure(box, "./metrics.sock"))
    path = box.home / "metrics.sock"
    box.until("the socket is there", path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    assert parse(answer.partition(b"\r\n\r\n")[2].decode())
    assert box.stop(daemon) == 0, (box.home / "serve.log").read_text()
    assert not path.exists()


def test_a_port_that_is_taken_stops_no_job(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        box.serve(*configure(box, f"127.0.0.1:{port}"))
        box.submit("exit 0")
        box.ctl("wait", "all")
        sentence = f"cannot offer metrics on 127.0.0.1:{port}: address already in use"
        box.until("status says so", lambda: sentence in box.ctl("status").stdout)
        assert parse(box.ctl("metrics").stdout)["gpud_problems"].value() == 1
        assert "metrics_not_offered" in (box.home / "serve.log").read_text()
    box.until("it is had at last", lambda: answers(port))
    assert sentence not in box.ctl("status").stdout


def test_a_database_that_is_gone_shows_until_it_is_back(box: Box, port: int) -> None:
    box.serve(*configure(box, f"127.0.0.1:{port}"))
    box.until("the port answers", lambda: answers(port))
    database = box.state / "gpud.db"
    database.rename(box.state / "elsewhere")
    assert box.ctl("submit", "exit 0", check=False).returncode == 1
    seen = scrape(port)
    assert seen["gpud_storage_problem"].value() == 1
    assert seen["gpud_runner_problem"].value() == 0
    assert seen["gpud_problems"].value() >= 1
    (box.state / "elsewhere").rename(database)
    box.until("it heals", lambda: scrape(port)["gpud_storage_problem"].value() == 0)
    box.submit("exit 0")
    box.ctl("wait", "all")
    assert scrape(port)["gpud_jobs_ended"].value("_total", outcome="succeeded") == 1


def test_a_file_in_the_way_is_left_alone(box: Box) -> None:
    path = box.home / "metrics.sock"
    path.write_text("mine")
    box.serve(*configure(box, "./metrics.sock"))
    sentence = f"cannot offer metrics: cannot listen on {path}: something that is not a socket"
    box.until("status says so", lambda: sentence in " ".join(box.ctl("status").stdout.split()))
    assert path.read_text() == "mine"


def test_a_reload_moves_it(box: Box, port: int) -> None:
    daemon = box.serve(*configure(box, ""))
    assert not answers(port)
    configure(box, f"127.0.0.1:{port}")
    assert f"metrics are offered at 127.0.0.1:{port}" in box.ctl("reload").stdout
    box.until("the port answers", lambda: answers(port))
    configure(box, "")
    os.kill(daemon.pid, signal.SIGHUP)
    box.until("the port is closed", lambda: not answers(port))
    assert box.stop(daemon) == 0, (box.home / "serve.log").read_text()


def test_garbage_harms_nobody(box: Box, port: int) -> None:
    box.serve(*configure(box, f"127.0.0.1:{port}"))
    box.until("the port answers", lambda: answers(port))
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    for n, client in enumerate(held):
        client.sendall(os.urandom(1 + n * 1000) if n % 2 else b"GET /metrics")
    box.ctl("ping")
    for client in held:
        client.close()
    box.until("the port answers", lambda: answers(port))
    assert "Traceback" not in (box.home / "serve.log").read_text()


def test_check_says_what_is_wrong_with_listen(box: Box) -> None:
    configure(box, "node7:9464")
    done = box.gpud("check", "--config", "gpud.toml")
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert line.endswith(
        "gpud.toml:2: metrics.listen cannot be 'node7:9464': \"node7\" is not an address: "
        'write text like "127.0.0.1:9464" or "./metrics.sock"'
    )


def test_an_idle_daemon_is_not_woken_for_them(box: Box) -> None:
    """Once it has settled it sleeps; a listening port changes nothing."""
    path = box.home / "gpud.toml"
    path.write_text(f'[metrics]\nlisten = "{box.home}/metrics.sock"\n')
    daemon = box.serve("--config", str(path))
    box.until("the socket is there", Path(box.home / "metrics.sock").exists)
    switches = Path(f"/proc/{daemon.pid}/status")

    def slept() -> int:
        line = next(s for s in switches.read_text().splitlines() if s.startswith("voluntary"))
        return int(line.split()[1])

    quiet = [slept()]

    def has_settled() -> bool:
        """Two seconds without a wake-up."""
        quiet.append(slept())
        return len(quiet) > 100 and quiet[-1] == quiet[-100]

    box.until("nothing wakes it", has_settled)
