"""Every sample and every example in the documents runs, on the sample archive."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import h5dat_lib
from h5dat_lib.config import load
from samples.make_archive import build

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
DOCUMENTS = ("README.md", "docs/format.md", "docs/reading.md", "docs/rework.md", "docs/training.md", "docs/export.md")
CONFIGS = sorted((SAMPLES / "configs").glob("*.json"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "sample.zip"
    build(path)
    return path


@pytest.fixture(scope="module")
def output(archive: Path) -> Path:
    h5dat_lib.ingest(archive, archive.with_suffix(".h5"), load(task_runner="threads"))
    return archive.with_suffix(".h5")


def _python(*words: object, cwd: Path) -> str:
    command = [sys.executable, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, env=environment).stdout


def test_every_picture_of_the_samples_is_what_pillow_gives(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        for row in range(len(table)):
            name = Path(table.origin(row).member).name
            with Image.open(SAMPLES / "pictures" / name) as stored:
                image = ImageOps.exif_transpose(stored)
            if image.mode == "P":
                image = image.convert("RGBA" if "transparency" in image.info else "RGB")
            assert np.array_equal(table.pixels[row].squeeze(), np.asarray(image)), name
        assert len(table) == len([path for path in (SAMPLES / "pictures").iterdir() if path.suffix != ".md"])
        assert not list(file.rejects())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_a_sample_configuration_ingests_the_samples(archive: Path, tmp_path: Path, config: Path) -> None:
    report = h5dat_lib.ingest(archive, tmp_path / "out.h5", load(config, task_runner="threads"))
    assert report.rows > 0
    assert not h5dat_lib.verify(tmp_path / "out.h5").mismatches


@pytest.mark.parametrize("schema", sorted((SAMPLES / "schemas").glob("*.json")), ids=lambda path: path.name)
def test_a_sample_schema_gives_its_classes(archive: Path, tmp_path: Path, schema: Path) -> None:
    settings = load(schema_file=schema, task_runner="threads")
    h5dat_lib.ingest(archive, tmp_path / "out.h5", settings)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert set(file.classes) == {rule.name for rule in settings.schema_.classes}


def test_the_script_that_reads_with_h5py_lists_every_picture(output: Path, tmp_path: Path) -> None:
    listed = _python(SAMPLES / "read_with_h5py.py", output, cwd=tmp_path)
    assert "astronaut.jpg" in listed and listed.count("\n") >= 10


def test_the_script_that_ingests_from_python_runs(archive: Path, tmp_path: Path) -> None:
    listed = _python(SAMPLES / "ingest_from_python.py", archive, tmp_path / "out.h5", cwd=tmp_path)
    assert "classes: " in listed and "(224, 224, 3)" in listed


def _examples(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize(("document", "number"), [(name, number) for name in DOCUMENTS for number in range(len(_examples(name)))])
def test_an_example_in_the_documents_runs(archive: Path, output: Path, tmp_path: Path, document: str, number: int) -> None:
    example = _examples(document)[number]
    if "flows.ingest" in example:
        pytest.skip("needs a Prefect server; tests/flows runs it")
    if "import torch" in example or "from torch" in example:
        pytest.importorskip("torch", reason="torch is not installed: make torch")
    (tmp_path / "fashion.zip").write_bytes(archive.read_bytes())
    (tmp_path / "fashion.h5").write_bytes(output.read_bytes())
    script = tmp_path / "example.py"
    script.write_text(example)
    _python(script, cwd=tmp_path)
