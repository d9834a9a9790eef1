"""Configuration and schema of the toolkit that came before -> the same settings, as `config` has them. docs/migrating.md has the table.

Its schema says which groups an output has, and which extensions are of which class (``leaf_content``); its configuration, which
extensions are pictures and videos, and which are taken at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from h5dat_lib.errors import ConfigError

KEYS = frozenset(
    ("batch_process_limit", "batch_chunk_size", "dataset_compression", "image_extensions", "video_extensions", "allowed_types")
)
"""What makes a configuration one of the predecessor's."""
_TRANSLATED = KEYS - {"batch_process_limit", "batch_chunk_size"}
_MEDIA = {
    "images": "jpg jpeg jpe jfif png bmp dib tif tiff gif webp avif ico cur icns pcx dcx pxr ppm pgm pbm pnm sgi rgb tga blp jp2 j2k j2c "
    "jpc jpx jpf eps fits svg svgz heic heif qoi dds psd",
    "videos": "mp4 mov m4v mkv webm avi mpeg mpg ts wmv",
    "audio": "mp3 wav flac ogg oga opus m4a aac",
    "documents": "json jsonl ndjson bufr",
    "tables": "csv tsv tab",
    "texts": "txt md xml html htm yaml yml",
}
_MEDIUM = {extension: medium for medium, extensions in _MEDIA.items() for extension in extensions.split()}
"""What extensions are, whatever the predecessor took them for: it opened MP3 as video, and BUFR as pictures."""


