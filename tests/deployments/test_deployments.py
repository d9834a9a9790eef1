"""Everything deployed on a real server: registered twice, run by a real worker, killed, told of, and served."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import h5dat_lib
from flows.prefect_client import CLIENT
from tests.conftest import Bucket, config, make_folder, make_zip, picture
from tests.deployments.conftest import KILLED, POOL, Killed, Service, waited
from tests.servers import credentials

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT / "deployments" / "prefect.yaml"
pytestmark = pytest.mark.slow

AUTOMATIONS = {
    "h5dat: ingest what lands", "h5dat: miss silent runs", "h5dat: go on after a crash", "h5dat: end what takes a week",
}  # fmt: skip


def automations(service: Service) -> dict[str, Any]:
    return {found["name"]: found for found in service.ask("automations/filter", {}) if found["name"].startswith("h5dat: ")}


def deployments(service: Service) -> dict[str, Any]:
    """What is registered, without what the server adds."""
    own = (
        "entrypoint", "description", "tags", "parameters", "parameter_openapi_schema", "job_variables", "work_pool_name", "path",
        "pull_steps", "concurrency_options", "enforce_parameter_schema", "paused",
    )  # fmt: skip
    found = {each["name"]: {name: each[name] or [] for name in own} | _limits(each) for each in service.ask("deployments/filter", {})}
    return dict(sorted(found.items()))


def _limits(deployment: Any) -> dict[str, Any]:
    schedules = [(each["slug"], each["schedule"]["cron"], each["schedule"]["timezone"], each["active"]) for each in deployment["schedules"]]
    return {"limit": deployment["global_concurrency_limit"]["limit"], "schedules": schedules}


def words(*names: str) -> dict[str, bytes]:
    return {f"{name}.txt": name.encode() for name in names}


def stored(output: Path) -> list[str]:
    with h5dat_lib.open(output) as file:
        return sorted(file["texts"]["text"][:])


def test_what_runs_get_in_their_environment_is_what_clients_of_ours_have() -> None:
    for each in yaml.safe_load(DEFINITIONS.read_text())["deployments"]:
        environment = each["work_pool"]["job_variables"]["env"]
        assert {name: CLIENT.get(name, value) for name, value in environment.items()} == environment


def test_prefects_own_deploy_makes_the_same_deployments_and_touches_no_automation(service: Service, killed: Callable[[], Killed]) -> None:
    first, first_automations = deployments(service), automations(service)
    assert set(first) == {"ingest-archive", "ingest-prefix", "nightly", "verify-weekly", "retry-rejects", "watch"}
    assert set(first_automations) == AUTOMATIONS
    file = Path(service.environment["HOME"]) / "prefect.yaml"
    file.write_text(DEFINITIONS.read_text().replace("    name: h5dat\n", f"    name: {POOL}\n"))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    deployed = subprocess.run(command, env=service.environment, capture_output=True, text=True, cwd=file.parent, timeout=240, check=False)
    assert deployed.returncode == 0, deployed
    assert (deployments(service), automations(service)) == (first, first_automations)


_AGAIN = """
import json, sys
from prefect.client.orchestration import get_client
from deployments.definitions import Places
from deployments.deploying import deploy
pool, placed = sys.argv[1], Places("/in", "/out/{prefix}/{stem}.h5")
with get_client(sync_client=True) as client:
    def ask(path, body=None):
        return client.request("POST", path, json=body or {}).json()
    def look():
        found = {found["name"]: found for found in ask("/automations/filter")}
        return found, {found["name"]: found for found in ask("/deployments/filter")}
    said, looks = [deploy(Places(), pool)], [look()]
    ours = looks[0][0]
    for name in ("h5dat: of a former version", "another's"):
        old = ours["h5dat: ingest what lands"]
        ask("/automations/", {key: old[key] for key in ("trigger", "actions", "description")} | {"name": name, "enabled": False})
    silent = ours["h5dat: miss silent runs"]
    changed = {key: silent[key] for key in ("name", "trigger", "actions")} | {"description": "another"}
    client.request("PUT", f"/automations/{silent['id']}", json=changed)
    for places in (placed, Places()):
        said.append(deploy(places, pool))
        looks.append(look())
