"""prefect.yaml -> the deployments in it as Prefect's own objects, with what is blank there filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # Prefect's own reader
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType

__all__ = ["FILE", "POOL", "Places", "definitions", "deployments"]

FILE = Path(__file__).with_name("prefect.yaml")
POOL = "h5dat"
"""The work pool that it names."""
_BLANK = re.compile(r"\{\{ \$(\w+) \}\}")


@dataclass(frozen=True)
class Places:
    """Where archives lie and what they go into, for the deployments that run by themselves; "" is as it was deployed before."""

    prefix: str = ""
    output: str = ""

    def fill(self, template: Any) -> Any:
        """What stands for a parameter of prefect.yaml, "" when it is blank and not known here."""
        outputs = self.output.replace("{prefix}", "**").replace("{stem}", "*")
        values = {"H5DAT_PREFIX": self.prefix, "H5DAT_OUTPUT": self.output, "H5DAT_OUTPUTS": outputs}
        blank = _BLANK.fullmatch(template) if isinstance(template, str) else None
        return values[blank[1]] if blank else template


def definitions() -> list[dict[str, Any]]:
    """The deployments of prefect.yaml as they stand there."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    return found


def deployments(client: SyncPrefectClient, places: Places, pool: str | None = None) -> list[RunnerDeployment]:
    """All of them: for the workers of a pool, or without one to be served by this process."""
    return [_deployment(each, client, places, pool) for each in definitions()]


def _deployment(each: Mapping[str, Any], client: SyncPrefectClient, places: Places, pool: str | None) -> RunnerDeployment:
    flow: Flow[..., Any] = load_flow_from_entrypoint(each["entrypoint"])
    deployment = RunnerDeployment.from_flow(
        flow,
        each["name"],
        description=each["description"],
        tags=each["tags"],
        concurrency_limit=ConcurrencyLimitConfig(**each["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,  # otherwise workers would copy the folder that this runs in
    )
    deployment.work_pool_name = pool  # None, too, is sent: it may have been one of a pool before
    deployment.job_variables = each["work_pool"]["job_variables"] if pool else {}
    own = {name: places.fill(template) for name, template in each.get("parameters", {}).items()}
    known = _known_parameters(client, deployment.full_name)
    deployment.parameters = own | (known or {}) | {name: value for name, value in own.items() if value}
    if "schedules" in each:
        ready = all(deployment.parameters[name] for name in own)
        changed = deployment.parameters != known
        deployment.schedules = [_schedule(entry, ready if changed else None) for entry in each["schedules"]]
    return deployment


def _known_parameters(client: SyncPrefectClient, name: str) -> dict[str, Any] | None:
    try:
        return client.read_deployment_by_name(name).parameters
    except ObjectNotFound:
        return None


def _schedule(entry: Mapping[str, Any], active: bool | None) -> DeploymentScheduleCreate:
    """Turned on once there is something to do (``active``); None leaves it as whoever looks at the UI has set it."""
    turned: dict[str, Any] = {} if active is None else {"active": active}
    return DeploymentScheduleCreate(slug=entry["slug"], schedule=CronSchedule(cron=entry["cron"], timezone=entry["timezone"]), **turned)
