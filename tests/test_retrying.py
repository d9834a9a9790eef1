"""Rejects that are tried again: what works becomes rows, once; what does not stays a reject."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.config import Config
from h5dat_lib.errors import InputError, OutputError
from tests.conftest import config, make_tar, make_zip, picture

MEMBERS = {
    "small.png": picture(seed=1),
    "large.png": picture(50, 40, seed=2),
    "broken.json": b"{",
    "good.json": b'{"a": 1}',
    "large.txt": b"x" * 5000,
    "lines.jsonl": b'{"a": 1}\n{"a"\n{"a": 2}\n',
}


def _limited(**limits: int) -> Config:
    return config(limits=limits)


def _rejects(path: Path) -> dict[str, str]:
    with h5dat_lib.open(path) as file:
        return {reject.member: reject.reason for reject in file.rejects()}


@pytest.fixture(params=["zip", "tar.gz"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "zip":
        return make_zip(tmp_path / "a.zip", MEMBERS)
    return make_tar(tmp_path / "a.tar.gz", MEMBERS)


def test_what_a_higher_limit_lets_in_becomes_rows_and_is_a_reject_no_longer(tmp_path: Path, archive: Path) -> None:
    output = tmp_path / "out.h5"
    assert h5dat_lib.ingest(archive, output, _limited(pixels=100, whole_bytes=4000)).rejects == 4
    report = h5dat_lib.retry(output, _limited(pixels=100))
    assert (report.members, report.rows, report.rejects) == (3, 1, 2)
    assert set(_rejects(output)) == {"large.png", "broken.json", "lines.jsonl"}
    report = h5dat_lib.retry(output, config())
    assert report.rows == 1
    assert set(_rejects(output)) == {"broken.json", "lines.jsonl"}
    with h5dat_lib.open(output) as file:
        assert {row: file["images"].origin(row).member for row in range(2)} == {0: "small.png", 1: "large.png"}
        assert file["images"].origin(1).archive == str(archive)
        assert file["images"].pixels[1].shape == (40, 50, 3)
        assert file.describe()["rejects"] == 2
        assert len(file["documents"]) == 3
    assert not h5dat_lib.verify(output).mismatches
    assert h5dat_lib.retry(output, config()).rows == 0
    assert h5dat_lib.ingest(archive, output, config()).batches == 0


def test_an_output_of_rejects_alone_can_be_tried_again(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture(seed=1)}), tmp_path / "out.h5", _limited(pixels=1))
    assert h5dat_lib.retry(tmp_path / "out.h5", _limited(pixels=2)).rejects == 1
    assert h5dat_lib.retry(tmp_path / "out.h5", config()).rows == 1
    assert _rejects(tmp_path / "out.h5") == {}


def test_an_output_without_rejects_has_nothing_to_try_again(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture(seed=1)}), tmp_path / "out.h5", config())
    assert h5dat_lib.retry(tmp_path / "out.h5").batches == 0


def test_without_a_configuration_that_of_the_last_run_is_used(tmp_path: Path, archive: Path) -> None:
    h5dat_lib.ingest(archive, tmp_path / "out.h5", _limited(whole_bytes=4000))
    assert h5dat_lib.retry(tmp_path / "out.h5").rows == 0
    assert "large.txt" in _rejects(tmp_path / "out.h5")


def test_another_configuration_than_the_limits_is_refused(tmp_path: Path, archive: Path) -> None:
    h5dat_lib.ingest(archive, tmp_path / "out.h5", config())
    with pytest.raises(OutputError, match=r"image\.color: \"keep\" in the file, \"L\" now"):
        h5dat_lib.retry(tmp_path / "out.h5", config(image={"color": "L"}))


def test_an_archive_that_has_changed_or_gone_is_named_and_its_rejects_stay(tmp_path: Path) -> None:
    archives = [make_zip(tmp_path / f"{n}.zip", {f"{n}.json": b"{", "good.txt": str(n).encode()}) for n in range(3)]
    h5dat_lib.ingest(archives, tmp_path / "out.h5", config())
    archives[0].unlink()
    make_zip(archives[1], {"1.json": b"{}"})
    report = h5dat_lib.retry(tmp_path / "out.h5", config())
    assert [str(archive) in line for archive, line in zip(archives, report.damaged, strict=False)] == [True, True]
    assert "has changed since it came in" in report.damaged[1]
    assert len(_rejects(tmp_path / "out.h5")) == 3


def test_the_function_is_there_after_its_module_was_imported() -> None:
    importlib.import_module("flows.local")
    assert all(callable(getattr(h5dat_lib, name)) for name in h5dat_lib.__all__)


def test_a_file_without_a_run_has_nothing_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        h5dat_lib.retry(tmp_path / "none.h5")
