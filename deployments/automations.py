"""What follows on events: Prefect automations whose names begin with `h5dat: `, brought to what they should be on a server."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CancelFlowRun, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.ingest_prefix import INGEST_ARCHIVE
from flows.unattended import OVER_BUDGET
from h5dat_lib.errors import ConfigError
from h5dat_lib.landing.landed import EVENT

__all__ = ["OURS", "apply"]

OURS = "h5dat: "
"""What the names of ours begin with; others are left alone."""
Labels = dict[str, str | list[str]]
_PAGE = 200
_A_RUN: Labels = {"prefect.resource.id": "prefect.flow-run.*"}
_OF_OURS: Labels = {"prefect.resource.id": ["prefect.tag.h5dat", "prefect.tag.h5dat-service"], "prefect.resource.role": "tag"}
_THAT_END: Labels = {"prefect.resource.id": "prefect.tag.h5dat", "prefect.resource.role": "tag"}
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
_BEGINS = ("Scheduled", "AwaitingRetry", "Pending", "Running")
_MISSED = timedelta(seconds=150)
"""How long a run may be silent: it says every 30 s that it is there."""
_SETTLED = timedelta(seconds=30)
"""How long a run is left crashed: its worker tells of the crash twice, and would end a run that has begun anew between."""
_CAN_GO_ON: Labels = {
    "prefect.run-count": ["1", "2", "3"],
    "prefect.state-message": "!*status code* 1.*",
}
"""Of a crashed run: it had begun, not often, and was not ended by an error of the program such as a missing package, which would come again
before the run begins, for ever."""
_LONGEST = timedelta(days=7)
"""How long a run may take. Not the flow's own timeout, which takes whatever interrupts a run for itself, the loss of a lease too."""
_OVER_BUDGET_MESSAGE = "Flow run encountered an exception: BudgetExceeded*"


def apply(client: SyncPrefectClient, notify: str | None = None) -> list[str]:
    """Makes the automations on the server what they should be, and says what it did; nothing when they are.

    ``notify`` names a block, ``type/name``, by which somebody is told of failures; without one it is as it was. Raises ConfigError when
    there is no such block.
    """
    there = [automation for automation in _all(client) if automation.name.startswith(OURS)]
    block = _block(client, notify) if notify else _block_of(there)
    wanted = _wanted(client.read_deployment_by_name(INGEST_ARCHIVE).id) + (_notifications(block) if block else [])
    done = [line for each in wanted for line in _made_so(client, each, [found for found in there if found.name == each.name])]
    for unwanted in (found for found in there if found.name not in {each.name for each in wanted}):
        client.delete_automation(unwanted.id)
        done.append(f"removed `{unwanted.name}`")
    return done


def _all(client: SyncPrefectClient) -> list[Automation]:
    found: list[Automation] = []
    while page := client.read_automations(limit=_PAGE, offset=len(found)):
        found += page
    return found