print(json.dumps([said, looks]))
"""


def test_deploying_again_changes_nothing_but_what_has_changed_and_what_it_is_given(service: Service) -> None:
    before = automations(service)
    said, looks = json.loads(service.python(_AGAIN, POOL).splitlines()[-1])
    assert not [line for line in said[0] + said[2] if not line.startswith("deployed ")]
    assert {line for line in said[1] if not line.startswith("deployed ")} == {
        "changed `h5dat: miss silent runs`", "removed `h5dat: of a former version`",
    }  # fmt: skip
    assert looks[0][0] == before
    for found, deployed in looks[1:]:
        assert set(found) == AUTOMATIONS | {"another's"}
        assert {name: each["id"] for name, each in found.items() if name in before} == {name: each["id"] for name, each in before.items()}
        assert deployed["nightly"]["parameters"] == {"prefix": "/in", "output": "/out/{prefix}/{stem}.h5"}
        assert deployed["verify-weekly"]["parameters"] == {"output": "/out/**/*.h5"}
        assert [each["active"] for name in ("nightly", "verify-weekly") for each in deployed[name]["schedules"]] == [True, True]
    assert [each["active"] for name in ("nightly", "verify-weekly") for each in looks[0][1][name]["schedules"]] == [False, False]


def test_the_form_of_a_deployment_is_that_of_the_configuration(service: Service) -> None:
    schema = service.deployment("ingest archives/ingest-archive")["parameter_openapi_schema"]
    assert schema["required"] == ["archives", "output"]
    assert [schema["properties"][name].get("type") for name in ("archives", "output")] == ["array", "string"]
    assert schema["properties"]["config"]["$ref"] == "#/definitions/Config"
    assert all(described.get("description") for described in schema["properties"].values())
    assert set(schema["definitions"]["Config"]["properties"]) == set(h5dat_lib.Config.model_json_schema()["properties"])
    with pytest.raises(Exception, match="409"):
        service.start("ingest archives/ingest-archive", archives=["/a.zip"], output="/b.h5", config={"workers": 0})


_POST = """
import json, sys
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    for events in json.loads(sys.argv[1]):
        client.request("POST", "/events", json=events)
