"""The service on a real Prefect server, with real objects: what lands is in its output once, and the server shows how."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ConnectError, HTTPStatusError, Request, Response

import h5dat_lib
from flows.prefect_client import client_environment
from h5dat_lib.errors import ConfigError, Unavailable
from tests.conftest import Bucket
from tests.faulty_proxy import Fault, FaultyProxy
from tests.flows.conftest import call
from tests.flows.test_ingest import Server, server
from tests.landing.test_loop import Place, place
from tests.servers import SeaweedFS, credentials, heed_interrupts
from tests.test_watching import Watchers, archive, into, synced_texts, watchers

__all__ = ["server"]
pytestmark = pytest.mark.slow
AWAY_SECONDS = 20
"""For how long the store goes away."""


def _client(server: Server) -> dict[str, str]:
    """The environment of a client of the server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("PREFECT_"):
                patch.delenv(name)
        patch.setenv("H5DAT_HOME", server.environment["H5DAT_HOME"])
        return server.environment | client_environment(f"{server.url}/api")


@pytest.fixture
def real(bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place(bucket, moto, monkeypatch)


@pytest.fixture(scope="module")
def worker(server: Server, seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The deployments and their automations, and a worker that runs what they ask for."""
    environment = _client(server) | credentials(seaweed.endpoint) | {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_LEVEL": "ERROR"}
    prefect, folder = [sys.executable, "-m", "prefect", "--no-prompt"], tmp_path_factory.mktemp("worker")
    subprocess.run([sys.executable, "-m", "flows.cli", "deploy", "--pool", "here"], env=environment, check=True, capture_output=True)
    process = subprocess.Popen([*prefect, "worker", "start", "--pool", "here"], env=environment, cwd=folder, preexec_fn=heed_interrupts)
    yield
    process.terminate()
    process.wait(30)


@pytest.fixture
def dying(server: Server) -> Iterator[Watchers]:
    yield from watchers("flows.watch", "flows.ingest_archives", **_client(server))


def _until(what: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.3)


def _runs(server: Server) -> list[dict[str, Any]]:
    deployment = call(f"{server.url}/api/deployments/name/ingest%20archives/ingest-archive")["id"]
    found: list[dict[str, Any]] = server.ask("flow_runs", flow_runs={"deployment_id": {"any_": [deployment]}})
    return found


@pytest.mark.usefixtures("worker")
def test_what_lands_is_ingested_by_the_deployment_once_whenever_the_watcher_is_killed(
    server: Server, real: Place, tmp_path: Path, dying: Watchers
) -> None:
    into(real, real.bucket.uri("out/all.h5"))
    steps = ["before it is deleted", "event emitted", "run created"]
    for step in steps:
        real.land(f"{step}.zip", archive(step))
        assert dying.watch(step, real, "deployment") == -9, step
    real.tell("run created.zip")
    assert dying.watch("", real, "deployment") == 0
    assert real.left() == 0
    _until(lambda: all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for run in _runs(server)))
    assert [run["state"]["message"] for run in _runs(server) if run["state_type"] != "COMPLETED"] == [] and len(_runs(server)) == 3
    assert synced_texts(real.bucket, "out/all.h5", tmp_path) == sorted(f"{step} {row}" for step in steps for row in range(3))
    with h5dat_lib.open(tmp_path / "copy.h5") as file:
        assert sorted(each["uri"] for each in file.describe()["sources"]) == [f"s3://{real.bucket.name}/{step}.zip" for step in steps]
    events = call(f"{server.url}/api/events/filter", {"filter": {"event": {"name": ["h5dat.archive.landed"]}}})["events"]
    assert sorted(event["payload"]["key"] for event in events) == [f"{step}.zip" for step in steps]
    assert {event["resource"]["h5dat.via"] for event in events} == {"deployment"}
    [run] = [run for run in _runs(server) if run["parameters"]["archives"] == [f"s3://{real.bucket.name}/run created.zip"]]
    assert {artifact["key"] or artifact["type"] for artifact in server.of_run("artifacts", run, 2)} >= {"progress", "h5dat-classes"}


def test_a_server_that_is_away_may_come_back_and_one_that_says_no_will_not() -> None:
    from flows.watch import _answered  # imports Prefect, which reads its settings then

    request = Request("GET", "http://127.0.0.1:9/api")
    for status, kind in ((503, Unavailable), (429, Unavailable), (422, ConfigError)):
        with pytest.raises(kind, match="Prefect: found HTTPStatusError"), _answered():
            raise HTTPStatusError("no", request=request, response=Response(status, request=request))
    with pytest.raises(Unavailable), _answered():
        raise ConnectError("no connection")


def test_the_demo_brings_an_archive_that_lands_into_the_other_bucket(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "samples.demo_s3", str(tmp_path / "demo"), "--short"]
    ran = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran
    assert "s3://archive/pictures.h5 is there after" in ran.stdout and "s3://landing/pictures.zip  zip" in ran.stdout
    assert "1 ingested" in ran.stdout and "  stopped; " in ran.stdout


def test_fifty_archives_at_once_through_a_store_that_throttles_is_slow_and_goes_away_while_reading_and_while_syncing(
    server: Server, real: Place, seaweed: SeaweedFS, tmp_path: Path
) -> None:
    key = "out/all.h5"
    into(real, real.bucket.uri(key), commit_seconds=0, s3={"attempts": 2, "connect_seconds": 2, "read_seconds": 5})
    (tmp_path / "rules.json").write_text(real.landing.rules.model_dump_json(by_alias=True))
    for number in range(50):
        real.land(f"{number:02}.zip", archive(f"{number:02}"))
    words = ["--rules", tmp_path / "rules.json", "--queue", real.url, "--via", "direct", "--heartbeat", tmp_path / "alive"]
    with FaultyProxy(seaweed.endpoint) as proxy, (tmp_path / "log").open("w") as log:
        proxy.will(Fault(match=".zip", status=503, code="SlowDown", times=5), Fault(match=".zip", seconds=1, times=3))
        proxy.will(Fault("PUT", key, status=503, code="SlowDown", times=3), Fault("POST", key, status=500, code="InternalError", times=2))
        found = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} | {"AWS_ENDPOINT_URL": proxy.endpoint}
        command = [sys.executable, "-m", "flows.cli", "watch", *map(str, words)]
        process = subprocess.Popen(command, env=server.environment | found, stdout=log, stderr=log)
        try:
            for method, match in (("GET", ".zip"), ("P", key)):
                _until(lambda method=method, match=match: _asked(proxy, method, match))
                with proxy.away():
                    time.sleep(AWAY_SECONDS)
            _until(lambda: real.left() == 0)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    said = (tmp_path / "log").read_text()
    assert code == 0, said
    assert synced_texts(real.bucket, key, tmp_path) == sorted(f"{number:02} {row}" for number in range(50) for row in range(3)), said
    done = {line.split(": ")[0] for line in said.splitlines() if ": ingested" in line or ": known" in line}
    assert done == {real.bucket.uri(f"{number:02}.zip") for number in range(50)}, said
    assert (tmp_path / "alive").exists()


def _asked(proxy: FaultyProxy, method: str, match: str) -> bool:
    return any(verb.startswith(method) and match in path for verb, path in proxy.requests)
