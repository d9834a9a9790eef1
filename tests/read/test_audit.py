"""A file that would make HDF5 open other files, load code or take memory out of proportion is refused before anything is read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

import h5dat_lib
from h5dat_lib.errors import FormatError
from h5dat_lib.read import audit
from tests.conftest import Ran, config, make_zip, picture

Tamper = Callable[[h5py.File], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    members = {"a.png": picture(), "b.png": picture(9, 9), "a.json": b'{"a": [1, "x"]}', "a.csv": b"n,s\n1,x\n,y\n", "a.txt": b"text"}
    h5dat_lib.ingest(make_zip(folder / "a.zip", members), folder / "out.h5", config())
    return folder / "out.h5"


@pytest.fixture
def output(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "out.h5"))


def _with_filters(*filters: int) -> Tamper:
    def tamper(file: h5py.File) -> None:
        created = h5p.create(h5p.DATASET_CREATE)
        created.set_chunk((10,))
        for number in filters:  # optional ones need not be there to be set
            created.set_filter(number, 1, (1,))
        h5d.create(file["texts"].id, b"x", h5t.STD_U8LE, h5s.create_simple((10,)), created)

    return tamper


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("texts/x", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (10,))
    file.create_virtual_dataset("texts/x", layout)


def _link(link: object) -> Tamper:
    return lambda file: file["texts"].__setitem__("x", link)


def _deep(file: h5py.File) -> None:
    file.create_group("texts" + "/x" * 40)


def _endless(file: h5py.File) -> None:
    file["texts/text/offset"].resize(10**15, axis=0)


TAMPERS: dict[str, tuple[Tamper, str]] = {
    "external link": (_link(h5py.ExternalLink("/etc/other.h5", "/x")), "texts/x: found an external link to /x in /etc/other.h5"),
    "soft link": (_link(h5py.SoftLink("/lineage")), "texts/x: found a soft link to /lineage"),
    "external storage": (_external_storage, "texts/x: found values in /etc/passwd"),
    "virtual dataset": (_virtual, "texts/x: found a virtual dataset"),
    "unknown filter": (_with_filters(32_099), r"texts/x: found filters \(32099,\), expected none or deflate"),
    "plugin": (_with_filters(32_001), r"found filters \(32001,\)"),
    "built in but not ours": (_with_filters(6), r"found filters \(6,\)"),
    "deflate twice": (_with_filters(1, 1), r"found filters \(1, 1\)"),
    "deep groups": (_deep, "32 levels"),
    "more values than fit": (_endless, "texts/text/offset: found values of 8000000000"),
}


@pytest.mark.parametrize("name", TAMPERS)
def test_what_reaches_beyond_the_file_is_refused_by_its_name(output: Path, name: str) -> None:
    tamper, message = TAMPERS[name]
    with h5py.File(output, "r+") as file:
        tamper(file)
    with pytest.raises(FormatError, match=message):
        h5dat_lib.open(output)
    with h5dat_lib.open(output, trusted=True) as opened:
        assert opened["tables"].s[:] == ["x", "y"]


@pytest.mark.parametrize("command", ["ls", "rejects", "verify"])
def test_commands_say_so_in_one_line(output: Path, h5dat: Callable[..., Ran], command: str) -> None:
    with h5py.File(output, "r+") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/x")
    ran = h5dat(command, output)
    assert ran.code == 2 and "x: found an external link to /x in /etc/other.h5" in ran.err and ran.err.count("\n") == 1


def test_an_output_that_reaches_beyond_itself_is_not_added_to(output: Path, tmp_path: Path) -> None:
    with h5py.File(output, "r+") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/x")
    before = output.read_bytes()
    with pytest.raises(FormatError, match="external link"):
        h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"b.txt": b"more"}), output, config())
    assert output.read_bytes() == before


def test_what_a_reader_does_not_know_is_passed_over(output: Path) -> None:
    with h5py.File(output, "r+") as file:
        file["mine/empty"] = h5py.Empty("f4")
        file["mine/number"] = 3
        file["mine/words"] = ["a", "b"]
        file["mine/type"] = np.dtype("u1")
        file["mine/reference"] = file["texts"].ref
        file["mine/again"] = file["mine"]
        file["texts/root"] = file["/"]
    with h5dat_lib.open(output) as opened:
        assert opened["texts"].text[:] == ["text"]
    assert h5dat_lib.verify(output).mismatches == []


def test_a_file_of_very_many_objects_is_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "OBJECTS", 20)
    with pytest.raises(FormatError, match="found more than 20 objects"):
        h5dat_lib.open(output)


@pytest.mark.parametrize("value", [["h5dat", "h5dat"], 3, np.zeros(100_000, "u1")])
def test_a_mark_that_is_none_is_refused(output: Path, value: object) -> None:
    with h5py.File(output, "r+", libver="latest") as file:
        file.attrs["format"] = value
    with h5dat_lib.open(output) as opened:
        assert opened.classes == ()
        with pytest.raises(FormatError, match="without H5DAT's mark"):
            opened["images"]


@pytest.mark.parametrize("value", ["one", [1], None, -1.5])
def test_a_version_that_is_none_is_refused(output: Path, value: object) -> None:
    with h5py.File(output, "r+") as file:
        del file.attrs["format_version"]
        if value is not None:
            file.attrs["format_version"] = value
    with pytest.raises(FormatError, match="found layout version"):
        h5dat_lib.open(output)


_WATCHED = """
import sys
import h5py
from pathlib import Path
from h5dat_lib.read.audit import audit
from h5dat_lib.errors import FormatError
try:
    audit(h5py.File(sys.argv[1]), Path(sys.argv[1]))
except FormatError:
    print("refused")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["external link", "external storage", "virtual dataset", "unknown filter"])
def test_looking_at_a_file_opens_no_other(output: Path, name: str) -> None:
    with h5py.File(output, "r+") as file:
        TAMPERS[name][0](file)
    command = ["strace", "-f", "-e", "trace=open,openat,stat,access", sys.executable, "-c", _WATCHED, str(output)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ran.stdout == "refused\n"
    behind = ran.stderr[ran.stderr.rindex(str(output)) :]
    assert "/etc/" not in behind and "plugin" not in behind
