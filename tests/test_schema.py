"""Classification: the first rule that matches wins; without rules the medium decides."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.config import parse
from h5dat_lib.convert import by_extension
from h5dat_lib.schema import Class, Classifier, glob_regex


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
    ],
)
def test_globs_stay_within_a_folder_unless_doubled(pattern: str, path: str, matches: bool) -> None:
    assert bool(re.fullmatch(glob_regex(pattern), path)) is matches


@given(st.text(st.characters(exclude_characters="*?[", exclude_categories=["Cs"]), max_size=30))
def test_a_pattern_without_wildcards_matches_itself_only(path: str) -> None:
    assert re.fullmatch(glob_regex(path), path)
    assert not re.fullmatch(glob_regex(path), path + "x")
