"""The server that stays: started once, found by runs, and stopped by nobody but `down`."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from flows.server import running_server
from flows.server_state import born
from flows.standing_server import Up, down, up
from tests.flows.conftest import enabled_services


def test_down_with_nothing_running_says_so(bare: Path) -> None:
    assert down().startswith("Nothing to stop")


def test_a_stale_state_file_stops_nobody(bare: Path) -> None:
    """The number of a process that ended belongs to another one today: this one."""
    bare.mkdir()
    (bare / "server.json").write_text(json.dumps({"pid": os.getpid(), "born": "long ago", "port": 1, "url": "http://127.0.0.1:1/api"}))
    assert down().startswith("Nothing to stop")
    assert not (bare / "server.json").exists()


def test_up_is_found_by_a_run_and_by_a_second_up_and_stopped_by_down(home: Path) -> None:
    results: list[Up] = []
    both = [threading.Thread(target=lambda: results.append(up())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(result.started for result in results) == [False, True]
    assert len({result.ui_url for result in results}) == 1
    assert "already up" in str(up())
    state = json.loads((home / "server.json").read_text())
    with running_server() as api:
        assert (api.url, api.process) == (state["url"], None)
        assert enabled_services(api) >= {"scheduler", "triggers", "foreman", "late_runs"}
    assert born(state["pid"]) == state["born"]
    assert down() == f"Stopped Prefect at {results[0].ui_url}"
    assert born(state["pid"]) is None
