"""Every kind of bad input ends in a reject or in one line that says what to do; never in a traceback or a half-written output."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

import h5dat_lib
from h5dat_lib.read.files import Reject
from tests.conftest import Ran, config, make_zip, picture

Run = Callable[..., Ran]


def _rejects(archive: Path, tmp_path: Path) -> list[Reject]:
    """The rejects of an archive that is also to give at least one row."""
    output = tmp_path / "out.h5"
    report = h5dat_lib.ingest(archive, output, config())
    assert report.rows >= 1
    with h5dat_lib.open(output) as file:
        found = list(file.rejects())
    assert report.rejects == len(found)
    return found


def _one_line_error(ran: Ran, output: Path, *words: str) -> None:
    assert ran.code == 2, ran
    assert ran.err.count("\n") == 1 and "Traceback" not in ran.err, ran.err
    for word in words:
        assert word in ran.err, ran.err
    assert not output.is_file()
    assert [entry.name for entry in output.parent.iterdir() if entry.name.startswith(".")] == []


def test_a_missing_archive_is_named(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    output = tmp_path / "out.h5"
    _one_line_error(h5dat("ingest", tmp_path / "nothing.zip", "-o", output, "--direct", "-c", threads), output, "nothing.zip")


def test_a_file_that_is_no_archive_is_refused(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    (tmp_path / "noise.bin").write_bytes(random.Random(1).randbytes(5000))
    output = tmp_path / "out.h5"
    _one_line_error(h5dat("ingest", tmp_path / "noise.bin", "-o", output, "--direct", "-c", threads), output, "noise.bin", "no archive")


@pytest.mark.parametrize("name", ["empty.zip", "empty.tar", "empty.tar.gz", "folder", "zero.zip"])
def test_an_archive_without_members_is_refused(h5dat: Run, tmp_path: Path, threads: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    makers: dict[str, Callable[[], object]] = {
        "empty.zip": lambda: zipfile.ZipFile(path, "w").close(),
        "empty.tar": lambda: tarfile.open(path, "w").close(),
        "empty.tar.gz": lambda: tarfile.open(path, "w:gz").close(),
        "folder": path.mkdir,
        "zero.zip": path.touch,
    }
    makers[name]()
    output = tmp_path / "out.h5"
    _one_line_error(h5dat("ingest", path, "-o", output, "--direct", "-c", threads), output, name)


def test_a_zip_cut_short_is_refused(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    whole = make_zip(tmp_path / "whole.zip", {f"{n}.png": picture(seed=n) for n in range(20)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    output = tmp_path / "out.h5"
    _one_line_error(h5dat("ingest", tmp_path / "cut.zip", "-o", output, "--direct", "-c", threads), output, "cut.zip")


def test_a_tar_gz_cut_short_gives_what_lies_before_the_cut_and_exit_code_1(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in range(50):
            info = tarfile.TarInfo(f"{number:02}.png")
            data = picture(64, 64, seed=number)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "cut.tar.gz").write_bytes(packed.getvalue()[: len(packed.getvalue()) // 2])
    ran = h5dat("ingest", tmp_path / "cut.tar.gz", "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert ran.code == 1 and "Traceback" not in ran.err
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert 10 < len(file["images"]) < 40
        assert any("cut.tar.gz" in reject.archive for reject in file.rejects())


def test_a_gz_cut_short_is_a_reject(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    packed = gzip.compress(b"line\n" * 100_000)
    (tmp_path / "cut.txt.gz").write_bytes(packed[: len(packed) // 2])
    make_zip(tmp_path / "good.zip", {"a.txt": b"text"})
    ran = h5dat("ingest", tmp_path / "cut.txt.gz", tmp_path / "good.zip", "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert ran.code == 0
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        [reject] = file.rejects()
    assert (reject.member, reject.stage) == ("cut.txt", "read")


def test_an_encrypted_member_is_a_reject(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "locked.zip", {"open.txt": b"text", "locked.txt": b"secret"})
    raw = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # general purpose flags, APPNOTE 4.3.7 and 4.3.12
        at = raw.index(signature, raw.index(signature) + 1)
        raw[at + flags] |= 1
    path.write_bytes(raw)
    [reject] = _rejects(path, tmp_path)
    assert reject.member == "locked.txt" and "encrypted" in reject.reason


def test_a_wrong_crc_is_a_reject_that_shows_both(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "damaged.zip", {"a.txt": b"good", "b.txt": b"a longer text"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"a longer text", b"a Longer text"))
    [reject] = _rejects(path, tmp_path)
    assert (reject.member, reject.stage) == ("b.txt", "read") and "CRC" in reject.reason


def test_a_jpeg_cut_in_half_is_a_reject(tmp_path: Path) -> None:
    whole = picture(200, 200, format="JPEG")
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"whole.jpg": whole, "half.jpg": whole[: len(whole) // 2]}), tmp_path)
    assert (reject.member, reject.stage) == ("half.jpg", "convert")


def test_an_empty_csv_is_a_reject(tmp_path: Path) -> None:
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"empty.csv": b"", "full.csv": b"a,b\n1,2\n"}), tmp_path)
    assert reject.member == "empty.csv" and "empty" in reject.reason


def test_invalid_json_is_a_reject_that_says_where(tmp_path: Path) -> None:
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"bad.json": b'{"a": 1,\n  "b": }', "good.json": b"{}"}), tmp_path)
    assert reject.member == "bad.json" and "line 2" in reject.reason


def test_json_that_is_not_utf_8_is_a_reject(tmp_path: Path) -> None:
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"bad.json": b'{"a": "\xff\xfe"}', "good.json": b"{}"}), tmp_path)
    assert reject.member == "bad.json"


def test_text_that_is_no_text_is_a_reject(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(4000)
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"noise.txt": noise, "good.txt": b"text"}), tmp_path)
    assert reject.member == "noise.txt"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../up.txt", "'..'"),
        ("a/../../up.txt", "'..'"),
        ("/etc/passwd.txt", "absolute"),
        ("C:/boot.txt", "absolute"),
        ("x" * 5000 + ".txt", "5004 bytes"),
    ],
)
def test_an_unsafe_name_is_a_reject(tmp_path: Path, name: str, reason: str) -> None:
    [reject] = _rejects(make_zip(tmp_path / "a.zip", {"good.txt": b"text", name: b"evil"}), tmp_path)
    assert reason in reject.reason
    assert not (tmp_path.parent / "up.txt").exists()


def test_a_name_with_nul_is_a_reject(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"good.txt": b"text", "evilXname.txt": b"evil"})
    path.write_bytes(path.read_bytes().replace(b"evilXname", b"evil\0name"))
    [reject] = _rejects(path, tmp_path)
    assert "NUL" in reject.reason and reject.member == "evil\\x00name.txt"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_second_is_a_reject_unless_both_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"first")
        archive.writestr("a.txt", b"second")
    [reject] = _rejects(path, tmp_path)
    assert "duplicate name" in reject.reason
    h5dat_lib.ingest(path, tmp_path / "both.h5", config(duplicate_names="keep"))
    with h5dat_lib.open(tmp_path / "both.h5") as file:
        assert file["texts"].text[:] == ["first", "second"]


def test_a_nested_archive_is_a_reject(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"a.txt": b"x"}).read_bytes()
    [one, other] = _rejects(make_zip(tmp_path / "a.zip", {"a.txt": b"x", "in.zip": inner, "in.txt": inner}), tmp_path)
    assert "nested archive" in one.reason and "nested archive" in other.reason


def test_a_folder_as_output_is_refused(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    (tmp_path / "out").mkdir()
    ran = h5dat("ingest", archive, "-o", tmp_path / "out", "--direct", "-c", threads)
    assert ran.code == 2 and "folder" in ran.err and ran.err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused(h5dat: Run, tmp_path: Path, threads: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    ran = h5dat("ingest", archive, "-o", archive / "out.h5", "--direct", "-c", threads)
    assert ran.code == 2 and "cannot be written" in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["text", "hdf5"])
def test_an_output_that_is_not_ours_is_refused_and_left_alone(h5dat: Run, tmp_path: Path, threads: Path, kind: str) -> None:
    archive, output = make_zip(tmp_path / "a.zip", {"a.txt": b"x"}), tmp_path / "theirs.h5"
    if kind == "text":
        output.write_text("dear diary")
    else:
        with h5py.File(output, "w") as file:
            file["x"] = 1
    before = output.read_bytes()
    ran = h5dat("ingest", archive, "-o", output, "--direct", "-c", threads)
    assert ran.code == 2 and "theirs.h5" in ran.err and ran.err.count("\n") == 1
    assert output.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


_FILL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["h5dat", "ingest", {archive!r}, "-o", {output!r}, "--direct", "-c", {config!r}]
from flows.cli import main
main()
"""


