"""infra/cloudformation.yaml: what cfn-lint says of it, what it allows, and what happens when it is deployed to the double of AWS.

The double makes the queues, roles and policies of a template, but of a bucket nothing but the bucket. So the stack's own notification,
resolved by the double, is set by a request, as CloudFormation itself does it; what else is left out is looked at in the resolved template.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest

from tests.servers import REGION, boto

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra" / "cloudformation.yaml"
ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/8c1e3a52-0000-4000-8000-000000000000"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:people"

# What the double has no resources for: policies of buckets and queues
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


@dataclass(frozen=True)
class Stack:
    """A deployed stack; ``endpoint`` is where its services are."""

    name: str
    endpoint: str

    @property
    def output(self) -> dict[str, str]:
        (found,) = client("cloudformation", self.endpoint).describe_stacks(StackName=self.name)["Stacks"]
        return {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}

    @property
    def _resources(self) -> Any:
        from moto.cloudformation.models import cloudformation_backends

        return cloudformation_backends[ACCOUNT][REGION].get_stack(self.name).resource_map

    def resolved(self, resource: str) -> dict[str, Any]:
        """The properties of a resource, with references and conditions put in by the double."""
        from moto.cloudformation.parsing import clean_json

        found: dict[str, Any] = clean_json(self._resources._resource_json_map[resource]["Properties"], self._resources)
        return found

    def physical(self, resource: str) -> str:
        """What a resource is called in AWS."""
        return str(self._resources[resource].physical_resource_id)

    def made(self) -> set[str]:
        """Logical names of what a stack with these parameters has."""
        resources = self._resources
        wanted = {name: each.get("Condition") for name, each in resources._resource_json_map.items()}
        return {name for name, condition in wanted.items() if condition is None or resources.lazy_condition_map[condition]}

    def statements(self, resource: str) -> list[dict[str, Any]]:
        """What the policy document of a resource says; actions and resources as lists."""
        found = self.resolved(resource)["PolicyDocument"]["Statement"]
        return [each | {name: _listed(each[name]) for name in ("Action", "Resource")} for each in found]

    def allows(self, policy: str, action: str, arn: str) -> bool:
        return any(
            statement["Effect"] == "Allow"
            and any(fnmatchcase(action, pattern) for pattern in statement["Action"])
            and any(fnmatchcase(arn, pattern) for pattern in statement["Resource"])
            for statement in self.statements(policy)
        )

    def arn(self, place: str) -> str:
        """``landing``, ``landing/*`` and the like, ``queue`` and ``dead letters`` to the ARN."""
        if place in ("queue", "dead letters"):
            return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}-{'landed' if place == 'queue' else 'dead-letters'}"
        bucket, _, key = place.partition("/")
        name = self.output[f"{bucket.capitalize()}Bucket"]
        return f"arn:aws:s3:::{name}/{key}" if key else f"arn:aws:s3:::{name}"


@functools.cache
def client(service: str, endpoint: str) -> Any:
    """One of each: making a client takes longer than what is asked of it."""
    return boto(service, endpoint)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def deploy(endpoint: str, **parameters: str) -> Stack:
    stack = Stack(f"h5dat-{uuid.uuid4().hex[:8]}", endpoint)
    client("cloudformation", endpoint).create_stack(
        StackName=stack.name,
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    return stack


@pytest.fixture(scope="module")
def stack(moto: str) -> Stack:
    """A stack with all that can be asked for."""
    return deploy(moto, KeyArn=KEY, AlarmTopicArn=TOPIC, LandingPrefix="incoming/", Versioning="Enabled", Receives="2")


@pytest.fixture(scope="module")
def plain(moto: str) -> Stack:
    """A stack with nothing but the defaults."""
    return deploy(moto)


@pytest.fixture(scope="module")
def added(moto: str) -> Stack:
    """A stack around two buckets that were there before."""
    for name in ("their-landing", "their-archive"):
        client("s3", moto).create_bucket(Bucket=name)
    return deploy(
        moto,
        ExistingLandingBucket="their-landing",
        ExistingArchiveBucket="their-archive",
        LandingPrefix="in/",
        RunsOn="pods.eks.amazonaws.com",
    )


def test_cfn_lint_has_nothing_to_say() -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--", TEMPLATE], capture_output=True, text=True
    )
    assert ran.stdout + ran.stderr == ""
    assert ran.returncode == 0


# What lands is told to the queue


def notify(stack: Stack) -> None:
    """Sets the landing bucket's notification as the template has it."""
    (found,) = stack.resolved("Landing")["NotificationConfiguration"]["QueueConfigurations"]
    configuration: dict[str, Any] = {"QueueArn": found["Queue"], "Events": [found["Event"]]}
    if "Filter" in found:
        configuration["Filter"] = {"Key": {"FilterRules": found["Filter"]["S3Key"]["Rules"]}}
    client("s3", stack.endpoint).put_bucket_notification_configuration(
        Bucket=stack.output["LandingBucket"], NotificationConfiguration={"QueueConfigurations": [configuration]}
    )


def landed(stack: Stack, queue: str = "QueueUrl") -> list[str]:
    """Keys of what a queue tells of, in one receipt after which the messages are there again."""
    answer = client("sqs", stack.endpoint).receive_message(
        QueueUrl=stack.output[queue], MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    bodies = [json.loads(message["Body"]) for message in answer.get("Messages", ())]
    return [unquote_plus(record["s3"]["object"]["key"]) for body in bodies for record in body.get("Records", ())]


def test_an_object_below_the_prefix_becomes_a_message_and_unread_ones_become_dead_letters(stack: Stack) -> None:
    notify(stack)
    for key in ("incoming/a.zip", "elsewhere/b.zip"):
        client("s3", stack.endpoint).put_object(Bucket=stack.output["LandingBucket"], Key=key, Body=b"x")
    seen = [key for _ in range(3) for key in landed(stack)]
    assert seen == ["incoming/a.zip"] * 2  # Receives
    assert landed(stack, "DeadLetterUrl") == ["incoming/a.zip"]


def test_without_a_prefix_every_object_becomes_a_message(plain: Stack) -> None:
    notify(plain)
    client("s3", plain.endpoint).put_object(Bucket=plain.output["LandingBucket"], Key="b c.tar.gz", Body=b"x")
    assert landed(plain) == ["b c.tar.gz"]


def test_a_bucket_that_was_there_reports_once_its_notification_is_set_as_the_output_says(added: Stack) -> None:
    s3 = client("s3", added.endpoint)
    s3.put_bucket_notification_configuration(Bucket="their-landing", NotificationConfiguration=json.loads(added.output["SetNotification"]))
    for key in ("in/a.zip", "b.zip"):
        s3.put_object(Bucket="their-landing", Key=key, Body=b"x")
    assert landed(added) == ["in/a.zip"]


@pytest.mark.parametrize("name", ["stack", "added"])
def test_only_the_landing_bucket_of_this_account_may_send_to_the_queue(name: str, request: pytest.FixtureRequest) -> None:
    found: Stack = request.getfixturevalue(name)
    (sender,) = (each for each in found.statements("LandedQueuePolicy") if each["Effect"] == "Allow")
    assert sender["Principal"] == {"Service": "s3.amazonaws.com"}
    assert sender["Action"] == ["sqs:SendMessage"]
    assert sender["Resource"] == [found.arn("queue")]
    assert sender["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnEquals": {"aws:SourceArn": found.arn("landing")},
    }


def test_the_queue_waits_keeps_and_encrypts(plain: Stack) -> None:
    attributes = client("sqs", plain.endpoint).get_queue_attributes(QueueUrl=plain.output["QueueUrl"], AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "300"
    assert attributes["MessageRetentionPeriod"] == str(14 * 24 * 3600)
    assert attributes["ReceiveMessageWaitTimeSeconds"] == "20"
    assert attributes["SqsManagedSseEnabled"] == "true"
    assert json.loads(attributes["RedrivePolicy"]) == {"deadLetterTargetArn": plain.arn("dead letters"), "maxReceiveCount": 5}
    assert plain.resolved("DeadLetters")["RedriveAllowPolicy"]["sourceQueueArns"] == [plain.arn("queue")]


# Buckets


@pytest.mark.parametrize("bucket", ["Landing", "Archive"])
def test_a_bucket_is_private_encrypted_and_rid_of_unfinished_uploads(stack: Stack, plain: Stack, bucket: str) -> None:
    found = stack.resolved(bucket)
    assert found["PublicAccessBlockConfiguration"] == dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
    )
    assert found["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert _encryption(found) == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert _encryption(plain.resolved(bucket)) == {"SSEAlgorithm": "AES256"}
    assert found["VersioningConfiguration"] == {"Status": "Enabled"}
    assert plain.resolved(bucket)["VersioningConfiguration"] == {"Status": "Suspended"}
    rules = {rule["Id"]: rule for rule in found["LifecycleConfiguration"]["Rules"] if rule["Status"] == "Enabled"}
    assert rules["unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}


def _encryption(bucket: dict[str, Any]) -> dict[str, str]:
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    found: dict[str, str] = rule["ServerSideEncryptionByDefault"]
    return found


@pytest.mark.parametrize(("policy", "places"), [
    ("LandingPolicy", ["landing", "landing/*"]),
    ("ArchivePolicy", ["archive", "archive/*"]),
    ("LandedQueuePolicy", ["queue"]),
    ("DeadLettersPolicy", ["dead letters"]),
])  # fmt: skip
def test_nothing_goes_in_clear(stack: Stack, policy: str, places: list[str]) -> None:
    (denied,) = (each for each in stack.statements(policy) if each["Effect"] == "Deny")
    assert denied["Principal"] == "*"
    assert denied["Action"] in (["s3:*"], ["sqs:*"])
    assert denied["Resource"] == [stack.arn(place) for place in places]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_buckets_outlive_the_stack(plain: Stack) -> None:
    for name in ("Landing", "Archive"):
        made = plain._resources._resource_json_map[name]
        assert (made["DeletionPolicy"], made["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_buckets_that_were_there_are_not_made_and_not_changed(added: Stack) -> None:
    assert added.made() & {"Landing", "LandingPolicy", "Archive", "ArchivePolicy"} == set()
    assert (added.output["LandingBucket"], added.output["ArchiveBucket"]) == ("their-landing", "their-archive")


def test_an_alarm_is_there_for_who_asks(stack: Stack, plain: Stack) -> None:
    assert "DeadLettersAlarm" not in plain.made()
    alarm = stack.resolved("DeadLettersAlarm")
    assert alarm["AlarmActions"] == [TOPIC]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": f"{stack.name}-dead-letters"}]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)


# What may be done

WORKER = {
    ("GetObject", "landing/a.zip"), ("HeadObject", "landing/a.zip"), ("ListObjectsV2", "landing"),
    ("GetObject", "archive/a.h5"), ("HeadObject", "archive/a.h5"), ("ListObjectsV2", "archive"),
    ("PutObject", "archive/a.h5"), ("CreateMultipartUpload", "archive/a.h5"), ("UploadPart", "archive/a.h5"),
    ("UploadPartCopy", "archive/a.h5"), ("CompleteMultipartUpload", "archive/a.h5"), ("AbortMultipartUpload", "archive/a.h5"),
    ("ListParts", "archive/a.h5"), ("ListMultipartUploads", "archive"),
}  # fmt: skip
WATCHER = {
    ("ReceiveMessage", "queue"), ("DeleteMessage", "queue"), ("DeleteMessageBatch", "queue"), ("ChangeMessageVisibility", "queue"),
    ("ChangeMessageVisibilityBatch", "queue"), ("GetQueueAttributes", "queue"), ("GetQueueUrl", "dead letters"),
    ("SendMessage", "dead letters"), ("HeadObject", "landing/a.zip"), ("GetObject", "landing/a.zip"), ("ListObjectsV2", "landing"),
}  # fmt: skip
NOBODY = {
    ("PutObject", "landing/a.zip"), ("DeleteObject", "landing/a.zip"), ("PutBucketNotification", "landing"),
    ("DeleteObject", "archive/a.h5"), ("DeleteObjectVersion", "archive/a.h5"), ("PutBucketPolicy", "archive"), ("DeleteBucket", "archive"),
    ("SendMessage", "queue"), ("PurgeQueue", "queue"), ("DeleteQueue", "queue"),
    ("ReceiveMessage", "dead letters"), ("DeleteMessage", "dead letters"),
}  # fmt: skip
ONLY_WORKERS = {("GetObject", "archive/a.h5"), ("PutObject", "archive/a.h5"), ("ListObjectsV2", "archive")}

_NEEDS = {
    "HeadObject": "s3:GetObject", "ListObjectsV2": "s3:ListBucket", "HeadBucket": "s3:ListBucket", "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject", "UploadPartCopy": "s3:PutObject", "CompleteMultipartUpload": "s3:PutObject", "CopyObject": "s3:PutObject",
    "ListParts": "s3:ListMultipartUploadParts", "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}  # fmt: skip
"""Requests of S3 whose permission has another name (Service Authorization Reference, Amazon S3)."""


def needs(request: str, place: str) -> str:
    """The action that a request to a place is allowed by."""
    if place in ("queue", "dead letters"):
        return f"sqs:{request.removesuffix('Batch')}"
    return _NEEDS.get(request, f"s3:{request}")


@pytest.mark.parametrize("name", ["stack", "plain", "added"])
def test_who_works_may_do_its_work_and_no_more(name: str, request: pytest.FixtureRequest) -> None:
    found: Stack = request.getfixturevalue(name)

    def may(policy: str, requests: set[tuple[str, str]]) -> set[tuple[str, str]]:
        return {each for each in requests if found.allows(policy, needs(*each), found.arn(each[1]))}

    assert may("WorkerPolicy", WORKER) == WORKER
    assert may("WatcherPolicy", WATCHER) == WATCHER
    assert may("WorkerPolicy", NOBODY | {("ReceiveMessage", "queue")}) == set()
    assert may("WatcherPolicy", NOBODY | ONLY_WORKERS) == set()


def requests_made(*packages: str) -> set[str]:
    """Names of the requests that code makes: names of methods of clients of S3 and SQS in it, called or handed on to be called."""
    clients = (client(service, "http://127.0.0.1:1") for service in ("s3", "sqs"))
    operations = {method: name for each in clients for method, name in each.meta.method_to_api_mapping.items()}
    texts = (path.read_text() for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return {operations[word] for text in texts for word in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", text) if word in operations}


def test_each_request_that_the_code_makes_is_among_those_that_are_allowed() -> None:
    assert {"PutObject", "UploadPartCopy", "AbortMultipartUpload"} <= requests_made("h5dat_lib")  # it finds what is there
    assert requests_made("h5dat_lib", "tasks", "flows") - {request for request, _ in WORKER | WATCHER} == set()


@pytest.mark.parametrize("policy", ["WorkerPolicy", "WatcherPolicy"])
def test_nothing_is_allowed_for_everything(stack: Stack, policy: str) -> None:
    for statement in stack.statements(policy):
        assert [action for action in statement["Action"] if "*" in action] == []
        assert [arn for arn in statement["Resource"] if arn.split(":", 5)[5].split("/")[0] in ("", "*")] == []


def test_a_key_may_be_used_by_who_needs_it(stack: Stack, plain: Stack) -> None:
    assert plain.made() & {"KeyPolicy", "WatcherKeyPolicy"} == set()
    uses = {"KeyPolicy": ["kms:Decrypt", "kms:GenerateDataKey"], "WatcherKeyPolicy": ["kms:Decrypt"]}
    roles = {"KeyPolicy": {"WorkerRole", "MachineRole"}, "WatcherKeyPolicy": {"WatcherRole"}}
    for policy, actions in uses.items():
        (statement,) = stack.statements(policy)
        assert (statement["Action"], statement["Resource"]) == (actions, [KEY])
        assert set(stack.resolved(policy)["Roles"]) == {stack.physical(role) for role in roles[policy]}


def test_roles_are_taken_on_by_what_the_stack_was_made_for(plain: Stack, added: Stack) -> None:
    iam = client("iam", plain.endpoint)
    for stack, service, actions in (
        (plain, "ec2.amazonaws.com", {"sts:AssumeRole"}),
        (added, "pods.eks.amazonaws.com", {"sts:AssumeRole", "sts:TagSession"}),
    ):
        for role in ("Worker", "Watcher"):
            name = stack.output[f"{role}RoleArn"].rpartition("/")[2]
            (trust,) = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"]
            assert (trust["Principal"], set(_listed(trust["Action"]))) == ({"Service": service}, actions)
            assert stack.resolved(f"{role}Role")["ManagedPolicyArns"] == [stack.physical(f"{role}Policy")]


def test_one_machine_may_do_both(plain: Stack, added: Stack) -> None:
    profile = client("iam", plain.endpoint).get_instance_profile(InstanceProfileName=plain.output["MachineProfileName"])
    assert [role["RoleName"] for role in profile["InstanceProfile"]["Roles"]] == [plain.physical("MachineRole")]
    assert plain.resolved("MachineRole")["ManagedPolicyArns"] == [plain.physical("WorkerPolicy"), plain.physical("WatcherPolicy")]
    assert "MachineProfileName" not in added.output
