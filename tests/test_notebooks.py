"""The notebooks of samples/: their code runs from top to bottom, and what is shown of it comes from such a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "samples").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def cells(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """Cells of a notebook, or those of one kind."""
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"].startswith(kind)]


@each
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    code = "\n\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    if "import torch" in code:
        pytest.importorskip("torch", reason="torch is not installed: make torch")
    environment = {name: value for name, value in os.environ.items() if name != "FASHION_ZIP"}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr


@each
def test_what_a_notebook_shows_is_of_one_run_without_an_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert {output["name"] for output in outputs if "name" in output} <= {"stdout"}
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(tmp|home|root|work)/", json.dumps(outputs))


@each
def test_a_notebook_is_of_version_4_5_and_small(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"], notebook["metadata"]["language_info"]["name"]) == (4, 5, "python")
    names = [cell["id"] for cell in cells(path)]
    assert len({*names}) == len(names) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert path.stat().st_size < 300_000
