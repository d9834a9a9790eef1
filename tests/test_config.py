"""Settings: one clear line for a wrong one, comments ignored, a digest of what decides the content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from h5dat_lib.config import Config, commented, load, parse
from h5dat_lib.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"wrokers": 2}, ["wrokers"]),
        ({"workers": 0}, ["workers", "found 0"]),
        ({"image": {"color": "CMYK"}}, ["image.color", "'CMYK'"]),
        ({"schema": {"classes": [{"name": "a//b", "medium": "images", "paths": ["*"]}]}}, ["schema.classes.0.name"]),
        ({"schema": {"classes": [{"name": "lineage", "medium": "images", "paths": ["*"]}]}}, ["lineage"]),
        ({"schema": {"classes": [{"name": "a", "medium": "images"}]}}, ["paths or extensions"]),
        ({"table": {"delimiter": ";;"}}, ["table.delimiter"]),
        ({"max_rejects": 1.5}, ["max_rejects"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_found(settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(settings, "my.json")
    text = str(error.value)
    assert text.startswith("my.json: ") and "\n" not in text
    assert all(word in text for word in words), text


def test_keys_that_start_with_two_slashes_are_comments() -> None:
    assert parse({"//": "a comment", "image": {"//color": "another", "color": "L"}}).image.color == "L"


def test_the_commented_configuration_is_the_default_one() -> None:
    assert parse(json.loads(commented())) == Config()


def test_the_effective_configuration_reads_back_the_same() -> None:
    config = parse({"image": {"resize": {"width": 3, "height": 4}}, "max_rejects": 0.25, "work_dir": "/tmp"})
    assert parse(json.loads(config.to_json())) == config


def test_a_count_and_a_share_of_rejects_are_told_apart() -> None:
    assert isinstance(parse({"max_rejects": 1}).max_rejects, int)
    assert isinstance(parse({"max_rejects": 1.0}).max_rejects, float)


def test_the_digest_is_of_what_decides_the_content() -> None:
    assert parse({"workers": 3, "task_runner": "threads", "max_rejects": 2}).digest() == Config().digest()
    assert parse({"compression": {"level": 2}}).digest() != Config().digest()


def test_files_are_read_and_the_command_line_goes_before_them(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"workers": 3}')
    (tmp_path / "s.json").write_text('{"unmatched": "medium"}')
    assert load(tmp_path / "c.json", tmp_path / "s.json").schema_.unmatched == "medium"
    assert load(tmp_path / "c.json", workers=5).workers == 5
    assert load(tmp_path / "c.json", workers=None).workers == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"imagee": {}}, r"imagee: no setting 'imagee'; it has .*; did you mean 'image'\?"),
        ({"image": {"storrage": "x"}}, r"image\.storrage: no setting 'storrage'; it has storage, .*; did you mean 'storage'\?"),
        (
            {"image": {"resize": {"width": 1, "height": 1, "mod": "pad"}}},
            r"resize\.mod: no setting 'mod'; it has width, .*did you mean 'mode'\?",
        ),
        (
            {"schema": {"classes": [{"name": "a", "medium": "images", "labels": [{"from": 1}]}]}},
            r"labels\.0\.from: no setting 'from'; it has name, ",
        ),
    ],
)
def test_a_setting_that_is_none_is_answered_by_the_nearest(data: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(data)


def test_a_part_of_the_settings_is_overridden_by_its_keys(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"image": {"storage": "decoded", "color": "RGB"}}')
    image = load(tmp_path / "c.json", image={"storage": "encoded"}).image
    assert (image.storage, image.color) == ("encoded", "RGB")
    assert load(tmp_path / "c.json", image={"storage": None}).image.storage == "decoded"
    assert load(image={"storage": None}) == load()
    (tmp_path / "c.json").write_text('{"image": 5}')
    with pytest.raises(ConfigError, match="image"):
        load(tmp_path / "c.json", image={"storage": "encoded"})


@pytest.mark.parametrize("content", [None, "no json", "[1]"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigError, match=r"c\.json"):
        load(tmp_path / "c.json")


def test_credentials_in_the_url_of_an_endpoint_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"s3\.endpoint: .*found credentials in the URL") as caught:
        parse({"s3": {"endpoint": "http://key:secret@127.0.0.1:9000"}})
    assert "secret" not in str(caught.value)
