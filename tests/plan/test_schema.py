"""Classification: the first rule that matches wins; without rules the medium decides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import h5dat_lib
from h5dat_lib.config import Config, Schema, commented, json_schema, load, parse
from h5dat_lib.convert import by_extension
from h5dat_lib.errors import ConfigError, MemberError
from h5dat_lib.landing.rules import Rules
from h5dat_lib.plan.batches import summarise
from h5dat_lib.plan.schema import Class, Classifier, glob_regex
from tests.conftest import config, make_tar, make_zip, picture

ROOT = Path(__file__).parents[2]
PUBLISHED: dict[str, type[Config] | type[Schema] | type[Rules]] = {"config": Config, "schema": Schema, "rules": Rules}
OPTION = {"config": "", "schema": " --classes", "rules": " --rules"}


def _classifier(**schema: object) -> Classifier:
    def medium_of(path: str) -> object:
        handler = by_extension(path)
        return handler.medium if handler else None

    return Classifier(parse({"schema": schema}).schema_, medium_of)  # type: ignore[arg-type]


def test_without_rules_the_extension_gives_the_medium() -> None:
    classifier = _classifier()
    assert classifier.classify("a/b.JPG") == Class("images", "images")
    assert classifier.classify("b.json") == Class("documents", "documents")
    assert classifier.classify("c.tsv") == Class("tables", "tables")
    assert classifier.classify("d.txt") == Class("texts", "texts")
    assert classifier.classify("e.exe") is None


def test_the_first_rule_that_matches_wins() -> None:
    classifier = _classifier(
        classes=[
            {"name": "front", "medium": "images", "paths": ["**/front/*"], "extensions": ["jpg"]},
            {"name": "all", "medium": "images", "extensions": [".JPG", "png"]},
        ]
    )
    assert classifier.classify("x/front/1.jpg") == Class("front", "images")
    assert classifier.classify("x/front/1.png") == Class("all", "images")
    assert classifier.classify("x/1.jpg") == Class("all", "images")
    assert classifier.classify("x/1.json") is None


def test_unmatched_members_may_fall_back_to_their_medium() -> None:
    rules = [{"name": "front", "medium": "images", "paths": ["front/**"]}]
    assert _classifier(classes=rules, unmatched="medium").classify("a.json") == Class("documents", "documents")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.jpg", "a.jpg", True),
        ("*.jpg", "a/b.jpg", False),
        ("**/*.jpg", "a/b/c.jpg", True),
        ("**/*.jpg", "c.jpg", True),
        ("a/**", "a/b/c", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab]x", "bx", True),
        ("[!ab]x", "bx", False),
        ("a.b", "axb", False),
        ("[a-c]x", "bx", True),
        ("[c-a]x", "bx", True),
        ("[a-c]x", "-x", False),
        ("[-c]x", "-x", True),
        ("[!]", "!", True),
        ("[^a]", "^", True),
        ("[^a]", "b", False),
        ("[]", "[]", True),
        ("[[:a]]", "a]", True),
        ("[a&&b]", "&", True),
        ("[", "[", True),
    ],
)
def test_globs_stay_within_a_folder_unless_doubled(pattern: str, path: str, matches: bool) -> None:
    assert bool(re.fullmatch(glob_regex(pattern), path)) is matches


def _matches(pattern: str, path: str) -> bool:
    """A glob by its definition, one character after the other; an oracle without regular expressions."""
    if not pattern:
        return not path
    if pattern.startswith("**/"):
        return any(_matches(pattern[3:], path[at:]) for at in range(len(path) + 1) if at == 0 or path[at - 1] == "/")
    if pattern.startswith("**"):
        return any(_matches(pattern[2:], path[at:]) for at in range(len(path) + 1))
    if pattern[0] == "*":
        return _matches(pattern[1:], path) or (path[:1] not in ("", "/") and _matches(pattern, path[1:]))
    if not path:
        return False
    if pattern[0] == "[":
        end = pattern.index("]")
        wanted = pattern[1:end].removeprefix("!")
        return ((path[0] in wanted) != (pattern[1] == "!")) and _matches(pattern[end + 1 :], path[1:])
    return (path[0] == pattern[0] or (pattern[0] == "?" and path[0] != "/")) and _matches(pattern[1:], path[1:])


_PATHS = st.text("ab./\\-^\n", max_size=7)
_PATTERNS = st.lists(
    st.sampled_from(["a", "b", ".", "/", "\\", "^", "-", "*", "**", "**/", "?", "[ab]", "[!ab]", "[.]", "[^a]"]),
    max_size=6,
)


@settings(max_examples=500, deadline=None)
@given(_PATTERNS.map("".join), _PATHS)
def test_a_glob_matches_what_its_definition_says(pattern: str, path: str) -> None:
    assert bool(re.fullmatch(glob_regex(pattern), path)) is _matches(pattern, path)


_EXTENSIONS = st.lists(st.sampled_from(["jpg", ".PNG", "tar.gz", "a"]), max_size=2)
_RULES = st.tuples(_EXTENSIONS, st.lists(_PATTERNS.map("".join), max_size=2)).filter(any)


@settings(max_examples=100, deadline=None)
@given(st.lists(_RULES, min_size=1, max_size=4), _PATHS, st.sampled_from(["", ".jpg", ".Png", ".tar.gz"]))
def test_the_class_is_that_of_the_first_rule_that_matches(rules: list[tuple[list[str], list[str]]], path: str, suffix: str) -> None:
    path += suffix
    classes = [
        {"name": f"c{number}", "medium": "texts", "extensions": extensions, "paths": paths}
        for number, (extensions, paths) in enumerate(rules)
    ]
    expected = next(
        (
            Class(f"c{number}", "texts")
            for number, (extensions, paths) in enumerate(rules)
            if (not extensions or any(path.lower().endswith("." + extension.lower().removeprefix(".")) for extension in extensions))
            and (not paths or any(_matches(pattern, path) for pattern in paths))
        ),
        None,
    )
    assert _classifier(classes=classes).classify(path) == _classifier(classes=classes).classify(path) == expected


@given(st.text(st.characters(exclude_characters="*?[", exclude_categories=["Cs"]), max_size=30))
def test_a_pattern_without_wildcards_matches_itself_only(path: str) -> None:
    assert re.fullmatch(glob_regex(path), path)
    assert not re.fullmatch(glob_regex(path), path + "x")


@pytest.mark.parametrize(
    ("folder", "path", "matches"),
    [
        ("cats", "cats/1.jpg", True),
        ("cats", "a/cats/b/1.jpg", True),
        ("cats", "a/cats", False),
        ("cats", "a/wildcats/1.jpg", False),
        ("cats", "cats2/1.jpg", False),
        ("train/cats", "a/train/cats/1.jpg", True),
        ("train/cats", "train/x/cats/1.jpg", False),
        ("train/cats/", "train/cats/1.jpg", True),
        ("/train", "train/1.jpg", True),
        ("/train", "a/train/1.jpg", False),
        ("shard-*", "a/shard-07/1.jpg", True),
    ],
)
def test_a_folder_is_found_at_any_depth_or_with_a_slash_at_the_top(folder: str, path: str, matches: bool) -> None:
    classifier = _classifier(classes=[{"name": "c", "medium": "images", "folders": [folder]}])
    assert (classifier.classify(path) is not None) is matches


@pytest.mark.parametrize(
    ("types", "path", "head", "matches"),
    [
        (["png"], "a.jpg", picture(), True),
        (["image/png"], "a", picture(), True),
        (["image/*"], "a", picture(format="BMP"), True),
        (["jpeg", "image/gif"], "a.png", picture(), False),
        (["image/jpeg"], "a.png", picture(), False),
        (["json"], "a.json", b"{}", True),
        (["application/json"], "a.csv", b"a,b", False),
        (["text/*"], "a.txt", b"hello", True),
        (["text/csv"], "a.csv", b"a,b", True),
        (["image/*"], "a.txt", b"hello", False),
    ],
)
def test_a_type_is_decided_by_the_first_bytes(types: list[str], path: str, head: bytes, matches: bool) -> None:
    classifier = _classifier(classes=[{"name": "c", "medium": "images", "types": types}])
    assert (classifier.classify(path, lambda: head) is not None) is matches


def test_a_member_is_opened_only_for_a_rule_with_types_whose_other_conditions_hold() -> None:
    def head() -> bytes:
        raise MemberError("opened")

    rules = [
        {"name": "png", "medium": "images", "folders": ["pictures"], "types": ["png"]},
        {"name": "rest", "medium": "images", "extensions": ["png"]},
    ]
    classifier = _classifier(classes=rules)
    assert classifier.classify("a/1.png", head) == Class("rest", "images")
    with pytest.raises(MemberError, match="opened"):
        classifier.classify("pictures/1.png", head)


def test_a_type_that_there_is_none_of_is_named() -> None:
    with pytest.raises(ConfigError, match=r"class 'c': found type 'pgn', expected a MIME type .* png"):
        _classifier(classes=[{"name": "c", "medium": "images", "types": ["pgn"]}])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            {"classes": [{"name": "a", "medium": "texts", "paths": ["*"]}, {"name": "a/b", "medium": "texts", "paths": ["*"]}]},
            "'a/b' lies within",
        ),
        ({"classes": [{"name": "images/a", "medium": "images", "paths": ["*"]}], "unmatched": "medium"}, "'images/a' lies within"),
        ({"classes": [{"name": "lineage/a", "medium": "images", "paths": ["*"]}]}, "'lineage'"),
        ({"classes": [{"name": "a/_b", "medium": "images", "paths": ["*"]}]}, "classes.0.name"),
        ({"classes": [{"name": "a/" * 31 + "ab", "medium": "images", "paths": ["*"]}]}, "classes.0.name"),
        ({"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "x"}]}]}, "either folder, file or split"),
        ({"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "x", "folder": 1, "key": "k"}]}]}, "no key"),
        (
            {"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "x", "file": "{key}.json"}]}]},
            "needs a value",
        ),
        ({"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "pixels", "folder": 1}]}]}, "'pixels' bears"),
        (
            {"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "x", "folder": n} for n in (1, 2)]}]},
            "'x' bears",
        ),
        (
            {"classes": [{"name": "a", "medium": "images", "paths": ["*"], "labels": [{"name": "x", "file": "a.csv", "key": "k"}]}]},
            "a value",
        ),
    ],
)
def test_a_schema_that_cannot_be_is_refused_with_its_class(schema: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse({"schema": schema})


def test_a_class_may_lie_in_groups_of_others(tmp_path: Path) -> None:
    rules = [
        {"name": "train/images", "medium": "images", "folders": ["/train"]},
        {"name": "test/images", "medium": "images", "folders": ["/test"]},
        {"name": "train/notes", "medium": "documents", "extensions": ["json"]},
    ]
    members = {
        "train/1.png": picture(seed=1),
        "train/2.png": picture(seed=2),
        "test/1.png": picture(seed=3),
        "x/1.json": b'{"a": {"b": 1}}',
    }
    settings, output = config(schema={"classes": rules}), tmp_path / "out.h5"
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), output, settings)
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"train/3.png": picture(width=9)}), output, settings)  # dense becomes ragged
    with h5dat_lib.open(output) as file:
        assert file.classes == ("test/images", "train/images", "train/notes")
        assert [entry["name"] for entry in file.describe()["classes"]] == list(file.classes)
        assert [file["train/images"].origin(row).member for row in range(3)] == ["train/1.png", "train/2.png", "train/3.png"]
        assert file["train/images"].pixels[2].shape == (6, 9, 3)
        assert file["train/notes"].pairs(0) == [("a.b", "1", "integer")]
        assert "train" not in file
    assert not h5dat_lib.verify(output).mismatches
    assert h5dat_lib.ingest(tmp_path / "b.zip", output, settings).batches == 0
    with h5py.File(output) as plain:
        assert plain["test/images/pixels"].shape == (1, 6, 8, 3)


def test_a_changed_chunk_of_a_class_in_a_group_is_located(tmp_path: Path) -> None:
    rules = [{"name": "a/b/texts", "medium": "texts", "extensions": ["txt"]}]
    output = tmp_path / "out.h5"
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"1.txt": b"one", "2.txt": b"two"}), output, config(schema={"classes": rules}))
    with h5py.File(output, "r+") as plain:
        plain["a/b/texts/text/length"][1] = np.uint64(2)
    [found] = h5dat_lib.verify(output).mismatches
    assert (found.table, found.column, found.member) == ("a/b/texts", "text", "1.txt")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_are_classified_by_their_first_bytes(tmp_path: Path, make: object) -> None:
    rules = [
        {"name": "png", "medium": "images", "types": ["png"]},
        {"name": "other", "medium": "images", "types": ["image/*"]},
    ]
    members = {"a.bin": picture(), "b": picture(format="BMP"), "c.png": picture(format="GIF"), "d.txt": b"text"}
    archive = make(tmp_path / ("a.zip" if make is make_zip else "a.tar.gz"), members)  # type: ignore[operator]
    summary = summarise(str(archive), config(schema={"classes": rules}))
    assert {entry.name: entry.members for entry in summary.classes} == {"png": 1, "other": 2, "": 1}


def test_a_member_whose_first_bytes_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.png": picture(), "b.png": picture(seed=1)})
    data = bytearray(archive.read_bytes())
    data[60:80] = bytes(20)
    archive.write_bytes(data)
    settings = config(schema={"classes": [{"name": "png", "medium": "images", "types": ["png"]}]})
    h5dat_lib.ingest(archive, tmp_path / "out.h5", settings)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert len(file["png"]) == 1
        assert [(reject.member, reject.stage) for reject in file.rejects()] == [("a.png", "plan")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_json_schema_is_up_to_date(name: str) -> None:
    published = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(PUBLISHED[name]), f"h5dat config schema{OPTION[name]} > docs/{name}.schema.json"


def test_the_samples_and_the_commented_configuration_agree_with_the_published_json_schemas() -> None:
    for path in [*(ROOT / "samples" / "schemas").glob("*.json"), ROOT / "samples" / "fashion_schema.json"]:
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), json_schema(Schema))
    for path in (ROOT / "samples" / "configs").glob("*.json"):
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), json_schema(Config))
    jsonschema.validate(json.loads(commented()), json_schema(Config))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"clases": []}, json_schema(Schema))


def test_a_file_may_name_its_json_schema(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"$schema": "config.schema.json", "image": {"$schema": "x", "color": "L"}}')
    (tmp_path / "s.json").write_text('{"$schema": "schema.schema.json", "unmatched": "medium"}')
    settings = load(tmp_path / "c.json", tmp_path / "s.json")
    assert (settings.image.color, settings.schema_.unmatched) == ("L", "medium")


def test_every_schema_in_the_documents_is_valid() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "schema.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks and [Classifier(parse({"schema": json.loads(block)}).schema_, lambda path: None) for block in blocks]