def is_config(data: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of the predecessor's."""
    return not KEYS.isdisjoint(data)


def is_schema(data: Mapping[str, Any]) -> bool:
    """Whether a schema is one of the predecessor's."""
    return "leaf_content" in data or isinstance(data.get("files"), Mapping)


def translated(
    config: Mapping[str, Any], schema: Mapping[str, Any] | None, known: Iterable[str], source: str
) -> tuple[dict[str, Any], str]:
    """A configuration and a schema, either or both of the predecessor's -> the configuration, and a line on what of it is ignored.

    ``known`` are the keys of today, which may stand among the others. Raises ConfigError when a schema has no classes.
    """
    settings = {key: value for key, value in config.items() if key in known}
    allowed = _extensions(config.get("allowed_types"))
    listed = {
        extension: medium
        for medium, key in (("videos", "video_extensions"), ("images", "image_extensions"))
        for extension in _extensions(config.get(key))
    }
    if "dataset_compression" in config:
        settings.setdefault("compression", _compression(config["dataset_compression"], source))
    if schema is not None:
        settings["schema"] = _schema(schema, allowed, listed, source) if is_schema(schema) else schema
    elif allowed and "schema" not in settings:
        settings["schema"] = {"classes": [_rule(medium, medium, found) for medium, found in _by_medium(allowed, listed).items()]}
    if not is_config(config):
        return {**config, **settings}, ""
    ignored = [key for key in config if key not in known and key not in _TRANSLATED and not _is_comment(key)]
    return settings, f"{source}: ignored {', '.join(ignored)}, which the predecessor had; see docs/migrating.md" if ignored else ""


def _is_comment(key: str) -> bool:
    return key.startswith(("//", "$", "#", "_"))


def _extensions(value: Any) -> tuple[str, ...]:
    """Extensions without dots, in lower case, of a list or a string of them."""
    found = re.split(r"[\s,;]+", value) if isinstance(value, str) else [entry for entry in value or () if isinstance(entry, str)]
    return tuple(dict.fromkeys(entry.strip().lower().lstrip("*.") for entry in found if entry.strip(" .*")))


def _compression(value: Any, source: str) -> dict[str, Any]:
    """What h5py takes as ``compression``: gzip, a number for its level, lzf, or nothing. Level 9 of gzip is 3 of ISA-L's."""
    if value in (None, False, "", "none", "None") or (value == 0 and not isinstance(value, bool)):
        return {"filter": "none"}
    if isinstance(value, int):
        return {"filter": "deflate", "level": min((value + 2) // 3, 3)}
    if value in ("gzip", "lzf", "szip"):
        return {"filter": "deflate"}
    raise ConfigError(f"{source}: dataset_compression: found {value!r}, expected gzip, lzf, a level from 0 to 9, or null")


def _schema(data: Mapping[str, Any], allowed: tuple[str, ...], listed: Mapping[str, str], source: str) -> dict[str, Any]:
    leaves = {name.strip("/"): _sources(content) for name, content in _part(data, "leaf_content").items() if not _is_comment(name)}
    groups, locations = _groups(data), _part(data, "location_leaf_map")
    paths = {name: _path(name, groups, locations) for name in leaves}
    rules = [
        _rule(_class_name(_own_path(name, paths), medium, next(iter(media))), medium, extensions)
        for name, sources in leaves.items()
        if (media := _by_medium([extension for extension in sources if not allowed or extension in allowed], listed))
        for medium, extensions in media.items()
    ]
    if not rules:
        raise ConfigError(
            f"{source}: found no class with sources in leaf_content, expected at least one, such as {{'images': {{'sources': ['jpg']}}}}"
        )
    return {"classes": rules}


def _rule(name: str, medium: str, extensions: Iterable[str]) -> dict[str, Any]:
    return {"name": name, "medium": medium, "extensions": list(extensions)}


def _by_medium(extensions: Iterable[str], listed: Mapping[str, str]) -> dict[str, list[str]]:
    """Extensions by medium, that of the most first; those that nothing converts are left out."""
    media: dict[str, list[str]] = {}
    for extension in extensions:
        medium = _MEDIUM.get(extension)
        if medium in (None, "images", "videos"):
            medium = listed.get(extension, medium)
        if medium:
            media.setdefault(medium, []).append(extension)
    return dict(sorted(media.items(), key=lambda entry: -len(entry[1])))


def _sources(content: Any) -> tuple[str, ...]:
    """Extensions of a class, which older schemas have as ``applies_to``."""
    return _extensions(content.get("sources", content.get("applies_to")) if isinstance(content, Mapping) else content)


def _levels(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where parts of a schema may lie: at the top, in ``files``, in ``outgoing``, or in one of its files."""
    level: Any = data
    for key in ("files", "outgoing"):
        yield level
        level = level.get(key)
        if not isinstance(level, Mapping):
            return
    yield level
    yield from (file for file in level.values() if isinstance(file, Mapping))


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((level[name] for level in _levels(data) if isinstance(level.get(name), Mapping)), {})


def _groups(data: Mapping[str, Any]) -> dict[str, str]:
    """Group paths of all outgoing files, with the key of their location; older schemas have them the other way round."""
    entries = [entry for level in _levels(data) if isinstance(level.get("groups"), Mapping) for entry in level["groups"].items()]
    pairs = [(str(key), str(value)) for key, value in entries if not _is_comment(key)]
    return dict((value, key) if "/" in value and "/" not in key else (key, value) for key, value in pairs)


def _path(name: str, groups: Mapping[str, str], locations: Mapping[str, Any]) -> str:
    """The group path of a class: that of its location, or else one that ends with its name, or has it within; else its name."""
    location = {leaf.strip("/"): place for leaf, place in locations.items()}.get(name, "")
    fits = {path: (place == location, path.strip("/").split("/")[-1] == name, name in path) for path, place in groups.items()}
    best = max(fits, key=lambda path: fits[path], default=name)
    found = best if any(fits.get(best, ())) else name
    return "/".join(part for segment in found.split("/") if (part := _segment(segment)))


def _segment(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip("_.-")


def _own_path(name: str, paths: Mapping[str, str]) -> str:
    """The class's path, with its name below it when other classes lie there, too."""
    path = paths[name]
    shared = any(other != name and f"{place}/".startswith(f"{path}/") for other, place in paths.items())
    return f"{path}/{_segment(name)}".strip("/") if shared or not path else path


def _class_name(path: str, medium: str, main: str) -> str:
    """A class has one medium: what else is in it lies beside it, and so does what is named like another medium."""
    return path if medium == main and (path == medium or path not in _MEDIA) else f"{path}-{medium}"