"""


def test_two_runs_into_one_output_at_once_one_by_an_event_told_twice_give_the_rows_of_both_once(service: Service, tmp_path: Path) -> None:
    output, settings = tmp_path / "out.h5", {"batch_seconds": 0.02, "task_runner": "threads", "workers": 1}
    first, landed = (make_zip(tmp_path / f"{part} +.zip", words(*(f"{part}{n}" for n in range(20)))) for part in "ab")
    event = {
        "event": "h5dat.archive.landed", "id": str(uuid.uuid4()), "occurred": "2026-01-01T00:00:00Z",
        "resource": {"prefect.resource.id": "s3://bucket/b +.zip", "h5dat.via": "automation"},
        "payload": {"archive": str(landed), "output": str(output), "config": settings},
    }  # fmt: skip
    watched = event | {"id": str(uuid.uuid4()), "resource": {"prefect.resource.id": "s3://bucket/x", "h5dat.via": "deployment"}}
    started = service.start("ingest archives/ingest-archive", archives=[str(first)], output=str(output), config=settings)
    service.python(_POST, json.dumps([[event], [watched]]))
    waited(lambda: len(runs_into(service, output)) > 1)
    service.python(_POST, json.dumps([[event]]))
    runs = {run["id"]: run for run in runs_into(service, output)}
    for by_event in set(runs) - {started}:  # one; a server that is too busy to say that it has an event takes it again
        assert runs[by_event]["parameters"] == {"archives": [str(landed)], "output": str(output), "config": settings}
    assert [service.ended(run)["state_name"] for run in runs] == ["Completed", "Completed"]
    assert Counter(stored(output)) == Counter(f"{part}{n}" for part in "ab" for n in range(20))


def runs_into(service: Service, output: Path | str) -> list[Any]:
    """The runs of the deployment that ingests archives, into an output."""
    deployment = service.deployment("ingest archives/ingest-archive")["id"]
    found = service.ask("flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    return [run for run in found if run["parameters"]["output"] == str(output)]


def test_a_prefix_is_ingested_by_a_run_for_each_archive_and_failures_are_told(service: Service, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", {"c.zip": b"PK\3\4 broken"})
    for name in ("a", "b"):
        make_zip(folder / f"{name}.zip", words(name))
    h5dat_lib.ingest(folder / "a.zip", tmp_path / "a.h5", config())
    given = {"prefix": str(folder), "output": f"{tmp_path}/{{stem}}.h5", "config": {"task_runner": "threads", "workers": 1}}
    run = service.ended(service.start("ingest prefix/ingest-prefix", **given))
    assert (run["state_name"], run["run_count"]) == ("Failed", 1)
    assert "1 of 3 archives are not in; the first: " in run["state"]["message"] and "c.zip" in run["state"]["message"]
    table = json.loads(service.artifacts(run["id"])["h5dat-prefix"])
    assert [(Path(row["archive"]).name, row["state"]) for row in table] == [
        ("c.zip", "Failed"), ("a.zip", "in already"), ("b.zip", "Completed"),
    ]  # fmt: skip
    assert stored(tmp_path / "b.h5") == ["b"]


_DIRECT = """
import json, sys
from prefect.client.orchestration import get_client
from flows.ingest_prefix import ingest_prefix
from flows.retry_rejects import retry_rejects
from flows.verify_output import verify_output
from h5dat_lib.config import parse
folder = sys.argv[1]
threads = {"task_runner": "threads", "workers": 1}
states = {
    "verify": verify_output(f"{folder}/*.h5", return_state=True),
    "retry": retry_rejects(f"{folder}/small.h5", parse({**threads, "limits": {"whole_bytes": 1000}}), return_state=True),
    "damaged": verify_output(f"{folder}/damaged.h5", return_state=True),
    "absent": verify_output(f"{folder}/absent.h5", return_state=True),
    "budget": __import__("flows.ingest_archives").ingest_archives.ingest_archives(
        [f"{folder}/a.zip"], f"{folder}/budget.h5", parse({**threads, "max_rejects": 0, "limits": {"whole_bytes": 5}}), return_state=True),
}
print(json.dumps({name: [state.name, state.message, str(state.state_details.flow_run_id)] for name, state in states.items()}))
"""


def test_flows_say_how_they_end_and_lasting_failures_are_not_tried_again(service: Service, tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"long.txt": b"long enough", "b.txt": b"b"})
    for name, limit in (("small", 5), ("damaged", 1000)):
        h5dat_lib.ingest(tmp_path / "a.zip", tmp_path / f"{name}.h5", config(limits={"whole_bytes": limit}))
    sound = (tmp_path / "damaged.h5").rename(tmp_path / "sound.h5")
    with h5dat_lib.open(sound) as file:
        at = file.hdf5["texts/text/values"].id.get_chunk_info(0).byte_offset
    data = bytearray(sound.read_bytes())
    data[at] ^= 1
    (tmp_path / "broken").mkdir()
    states = json.loads(
        service.python(
            _DIRECT.replace('f"{folder}/damaged.h5"', 'f"{folder}/broken/damaged.h5"'), _with_file(tmp_path, "broken/damaged.h5", data)
        ).splitlines()[-1]
    )
    assert states["verify"][:1] == ["Completed"] and "in 2 files" in states["verify"][1]
    assert states["retry"][0] == "Completed" and stored(tmp_path / "small.h5") == ["b", "long enough"]
    assert states["damaged"][0] == "Failed" and "texts" in states["damaged"][1]
    [row] = json.loads(service.artifacts(states["damaged"][2])["h5dat-mismatches"])
    assert (row["table"], row["column"], row["member"]) == ("texts", "text", "long.txt")
    assert states["absent"][0] == states["budget"][0] == "Failed"
    assert [service.ask(f"flow_runs/{states[name][2]}")["run_count"] for name in ("absent", "budget", "damaged")] == [1, 1, 1]


def _with_file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder


# Telling


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An address, and what is posted to it."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *given: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


_TOLD = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.states import Failed, Running
from deployments.definitions import Places
from deployments.deploying import deploy
from flows.unattended import tell_of_rejects
from h5dat_lib.config import Config
from h5dat_lib.errors import BudgetExceeded, ConfigError
from h5dat_lib.pipeline import Ingest
address, pool, output = sys.argv[1:]
CustomWebhookNotificationBlock(name="test", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}).save("test")
try:
    deploy(Places(), pool, "custom-webhook/absent")
except ConfigError as exc:
    print(exc)
print([line for line in deploy(Places(), pool, "custom-webhook/test") if line.startswith("made")])
with get_client(sync_client=True) as client:
    deployment = client.read_deployment_by_name("verify output/verify-weekly").id
    for message in ("the disk is full", "Flow run encountered an exception: BudgetExceeded: 5 of 9 members"):
        run = client.create_flow_run_from_deployment(deployment, parameters={"output": "/x.h5"}, name="verify x", state=Running())
        client.set_flow_run_state(run.id, Failed(message=message), force=True)
tell_of_rejects(Ingest([], output, Config()), BudgetExceeded("5 of 9 members were rejected"))
"""