def _made_so(client: SyncPrefectClient, wanted: AutomationCore, found: list[Automation]) -> list[str]:
    for double in found[1:]:
        client.delete_automation(double.id)
    if not found:
        client.create_automation(wanted)
        return [f"made `{wanted.name}`"]
    if _content(found[0]) == _content(wanted):
        return []
    client.update_automation(found[0].id, wanted)
    return [f"changed `{wanted.name}`"]


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What can be compared; whether it is switched on is for whoever looks at the UI."""
    return automation.model_dump(exclude={"id", "enabled", "owner_resource", "tags"})


def _wanted(ingest_archive: UUID) -> list[AutomationCore]:
    again = "its process has ended; the run goes on from the last commit"
    parameters = {
        "archives": ["{{ event.payload.archive }}"],
        "output": "{{ event.payload.output }}",
        "config": "{{ (event.payload.config or {}) }}",
    }
    return [
        _automation(
            "ingest what lands",
            f"On the event {EVENT} with the label h5dat.via: automation, runs ingest-archive.",
            _on(EVENT, {"h5dat.via": "automation"}),
            RunDeployment(source="selected", deployment_id=ingest_archive, parameters=parameters, job_variables=None),
        ),
        _automation(
            "miss silent runs",
            "A run that no longer says that it is there has crashed: its machine went down, or its worker did.",
            _unless(("heartbeat",), ("heartbeat", *_ENDS), _MISSED),
            ChangeFlowRunState(name=None, state=StateType.CRASHED, message="it was not heard of any more", force=False),
        ),
        _automation(
            "go on after a crash",
            "A run whose process has ended is scheduled again, at most three times.",
            _unless(("Crashed",), _BEGINS, _SETTLED, _CAN_GO_ON),
            ChangeFlowRunState(name="AwaitingRetry", state=StateType.SCHEDULED, message=again, force=False),
        ),
        _automation(
            "end what takes a week",
            "A run that has not ended after seven days is cancelled; its output can be read, and another run goes on with it.",
            _unless(("Running",), _ENDS, _LONGEST, related=_THAT_END),
            CancelFlowRun(type="cancel-flow-run"),  # said, because only what is set is sent
        ),
    ]


def _notifications(block: UUID) -> list[AutomationCore]:
    failed = _on(_FAILED, {**_A_RUN, "prefect.state-message": f"!{_OVER_BUDGET_MESSAGE}"}, _OF_OURS)
    state = "{{ event.resource['prefect.state-name'] }}: {{ event.resource['prefect.state-message'] }}"
    return [
        _automation(
            "tell of failures",
            "A run failed or crashed.",
            failed,
            SendNotification(
                block_document_id=block,
                subject="h5dat: {{ flow.name }} {{ event.resource['prefect.state-name'] }}",
                body="{{ flow_run.name }}\n" + state + "\n{{ flow_run | ui_url }}",
            ),
        ),
        _automation(
            "tell of rejects",
            "More was rejected than `max_rejects` allows.",
            _on(OVER_BUDGET, {"prefect.resource.id": "h5dat.output.*"}),
            SendNotification(
                block_document_id=block,
                subject="h5dat: rejects over budget",
                body="{{ event.payload.message }}\n{{ flow_run | ui_url }}",
            ),
        ),
    ]


_FAILED = ("prefect.flow-run.Failed", "prefect.flow-run.TimedOut", "prefect.flow-run.Crashed")


def _on(events: str | Iterable[str], match: Labels, related: Labels | None = None) -> EventTrigger:
    """Whenever one of these events happens."""
    expect = {events} if isinstance(events, str) else set(events)
    return EventTrigger(match=match, match_related=related or {}, expect=expect, posture=Posture.Reactive, threshold=1)


def _unless(
    after: Iterable[str], expected: Iterable[str], within: timedelta, match: Labels | None = None, related: Labels = _OF_OURS
) -> EventTrigger:
    """When a run of ours entered one of the first states, and has not entered one of the others for a time."""
    return EventTrigger(
        match=_A_RUN | (match or {}),
        match_related=related,
        for_each={"prefect.resource.id"},
        after={f"prefect.flow-run.{state}" for state in after},
        expect={f"prefect.flow-run.{state}" for state in expected},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )


def _automation(name: str, description: str, trigger: EventTrigger, action: ActionTypes) -> AutomationCore:
    return AutomationCore(name=OURS + name, description=description, trigger=trigger, actions=[action])


def _block(client: SyncPrefectClient, notify: str) -> UUID:
    kind, _, name = notify.partition("/")
    try:
        return client.read_block_document_by_name(name, kind).id
    except ObjectNotFound as exc:
        raise ConfigError(
            f"--notify {notify}: found no such block, expected its type/name, as slack-webhook/ops; make it in the UI"
        ) from exc


def _block_of(automations: list[Automation]) -> UUID | None:
    """The block that notifications are sent by already."""
    actions = (action for automation in automations for action in automation.actions)
    return next((action.block_document_id for action in actions if isinstance(action, SendNotification)), None)
