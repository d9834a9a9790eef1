"""Rules: which object goes where, what is none of theirs, and what a wrong file of rules is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.config import json_schema
from h5dat_lib.errors import ConfigError, InputError
from h5dat_lib.landing.landed import Landed
from h5dat_lib.landing.rules import Goal, Rules, Watched, load_rules

ROOT = Path(__file__).parents[2]


def rules(*given: dict[str, Any], **more: Any) -> Rules:
    named = [{"name": f"r{number}", "bucket": "landing", "output": "s3://archive/all.h5", **rule} for number, rule in enumerate(given)]
    return Rules.model_validate({"rules": named, **more})


def output(found: Rules, key: str, bucket: str = "landing") -> str:
    goal = found.goal(Landed(bucket, key))
    return goal.output if isinstance(goal, Goal) else f"({goal})"


def test_the_first_rule_that_matches_decides() -> None:
    found = rules({"prefix": "a/", "pattern": "*.zip", "output": "one.h5"}, {"pattern": "**/*.zip", "output": "two.h5"})
    assert [output(found, key) for key in ("a/x.zip", "a/b/x.zip", "x.zip", "x.tar")] == ["one.h5", "two.h5", "two.h5", "(of no rule)"]
    assert output(found, "a/x.zip", "other") == "(of no rule)"


@pytest.mark.parametrize(
    ("template", "key", "expected"),
    [
        ("s3://archive/{stem}.h5", "in/2026/a.tar.gz", "s3://archive/a.h5"),
        ("s3://archive/{prefix}/{stem}.h5", "in/2026/x/a b.zip", "s3://archive/2026/x/a b.h5"),
        ("s3://archive/{prefix}/{stem}.h5", "in/a.zip", "s3://archive/a.h5"),
        ("s3://archive/{bucket}-{stem}.h5", "in/.zip", "s3://archive/landing-.zip.h5"),
        ("s3://archive/{prefix}.h5", "in/x/a.zip", "s3://archive/x.h5"),
        ("/data/{stem}/{stem}.h5", "in/a.b.zip", "/data/a.b/a.b.h5"),
    ],
)
def test_an_output_is_named_by_parts_of_the_key(template: str, key: str, expected: str) -> None:
    found = rules({"prefix": "in/", "output": template})
    assert output(found, key) == expected
    assert found.rules[0].may_name(expected)


@pytest.mark.parametrize("key", ["../../etc/a.zip", "a/../b.zip", "./a.zip", "in/a\0.zip"])
def test_a_key_cannot_lead_an_output_out_of_its_folder(key: str) -> None:
    with pytest.raises(InputError, match=r"rule 'r0' names its output by it"):
        output(rules({"output": "/data/{prefix}/{stem}.h5"}), key)
    assert output(rules({"output": "/data/all.h5"}), key) == "/data/all.h5"


@given(st.text(alphabet="a./é{}", min_size=1, max_size=12))
def test_whatever_a_key_is_its_output_is_known_as_one(key: str) -> None:
    found = rules({"output": "s3://landing/out/{prefix}/{stem}.h5"})
    try:
        goal = found.goal(Landed("landing", key))
    except InputError:
        return
    if isinstance(goal, Goal):
        assert goal.output.startswith("s3://landing/out/") and ".." not in goal.output.split("/")
        assert found.goal(Landed("landing", goal.output.removeprefix("s3://landing/"))) == "an output of these rules"


def test_outputs_folders_and_what_is_ignored_are_of_no_rule() -> None:
    found = rules({"output": "s3://landing/out/{stem}.h5"}, {"output": "s3://landing/x.h5"}, ignore=["**/*.tmp", "_*"])
    assert output(found, "out/a.h5") == output(found, "x.h5") == "(an output of these rules)"
    assert output(found, "out/a/b.h5") == "s3://landing/out/b.h5"
    assert output(found, "in/") == "(a folder's own entry)"
    assert output(found, "a/b.tmp") == output(found, "_x") == "(ignored)"


def test_a_configuration_is_given_in_place_or_as_a_file_beside_the_rules(tmp_path: Path) -> None:
    (tmp_path / "fashion.json").write_text('{"image": {"color": "L"}}')
    rule = {"bucket": "landing", "output": "o.h5"}
    text = {"//": "comment", "s3": {"region": "eu-west-1"}, "rules": [
        {"name": "a", **rule, "config": "fashion.json"}, {"name": "b", **rule, "config": {"s3": {"region": "us-east-1"}}}]}  # fmt: skip
    (tmp_path / "rules.json").write_text(json.dumps(text))
    found = load_rules(tmp_path / "rules.json")
    assert found.rules[0].config.image.color == "L"
    assert Rules.model_validate_json(found.model_dump_json(by_alias=True)) == found
    goal = found.goal(Landed("landing", "a.zip"))
    assert isinstance(goal, Goal) and goal.config.s3.region == "eu-west-1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ('{"rules": []}', "rules: "),
        ('{"rules": [{"name": "a", "bucket": "b", "output": "o.h5", "typo": 1}]}', "rules.0.typo: "),
        ('{"rules": [{"name": "a", "bucket": "b", "output": "s3://b/o"}]}', "rules.0.output: "),
        ('{"rules": [{"name": "a", "bucket": "b", "output": "{key}.h5"}]}', "found {key} in its output"),
        ('{"rules": [{"name": "a", "bucket": "b", "output": "o.h5", "config": "none.json"}]}', "none.json: cannot be read"),
        ('{"rules": [{"name": "a", "bucket": "b", "output": "o.h5", "config": {"workers": 0}}]}', "rules.0.config.workers: "),
        (
            '{"rules": [{"name": "a", "bucket": "b", "output": "o.h5"}, {"name": "a", "bucket": "b", "output": "p.h5"}]}',
            "rules of one name",
        ),
    ],
)
def test_a_wrong_file_of_rules_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "rules.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_rules(tmp_path / "rules.json")
    assert told in str(caught.value) and "\n" not in str(caught.value) and "rules.json" in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "samples" / "rules").glob("*.json")), ids=lambda path: path.name)
def test_the_sample_rules_agree_with_the_published_json_schema(path: Path) -> None:
    assert load_rules(path).rules
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), json_schema(Rules))


def test_a_whole_bucket_may_be_listed() -> None:
    assert Watched(prefixes=("s3://landing", "s3://landing/in/")).prefixes == ("s3://landing", "s3://landing/in/")
    with pytest.raises(ValueError, match="expected s3://bucket"):
        Watched(prefixes=("landing/",))
