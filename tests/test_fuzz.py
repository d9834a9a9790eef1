"""A short share of `tests.fuzz`, the same inputs each time: none makes a reader or a converter raise what it should not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import checksums, seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the children are forked, and bounded by what Linux has for it")
CASES = [name for name in TARGETS if not name.startswith("hdf5")]
"""Outputs hold times and identifiers, so that no two are alike: their turn is in `make fuzz`."""


def test_mutated_inputs_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "12", "--folder", str(tmp_path), *CASES]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = {words[0]: list(map(int, words[1:])) for words in map(str.split, ran.stdout.splitlines()) if words[0] in CASES}
    assert counts.keys() == set(CASES)
    assert all(inputs == 12 and findings == 0 for inputs, _, _, findings in counts.values()), ran.stdout
    assert sum(read for _, read, *_ in counts.values()) > 50
    assert sum(refused for _, _, refused, _ in counts.values()) > 50


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_damaged_is_read(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    read = [target.read(data, tmp_path, Random(1)) for data in target.seeds()[:3]]
    assert any(read), read


def test_damage_is_the_same_for_the_same_seed_and_never_the_input_itself() -> None:
    data = bytes(range(256))
    found = [mutated(data, [b"other"], Random(n), (b"word",)) for n in range(50)]
    assert found == [mutated(data, [b"other"], Random(n), (b"word",)) for n in range(50)]
    assert len(set(found)) > 45


def test_checksums_of_what_is_not_damaged_stay() -> None:
    [tar, png, output] = seeds.tars()[0], seeds.pictures("PNG")[0], seeds.outputs()[0]
    assert checksums.tar(tar) == tar and checksums.png(png) == png
    assert len(checksums.structures(output)) > 100, "all headers of objects"


def test_lookup3_is_bob_jenkins() -> None:
    assert checksums.lookup3(b"Four score and seven years ago") == 0x17770551, "from the self-test of lookup3.c"