@pytest.mark.parametrize(  # every two of the values together once
    ("limit", "appended", "batch_seconds"),
    [
        (100_000, False, 8), (100_000, True, 0.01), (2_000_000, True, 8),
        (2_000_000, False, 0.01), (6_000_000, False, 8), (6_000_000, True, 0.01),
    ],
)  # fmt: skip
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path, limit: int, appended: bool, batch_seconds: float) -> None:
    """The kernel refuses to let a file grow, as on a full disk: in staging with the small limit, in one or a later commit with others."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"task_runner": "threads", "batch_seconds": batch_seconds}))
    archive = make_zip(tmp_path / "a.zip", {f"{n}.bmp": picture(300, 300, n, format="BMP") for n in range(30)})
    output = tmp_path / "out.h5"
    if appended:
        h5dat_lib.ingest(make_zip(tmp_path / "first.zip", {"first.txt": b"x"}), output, config())
    code = _FILL.format(limit=limit, archive=str(archive), output=str(output), config=str(settings))
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[1]
    )
    assert ran.returncode == 2, ran
    assert (ran.stderr.count("\n") == 1 and "full" in ran.stderr) or "large" in ran.stderr, ran.stderr
    assert output.exists() or not appended
    assert not output.exists() or not h5dat_lib.verify(output).mismatches
    again = subprocess.run(
        [sys.executable, "-m", "flows.cli", "ingest", archive, "-o", output, "--direct", "-c", settings],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert again.returncode == 0, again
    with h5dat_lib.open(output) as file:
        assert sorted(file["images"].origin(row).member for row in range(30)) == sorted(f"{n}.bmp" for n in range(30))
        assert len(file["images"]) == 30
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_full_file_system_is_said_to_be_full(tmp_path: Path, threads: Path) -> None:
    """The same with a real file system that is full, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    archive = make_zip(tmp_path / "a.zip", {f"{n}.bmp": picture(300, 300, n, format="BMP") for n in range(30)})
    command = f"{sys.executable} -m flows.cli ingest {archive} -o {disk}/out.h5 --direct -c {threads}"
    script = f"mount -t tmpfs -o size=6m none {disk} && exec {command}"
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", disk], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    ran = subprocess.run(
        [unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[1]
    )
    assert ran.returncode == 2 and "full" in ran.stderr and ran.stderr.count("\n") == 1, ran


