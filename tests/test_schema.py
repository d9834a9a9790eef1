"""Classification: the first rule that matches wins; without rules the medium decides."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
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
