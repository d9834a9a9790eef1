"""The predecessor's files, unchanged: its classes, groups and extensions, and an output that is made with them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.config import Compression, Config, Medium, load, parse
from h5dat_lib.convert import HANDLERS
from h5dat_lib.errors import ConfigError
from h5dat_lib.predecessor import _MEDIA
from tests.conftest import Ran, make_zip, picture

OLD = Path(__file__).parent / "data" / "predecessor"
PICTURES = ("jpg", "jpeg", "png", "bmp", "tiff", "gif", "ico", "jp2", "ppm", "pgm", "svg", "fits")


def _classes(config: Config) -> dict[str, tuple[Medium, tuple[str, ...]]]:
    return {rule.name: (rule.medium, rule.extensions) for rule in config.schema_.classes}


def test_its_sample_configuration_and_schema_load_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    settings = load(OLD / "config.json", OLD / "schema.json", workers=3)
    assert _classes(settings) == {
        "shop/images": ("images", PICTURES),
        "shop/images-documents": ("documents", ("bufr",)),
        "shop/records": ("documents", ("json",)),  # jsonl is not among its allowed_types
        "shop/records-tables": ("tables", ("csv",)),
        "shop/video": ("videos", ("mpeg", "mp4")),
        "shop/video-audio": ("audio", ("mp3",)),
    }
    assert (settings.schema_.unmatched, settings.compression, settings.workers) == ("reject", Compression(), 3)
    [note] = caplog.messages
    assert note == f"{OLD / 'config.json'}: ignored batch_process_limit, batch_chunk_size, which the predecessor had; see docs/migrating.md"


def test_files_with_strings_dots_comments_and_unknown_keys_load(caplog: pytest.LogCaptureFixture) -> None:
    settings = load(OLD / "config-short.json", OLD / "schema-short.json")
    assert _classes(settings) == {
        "images": ("images", ("jpg", "png")),
        "root/tables": ("tables", ("csv",)),
        "root/notes": ("texts", ("txt",)),
    }
    assert settings.compression.level == 2
    [note] = caplog.messages
    assert "ignored batch_process_limit, page_buffer, which" in note


def test_the_schema_of_the_version_before_loads() -> None:
    settings = load(None, OLD / "schema-before.json")
    assert _classes(settings) == {
        "shop/images": ("images", ("jpg", "png")),
        "shop/images-tables": ("tables", ("csv",)),
        "shop/records": ("documents", ("json",)),
        "shop/records-tables": ("tables", ("csv",)),
    }


def test_its_configuration_alone_limits_the_extensions_of_each_medium() -> None:
    classes = _classes(load(OLD / "config.json"))
    assert classes == {
        "images": ("images", PICTURES),
        "documents": ("documents", ("bufr", "json")),
        "videos": ("videos", ("mpeg", "mp4")),
        "audio": ("audio", ("mp3",)),
        "tables": ("tables", ("csv",)),
        "texts": ("texts", ("txt",)),
    }
    assert not load(OLD / "config-short.json").schema_.classes


def test_either_file_may_be_one_of_today(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"image": {"color": "L"}}')
    (tmp_path / "s.json").write_text('{"classes": [{"name": "a", "medium": "texts", "extensions": ["txt"]}]}')
    assert load(tmp_path / "c.json", OLD / "schema.json").image.color == "L"
    assert list(_classes(load(tmp_path / "c.json", OLD / "schema.json"))) == list(_classes(load(None, OLD / "schema.json")))
    assert list(_classes(load(OLD / "config.json", tmp_path / "s.json"))) == ["a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gzip", Compression()),
        ("lzf", Compression()),
        (1, Compression(level=1)),
        (4, Compression(level=2)),
        (9, Compression(level=3)),
        (0, Compression(filter="none")),
        (None, Compression(filter="none")),
    ],
)
def test_a_compression_of_h5py_becomes_one_of_today(tmp_path: Path, value: object, expected: Compression) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"dataset_compression": value}))
    assert load(tmp_path / "c.json").compression == expected


@pytest.mark.parametrize(
    ("config", "schema", "words"),
    [
        ({"dataset_compression": "zip"}, {}, "dataset_compression: found 'zip'"),
        ({}, {"files": {"outgoing": {}}}, "found no class with sources in leaf_content"),
        ({}, {"leaf_content": {"a": {"sources": ["xyz"]}}}, "found no class with sources in leaf_content"),
        ({"batch_chunk_size": 5, "workers": 0}, {}, "workers"),
    ],
)
def test_what_cannot_be_used_of_its_files_is_named(tmp_path: Path, config: object, schema: object, words: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(config))
    (tmp_path / "s.json").write_text(json.dumps(schema))
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "c.json", tmp_path / "s.json" if schema else None)


def test_an_extension_of_its_time_is_of_the_medium_that_converts_it() -> None:
    known = {extension: medium for medium, extensions in _MEDIA.items() for extension in extensions.split()}
    converted: dict[str, set[str]] = {}
    for handler in HANDLERS:
        for extension in handler.extensions:
            converted.setdefault(extension.lstrip("."), set()).add(handler.medium)
    assert {extension: medium for extension, medium in known.items() if medium not in converted.get(extension, {medium})} == {}


def test_an_archive_is_ingested_with_its_files(tmp_path: Path, h5dat: Callable[..., Ran]) -> None:
    members = {
        "shop/pictures/1.png": picture(),
        "shop/pictures/2.JPG": picture(format="JPEG"),
        "shop/records/1.json": b'{"id": 1, "name": "hat"}',
        "shop/styles.csv": b"id,name\n1,hat\n",
        "shop/readme.txt": b"of no class",
        "shop/more.jsonl": b"{}\n",
    }
    archive, output = make_zip(tmp_path / "shop.zip", members), tmp_path / "shop_filestore.h5"
    files = ("--config", OLD / "config.json", "--schema", OLD / "schema.json")
    ran = h5dat("ingest", archive, "-o", output, "--direct", "--workers", 1, *files)
    assert ran.code == 0
    with h5dat_lib.open(output) as file:
        assert file.classes == ("shop/images", "shop/records", "shop/records-tables")
        assert sorted(reject.member for reject in file.rejects()) == ["shop/more.jsonl", "shop/readme.txt"]
        assert file["shop/records-tables"]["name"][:] == ["hat"]
    with h5py.File(output) as plain:
        pixels = plain["/shop/images/pixels"]
        assert pixels.shape == (2, 6, 8, 3) and np.any(pixels[0])
    assert not h5dat_lib.verify(output).mismatches


def test_the_same_settings_in_words_of_today_can_be_kept(h5dat: Callable[..., Ran]) -> None:
    shown = h5dat("config", "show", "--config", OLD / "config.json", "--schema", OLD / "schema.json")
    assert parse(json.loads(shown.out)) == load(OLD / "config.json", OLD / "schema.json")


def test_the_note_is_one_plain_line_on_a_terminal(h5dat: Callable[..., Ran]) -> None:
    logger = logging.getLogger("h5dat_lib")
    handlers, logger.handlers, propagate, logger.propagate = logger.handlers, [], logger.propagate, False
    try:
        ran = h5dat("config", "show", "--config", OLD / "config.json")
    finally:
        logger.handlers, logger.propagate = handlers, propagate
    assert re.fullmatch(r"[^\n]*config\.json: ignored batch_process_limit, batch_chunk_size, [^\n]*\n", ran.err)