def test_a_schema_without_a_match_makes_rejects(tmp_path: Path) -> None:
    rules = {"classes": [{"name": "notes", "medium": "texts", "extensions": ["txt"]}]}
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"x", "b.json": b"{}"})
    h5dat_lib.ingest(archive, tmp_path / "out.h5", config(schema=rules))
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        [reject] = file.rejects()
        assert file.classes == ("notes",) and reject.member == "b.json" and reject.stage == "plan"


def test_a_wrong_setting_is_one_line_with_its_key(h5dat: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"image": {"layout": "denze"}}')
    ran = h5dat("ingest", tmp_path, "-o", tmp_path / "out.h5", "-c", tmp_path / "bad.json", "--direct")
    assert ran.code == 2 and "image.layout" in ran.err and "denze" in ran.err and ran.err.count("\n") == 1


def test_zip_sizes_that_lie_are_found_out(tmp_path: Path) -> None:
    """A header that claims fewer bytes than the member inflates to."""
    path = make_zip(tmp_path / "a.zip", {"good.txt": b"text", "liar.txt": b"a" * 10_000})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)  # uncompressed size, APPNOTE 4.3.12
    path.write_bytes(raw)
    [reject] = _rejects(path, tmp_path)
    assert reject.member == "liar.txt" and reject.stage == "read"


def test_nothing_is_left_beside_the_output(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"x"}), tmp_path / "out.h5", config())
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out.h5"]
