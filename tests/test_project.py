"""What holds for the project as a whole: the lock, the samples, and the direction of imports."""

from __future__ import annotations

import ast
import json
import re
import runpy
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from h5dat_lib.config import load

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
PICTURES = SAMPLES / "pictures"

LAYERS = (
    "errors",
    "columns",
    "training",
    "superblock",
    "journal",
    "lock",
    "predecessor",
    "config",
    "home",
    "phash",
    "lineage",
    "storage",
    "sync",
    "archive",
    "convert",
    "plan",
    "stage",
    "read",
    "reporting",
    "exporting",
    "commit",
    "rewriting",
    "landing",
    "pipeline",
    "retrying",
)
"""Modules and packages of h5dat_lib: each may import those before it, and what is in its own package, where nothing goes in a circle.

The package's own ``__init__`` is outermost: it gives the names that users import.
"""


# The lock


LOCKS = pytest.mark.parametrize("name", ["requirements.lock", "requirements-torch.lock"])


def locked(name: str = "requirements.lock") -> list[str]:
    """One string a requirement, with its hashes: continued lines joined, comments left out."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@LOCKS
def test_every_locked_requirement_is_one_version_with_hashes(name: str) -> None:
    pattern = re.compile(r"[a-z0-9.-]+==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert locked(name) and [line for line in locked(name) if not pattern.fullmatch(line)] == []


@LOCKS
def test_a_lock_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"(?m)^.*(?:://|index-url|find-links|@ ).*$", text) == []


def test_no_package_is_in_both_locks() -> None:
    names = [{line.partition("==")[0] for line in locked(name)} for name in ("requirements.lock", "requirements-torch.lock")]
    assert names[0] & names[1] == set()


def test_the_lock_satisfies_every_dependency() -> None:
    versions: dict[str, list[str]] = {}
    for line in locked():
        name, _, rest = line.partition("==")
        versions.setdefault(canonicalize_name(name), []).append(rest.split()[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    unmet = [str(need) for need in wanted if not any(map(need.specifier.contains, versions.get(canonicalize_name(need.name), [])))]
    assert unmet == []


def test_every_dependency_is_explained() -> None:
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [Requirement(text).name for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert [name for name in names if f"| {name.lower()}" not in table] == []


# The samples


@pytest.mark.parametrize("path", sorted((SAMPLES / "configs").glob("*.json")), ids=lambda path: path.name)
def test_a_sample_config_is_valid(path: Path) -> None:
    config = load(path)
    assert config.model_fields_set


@pytest.mark.parametrize("path", sorted((SAMPLES / "schemas").glob("*.json")), ids=lambda path: path.name)
def test_a_sample_schema_is_valid(path: Path) -> None:
    assert load(schema_file=path).schema_.classes


@pytest.fixture(scope="session")
def make_archive() -> Callable[[Path], int]:
    build: Callable[[Path], int] = runpy.run_path(str(SAMPLES / "make_archive.py"))["build"]
    return build


def test_the_sample_archive_is_the_same_each_time(make_archive: Callable[[Path], int], tmp_path: Path) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert make_archive(first) == make_archive(second)
    assert first.read_bytes() == second.read_bytes()


def test_the_sample_archive_holds_stored_and_deflated_members(make_archive: Callable[[Path], int], tmp_path: Path) -> None:
    count = make_archive(tmp_path / "sample.zip")
    with zipfile.ZipFile(tmp_path / "sample.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.infolist()) == count
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def test_every_sample_picture_has_its_licence_noted() -> None:
    noted = re.findall(r"(?m)^\| (\w+\.\w+) \|.*(?:CC0|public domain) \|$", (PICTURES / "LICENSES.md").read_text(encoding="utf-8"))
    assert sorted(noted) == sorted(path.name for path in PICTURES.iterdir() if path.name != "LICENSES.md")


def test_sample_products_name_pictures_that_are_there() -> None:
    products = [json.loads(path.read_text(encoding="utf-8")) for path in (SAMPLES / "records" / "products").glob("*.json")]
    assert products
    assert [p["picture"] for p in products if not (SAMPLES / p["picture"]).is_file()] == []


# The direction of imports


def sources(*folders: str) -> list[Path]:
    """The project's own modules in these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; ``from a import b`` gives ``a.b``, as b may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    package = path.relative_to(ROOT).parts[:-1]
    outer = package[: len(package) - node.level + 1] if node.level else ()
    return ".".join([*outer, *([node.module] if node.module else [])])