def test_failures_and_rejects_over_budget_are_told_by_a_block(
    service: Service, webhook: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    address, received = webhook
    refused, made = service.python(_TOLD, address, POOL, tmp_path / "out.h5").splitlines()[-2:]
    assert refused.startswith("--notify custom-webhook/absent: found no such block")
    assert made == str(["made `h5dat: tell of failures`", "made `h5dat: tell of rejects`"])
    told = {each["subject"]: each["body"] for each in waited(lambda: received if len(received) > 1 else None)}
    assert set(told) == {"h5dat: verify output Failed", "h5dat: rejects over budget"}
    assert "verify x" in told["h5dat: verify output Failed"] and "the disk is full" in told["h5dat: verify output Failed"]
    assert "5 of 9 members were rejected" in told["h5dat: rejects over budget"]


# Credentials


_FROM_BLOCK = """
import sys
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from flows.ingest_archives import ingest_archives
from flows.credentials import use_credentials
from h5dat_lib.config import S3Options, parse
from h5dat_lib.errors import ConfigError
archive, output, key, secret, region, endpoint = sys.argv[1:]
parameters = AwsClientParameters(endpoint_url=endpoint)
AwsCredentials(aws_access_key_id=key, aws_secret_access_key=secret, region_name=region, aws_client_parameters=parameters).save("store")
for options in ({"credentials_block": "absent"}, {"credentials_block": "store", "profile": "x"}):
    try:
        use_credentials(S3Options(**options))
    except ConfigError as exc:
        print(exc)
sys.modules["prefect_aws"] = None
try:
    use_credentials(S3Options(credentials_block="store"))
except ConfigError as exc:
    print(exc)
del sys.modules["prefect_aws"]
config = parse({"s3": {"credentials_block": "store"}, "workers": 1})
state = ingest_archives([archive], output, config, return_state=True)
print(state.state_details.flow_run_id, state.name)
"""


def test_credentials_come_from_a_block_and_are_nowhere_else(service: Service, bucket: Bucket, tmp_path: Path) -> None:
    known = credentials(bucket.endpoint)
    access, secret, region = (known[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"))
    archive = bucket.put("a.zip", make_zip(tmp_path / "a.zip", words("from S3")).read_bytes())
    nothing = {name: value for name, value in known.items() if name in ("AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE")}
    given = (archive, tmp_path / "out.h5", access, secret, region, bucket.endpoint)
    absent, both, missing, ran = service.python(_FROM_BLOCK, *given, **nothing).splitlines()[-4:]
    assert "found no block `aws-credentials/absent`" in absent
    assert "found both profile and credentials_block" in both
    assert "install h5dat with its extra `aws`" in missing
    run, state = ran.split()
    assert (state, stored(tmp_path / "out.h5")) == ("Completed", ["from S3"])
    logs = service.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    seen = json.dumps([logs, service.ask(f"flow_runs/{run}"), service.artifacts(run)])
    assert logs and secret not in seen and access not in seen
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert secret not in str([dict(each) for each in file.runs()])


# Last, because they wait for what began first, and take what is deployed


def test_a_run_whose_process_is_killed_goes_on_and_has_every_row_once(service: Service, killed: Callable[[], Killed]) -> None:
    found = killed()
    assert len(found.workers) >= 2
    assert found.certificates == {str(Path(service.environment["H5DAT_HOME"]) / "one-certificate.pem")}
    run = service.until(found.run, "Completed")
    assert run["run_count"] >= 2
    assert not any(process.is_running() for process in found.workers)
    states = [state["name"] for state in service.ask(f"flow_run_states/?flow_run_id={found.run}")]
    assert "Crashed" in states and "AwaitingRetry" in states
    with h5dat_lib.open(found.output) as file:
        assert [file["images"].origin(row).member for row in range(len(file["images"]))] == [f"{n:03}.png" for n in range(KILLED)]
        assert [each["status"] for each in file.runs()] == ["killed", "done"]


def test_everything_is_served_by_one_process_which_ends_when_it_is_told_to(service: Service, bucket: Bucket, tmp_path: Path) -> None:
    output = str(tmp_path / "out.h5")
    rules = [{"name": "all", "bucket": bucket.name, "prefix": "in/", "output": output, "config": {"task_runner": "threads"}}]
    (tmp_path / "rules.json").write_text(json.dumps({"rules": rules}))
    bucket.put("in/a.zip", make_zip(tmp_path / "a.zip", {"a.png": picture()}).read_bytes())
    command = [sys.executable, "-m", "flows.cli", "serve", "--prefix", "/in", "--output", output, "--rules", str(tmp_path / "rules.json")]
    environment = service.environment | credentials(bucket.endpoint) | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with (tmp_path / "serve.log").open("wb") as log:
        serving = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        waited(lambda: "Serving" in (tmp_path / "serve.log").read_text() or serving.poll(), 120, tmp_path / "serve.log")
        [landed] = waited(lambda: runs_into(service, output), 120, tmp_path / "serve.log")
        run = service.ended(landed["id"])
        assert (run["state_name"], run["work_pool_name"]) == ("Completed", None), (tmp_path / "serve.log").read_text()
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0
    assert all(schedule[3] for each in deployments(service).values() for schedule in each["schedules"])
    with h5dat_lib.open(output) as file:
        assert len(file["images"]) == 1
