"""What is watched, and rules -> which archive goes to which output, with which configuration: the first that matches an object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from h5dat_lib.archive.packed import stem
from h5dat_lib.config import Config, S3Options, Settings, checked, load, read_json
from h5dat_lib.errors import ConfigError, InputError
from h5dat_lib.landing.landed import Landed
from h5dat_lib.plan.schema import glob_regex

__all__ = ["Goal", "Rule", "Rules", "Via", "Watched", "load_rules"]

_PLACEHOLDER = re.compile(r"(\{prefix\}/?|\{\w*\})")
_PLACEHOLDERS = {"{bucket}": "[^/]+", "{stem}": "[^/]+", "{prefix}": "(?s:.*)", "{prefix}/": "(?s:.*/)?"}
"""What may stand for a part of an output, and what each can be; the slash behind no folders is left out."""


def _read_config(value: Any, info: ValidationInfo) -> Any:
    """The configuration in the file that a rule names, from the folder of the rules on."""
    if not isinstance(value, str | Path):
        return value
    try:
        return load((info.context or {}).get("folder", Path()) / value)
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc


class Rule(Settings):
    """Which objects of a bucket go to an output."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """What logs call the rule."""
    bucket: Annotated[str, Field(min_length=1)]
    """Where archives land."""
    prefix: str = ""
    """What their keys begin with, with its slash if it is a folder."""
    pattern: str = "**"
    """What the rest of the key is like: `*` and `?` stay within a folder, `**/` is any folders, `[..]` a set."""
    output: Annotated[str, Field(pattern=r"\.(h5|hdf5)$")]
    """The HDF5 file, or object (`s3://bucket/key.h5`), that they are added to. {stem} (the file name without its endings), {prefix} (the
    folders that lead to it from the rule's prefix on) and {bucket} in it make one for each of them."""
    config: Annotated[Config, BeforeValidator(_read_config, json_schema_input_type=Config | str)] = Config()
    """The configuration, or the name of a file with it, from the folder of the rules on."""

    @model_validator(mode="after")
    def _known_placeholders(self) -> Rule:
        unknown = [name for name in _PLACEHOLDER.findall(self.output) if name not in _PLACEHOLDERS]
        if unknown:
            raise ValueError(f"rule {self.name!r}: found {unknown[0]} in its output, expected {{bucket}}, {{prefix}} or {{stem}}")
        return self

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + glob_regex(self.pattern))

    @cached_property
    def _outputs(self) -> re.Pattern[str]:
        """All outputs that the rule can name."""
        parts = _PLACEHOLDER.split(self.output)
        return re.compile("".join(_PLACEHOLDERS[part] if number % 2 else re.escape(part) for number, part in enumerate(parts)))

    def matches(self, landed: Landed) -> bool:
        """Whether an object is of this rule."""
        return landed.bucket == self.bucket and self._pattern.fullmatch(landed.key) is not None

    def may_name(self, uri: str) -> bool:
        """Whether an object could be an output of this rule."""
        return self._outputs.fullmatch(uri) is not None

    def output_of(self, landed: Landed) -> str:
        """Where an object goes. Raises InputError for a key from which no name can be made."""
        root = self.prefix.rpartition("/")[0]
        folders, _, name = landed.key.removeprefix(f"{root}/" if root else "").rpartition("/")
        values = {"{bucket}": landed.bucket, "{stem}": stem(name), "{prefix}": folders, "{prefix}/": folders and f"{folders}/"}
        used = "/".join(values[name] for name in _PLACEHOLDER.findall(self.output))
        if {".", ".."} & set(used.split("/")) or "\0" in used:
            raise InputError(f"{landed.uri}: found a key with `.` or `..` in it, expected names; rule {self.name!r} names its output by it")
        return _PLACEHOLDER.sub(lambda found: values[found[0]], self.output)


class Rules(Settings):
    """Which archives go to which outputs."""

    s3: S3Options = S3Options()
    """How the buckets and the queue are reached, and by rules whose configuration does not say it."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    """The first one that matches decides."""
    ignore: tuple[str, ...] = ()
    """Keys that are of no rule, as patterns like those of rules."""

    @model_validator(mode="after")
    def _unique_names(self) -> Rules:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"found rules of one name ({', '.join(sorted(names))}), expected a name for each")
        return self

    @cached_property
    def _ignored(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(glob_regex(pattern)) for pattern in self.ignore)

    def goal(self, landed: Landed) -> Goal | str:
        """Where an object goes; why it does not, if it is none of the archives. Raises InputError as `Rule.output_of` does."""
        if landed.key.endswith("/"):
            return "a folder's own entry"
        if any(rule.may_name(landed.uri) for rule in self.rules):
            return "an output of these rules"
        if any(pattern.fullmatch(landed.key) for pattern in self._ignored):
            return "ignored"
        rule = next((rule for rule in self.rules if rule.matches(landed)), None)
        return Goal(rule.name, rule.output_of(landed), self._config_of(rule)) if rule else "of no rule"

    def _config_of(self, rule: Rule) -> Config:
        return rule.config if rule.config.s3 != S3Options() else rule.config.model_copy(update={"s3": self.s3})


Via = Literal["deployment", "direct"]


class Watched(Settings):
    """What is watched, and how what lands is ingested."""

    queue: str | None = None
    """URL of an SQS queue that gets the bucket's notifications."""
    dead_letter: str | None = None
    """URL of the queue for messages that cannot be used; that of the queue's redrive policy when not given."""
    prefixes: tuple[str, ...] = ()
    """Folders (`s3://bucket/landing/`) that are listed again and again, where there is no queue, or beside one."""
    every: Annotated[float, Field(ge=1)] = 30.0
    """Seconds from one listing to the next."""
    via: Via | None = None
    """deployment: a flow run of `ingest archives/ingest-archive` for each archive; direct: flow runs in this process, one output at a time.
    The deployment when there is one."""
    heartbeat: Path | None = None
    """A file that is touched at least every ten seconds while the service lives."""

    @field_validator("prefixes")
    @classmethod
    def _in_buckets(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if not re.fullmatch(r"s3://[^/]+(/.*)?", prefix):
                raise ValueError("expected s3://bucket or s3://bucket/prefix/")
        return prefixes

    @model_validator(mode="after")
    def _something(self) -> Watched:
        if not (self.queue or self.prefixes):
            raise ValueError("found neither a queue nor a prefix, expected what to watch")
        return self


@dataclass(frozen=True)
class Goal:
    """Where an archive goes: the name of its rule, the output, and how it is made."""

    rule: str
    output: str
    config: Config


def load_rules(path: Path) -> Rules:
    """The rules of a JSON file. Raises ConfigError, naming the first fault."""
    return checked(Rules, read_json(path), str(path), path.parent)