def importers(names: set[str], *folders: str) -> set[str]:
    """Modules below ``folders`` that import one of these top-level packages."""
    return {str(path.relative_to(ROOT)) for path in sources(*folders) if names & {name.split(".")[0] for name in imports(path)}}


def layer(path: Path) -> str:
    """The module or package of h5dat_lib that a file belongs to."""
    return path.relative_to(ROOT / "h5dat_lib").parts[0].removesuffix(".py")


def test_the_library_knows_nothing_of_prefect_tasks_or_flows() -> None:
    assert importers({"prefect", "tasks", "flows", "deployments", "typer", "rich"}, "h5dat_lib") == set()


def test_tasks_do_not_import_flows() -> None:
    assert importers({"flows", "deployments"}, "tasks") == set()


def test_nothing_shipped_imports_tests_or_samples() -> None:
    assert importers({"tests", "samples"}, "h5dat_lib", "tasks", "flows") == set()


def test_every_module_of_the_library_has_its_layer() -> None:
    assert {layer(path) for path in sources("h5dat_lib")} - {"__init__", *LAYERS} == set()


def test_modules_of_the_library_import_only_earlier_layers() -> None:
    upward = []
    for path in sources("h5dat_lib"):
        own = layer(path)
        if own not in LAYERS:
            continue
        allowed = {*LAYERS[: LAYERS.index(own)], own}
        for name in imports(path):
            package, _, rest = name.partition(".")
            if package == "h5dat_lib" and rest.split(".")[0] not in allowed:
                upward.append(f"{path.relative_to(ROOT)} imports {name}")
    assert upward == []


def test_no_modules_of_the_library_import_each_other_in_a_circle() -> None:
    names = {_dotted(path): path for path in sources("h5dat_lib")}
    known = {name: {other for other in map(partial(_module, names), imports(path)) if other != name} for name, path in names.items()}
    del known["h5dat_lib"]  # gives names of all of them
    assert list(TopologicalSorter(known).static_order())


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _module(names: Mapping[str, Path], name: str) -> str:
    """The module that a dotted name is, or is in; ``h5dat_lib`` for what is none of the library's."""
    return next((part for part in (name, name.rpartition(".")[0]) if part in names), "h5dat_lib")


def test_only_aws_imports_boto3() -> None:
    found = importers({"boto3", "botocore", "s3transfer"}, "h5dat_lib", "tasks", "flows")
    assert {name for name in found if not re.match(r"h5dat_lib/storage/aws\.py", name)} == set()


def test_only_commit_opens_hdf5_for_writing() -> None:
    writers = {str(path.relative_to(ROOT)) for path in sources("h5dat_lib", "tasks", "flows") if any(_opens_for_writing(path))}
    assert {name for name in writers if not re.match(r"h5dat_lib/commit(\.py|/)", name)} == set()


def _opens_for_writing(path: Path) -> Iterator[bool]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("h5py.File", "File"):
            yield _mode(node) != "r"


def _mode(call: ast.Call) -> Any:
    """The mode of an ``h5py.File`` call; "r" when it has none, None when only running it would tell."""
    given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[1:2]
    return getattr(given[0], "value", None) if given else "r"


# What this test itself relies on


@pytest.mark.parametrize(
    ("call", "mode"),
    [
        ("h5py.File(p)", "r"),
        ("h5py.File(p, 'r')", "r"),
        ("h5py.File(p, mode='r', driver='fileobj')", "r"),
        ("h5py.File(p, 'r+')", "r+"),
        ("h5py.File(p, mode='w')", "w"),
        ("h5py.File(p, m)", None),
    ],
)
def test_the_mode_of_a_call_is_found(call: str, mode: str | None) -> None:
    expression = ast.parse(call, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert _mode(expression) == mode
