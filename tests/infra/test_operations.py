"""docs/operations.md: what it names is there: files, outputs and parameters of the stack, commands and options of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()


class Template(yaml.SafeLoader):
    """Reads a template of CloudFormation; what its functions give is not asked for."""


Template.add_multi_constructor("!", lambda loader, suffix, node: suffix)
STACK: dict[str, Any] = yaml.load((ROOT / "infra" / "cloudformation.yaml").read_text(), Template)


def test_files_that_are_named_are_there() -> None:
    assert [name for name in re.findall(r"\]\(([\w./]+\.md)", TEXT) if not (ROOT / "docs" / name).exists()] == []
    named = {name.rstrip(".") for name in re.findall(r"\binfra/[\w./-]+", TEXT)} - {"infra/.env", "infra/"}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_what_the_steps_take_from_the_stack_it_gives() -> None:
    taken = set(re.findall(r"\$\(out (\w+)\)", TEXT))
    assert taken and taken <= set(STACK["Outputs"])
    parameters = set(re.findall(r"`(\w+)=(?:Enabled|pods)", TEXT)) | {
        "AlarmTopicArn",
        "KeyArn",
        "LandingPrefix",
        "OldVersionDays",
        "UploadDays",
    }
    assert parameters <= set(STACK["Parameters"])


def test_the_settings_of_compose_in_it_are_all_that_the_sample_asks_for() -> None:
    (written,) = re.findall(r"cat > infra/\.env <<END\n(.*?)\nEND", TEXT, re.DOTALL)
    sample = (ROOT / "infra" / "env.sample").read_text()
    on_aws = set(re.findall(r"^(\w+)=", written, re.MULTILINE))
    here = set(re.findall(r"^(\w+)=", sample, re.MULTILINE))
    assert here - on_aws == {"COMPOSE_PROFILES", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # the store's
    assert on_aws - here == {"AWS_DEFAULT_REGION"}


def commands() -> list[tuple[str, set[str]]]:
    """Commands of ours with their options, wherever operations are told or set up."""
    texts = [TEXT, *(path.read_text() for path in (ROOT / "infra").rglob("*") if path.is_file() and path.suffix != ".pyc")]
    lines = [line for text in texts for line in re.findall(r"(?<!namespace )\bh5dat(?:,)? ([a-z]+\b[^`|\n#)]*)", text)]
    return [(line.split()[0].strip(","), set(re.findall(r"--[a-z-]+", line))) for line in lines if "--" in line]


def test_every_option_of_ours_is_one() -> None:
    from typer.main import get_command

    from flows.cli import app

    ours: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {option for each in command.params for option in each.opts} | {"--help"} for name, command in ours.items()}
    used = commands()
    assert used
    assert [(name, options) for name, options in used if not options <= known.get(name, set())] == []
