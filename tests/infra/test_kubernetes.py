"""infra/kubernetes/base-job-template.json: valid, whole, and what Prefect expects of a work pool of type kubernetes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = json.loads((ROOT / "infra" / "kubernetes" / "base-job-template.json").read_text())
PROPERTIES: dict[str, Any] = TEMPLATE["variables"]["properties"]
DEFAULTS = {name: each["default"] for name, each in PROPERTIES.items() if "default" in each}


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """The template that Prefect itself ships for such work pools."""
    import prefect

    lists = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    found: dict[str, Any] = json.loads(lists.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    return found


def rendered(**values: object) -> dict[str, Any]:
    """The job of a flow run with these variables, by Prefect's own filling in."""
    from prefect.utilities.templating import apply_values

    found: dict[str, Any] = apply_values(TEMPLATE["job_configuration"], DEFAULTS | values)["job_manifest"]
    return found


def test_variables_are_a_schema_that_their_defaults_fulfil() -> None:
    jsonschema.Draft202012Validator.check_schema(TEMPLATE["variables"])
    jsonschema.validate(DEFAULTS, TEMPLATE["variables"])
    for wrong in ({"image_pull_policy": "Sometimes"}, {"finished_job_ttl": "long"}, {"env": {"A": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(DEFAULTS | wrong, TEMPLATE["variables"])


def test_each_variable_is_used_and_each_placeholder_is_a_variable() -> None:
    assert set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"]))) == set(PROPERTIES)


def test_it_has_all_that_prefects_own_has(own: dict[str, Any]) -> None:
    assert set(own["variables"]["properties"]) <= set(PROPERTIES)
    assert {name: own["variables"]["properties"][name]["type"] for name in own["variables"]["properties"] if name != "cluster_config"} == {
        name: PROPERTIES[name]["type"] for name in own["variables"]["properties"] if name != "cluster_config"
    }
    assert PROPERTIES["cluster_config"]["allOf"] == own["variables"]["properties"]["cluster_config"]["allOf"]
    ours, theirs = (dict(each["job_configuration"]) for each in (TEMPLATE, own))
    manifests = [each.pop("job_manifest") for each in (ours, theirs)]
    assert ours == theirs
    assert manifests[0]["metadata"] == manifests[1]["metadata"]
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in manifests]
    assert {name: containers[0][name] for name in containers[1]} == containers[1]


def test_a_pod_is_nobody_and_writes_to_its_volumes_alone() -> None:
    pod = rendered()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["restartPolicy"]) == (False, "Never")
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounted == {"working-copy": "/var/lib/h5dat", "tmp": "/tmp"}
    assert {each["name"] for each in pod["volumes"]} == set(mounted)


def test_the_pod_is_the_user_of_the_image() -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE))
    assert {rendered()["spec"]["template"]["spec"]["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {
        int(user)
    }


def test_cores_memory_and_disk_are_asked_for_and_can_be_set() -> None:
    pod = rendered(memory_limit="8Gi", working_copy_size="1Ti", storage_class="fast")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}}
    claim = pod["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "1Ti")


def test_what_has_no_value_is_left_out() -> None:
    spec = rendered()["spec"]
    assert "activeDeadlineSeconds" not in spec
    assert "storageClassName" not in spec["template"]["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert spec["ttlSecondsAfterFinished"] == 3600
