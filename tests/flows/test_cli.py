"""The command line: documented words, stable JSON keys, exit codes, no control codes outside a terminal, quick answers."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran, make_zip, picture

Run = Callable[..., Ran]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    members = {"a.png": picture(), "b.json": b'{"a": 1}', "bad.json": b"{", "c.csv": b"n,s\n1,x\n2,y\n"}
    return make_zip(tmp_path / "a.zip", members)


def test_ingest_prints_a_summary_of_what_it_made(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert ran.code == 0 and ran.err == ""
    assert "4 members -> 4 rows, 1 rejects" in ran.out
    assert re.search(r"images +1 ", ran.out) and re.search(r"n +plain +int64", ran.out)
    assert "\x1b" not in ran.out


def test_ingest_as_json_has_the_documented_keys(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads, "--json")
    report = json.loads(ran.out)
    assert {"members": 4, "rows": 4, "rejects": 1}.items() <= report.items()
    counts = {"members", "rows", "rejects", "bytes", "batches", "skipped", "duplicates", "seconds", "requests", "received"}
    assert set(report) == {"output", "path", "run", "damaged", "changed", "unlabelled", "synced"} | counts
    assert ran.err == ""


def test_ingest_keeps_pictures_as_files_on_request(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads, "--storage", "encoded")
    assert ran.code == 0 and re.search(r"pixels +encoded", ran.out)
    wrong = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "--storage", "raw")
    assert wrong.code == 2 and re.search(r"image\.storage.*'decoded' or 'encoded', found 'raw'", wrong.err)


def test_quiet_prints_nothing(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_the_same_again_says_in_one_line_that_there_is_nothing_to_do(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert ran.code == 0 and ran.out.count("\n") == 1 and "nothing to do" in ran.out


def test_ls_rejects_and_plan_as_json_have_the_documented_keys(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    contents = json.loads(h5dat("ls", tmp_path / "out.h5", "--json").out)
    classes = {entry["name"]: entry for entry in contents["classes"]}
    assert {name: entry["rows"] for name, entry in classes.items()} == {"documents": 1, "images": 1, "tables": 2}
    assert set(classes["images"]["columns"][0]) == {"name", "layout", "shape", "dtype", "bytes"}
    assert contents["sources"][0]["uri"] == str(archive) and contents["rejects"] == 1
    [reject] = json.loads(h5dat("rejects", tmp_path / "out.h5", "--json").out)
    assert set(reject) == {"archive", "member", "stage", "reason"} and reject["member"] == "bad.json"
    plan = json.loads(h5dat("plan", archive, "--json").out)
    assert {entry["name"]: entry["members"] for entry in plan["classes"]} == {"images": 1, "documents": 2, "tables": 1}


def test_tables_for_people_name_classes_sources_and_rejects(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    listing = h5dat("ls", tmp_path / "out.h5").out
    assert "pixels" in listing and str(archive) in listing and "1 rejects" in listing
    assert "bad.json" in h5dat("rejects", tmp_path / "out.h5").out
    assert "images" in h5dat("plan", archive).out


def test_too_many_rejects_end_with_1_and_keep_what_was_committed(h5dat: Run, tmp_path: Path, archive: Path) -> None:
    (tmp_path / "c.json").write_text('{"task_runner": "threads", "max_rejects": 0}')
    ran = h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", tmp_path / "c.json")
    assert ran.code == 1 and "found 1 rejects, expected at most 0" in ran.err and ran.err.count("\n") == 1
    assert h5dat("ls", tmp_path / "out.h5").code == 0


@pytest.mark.parametrize("words", [["ingest"], ["no-such-command"], ["ls"], ["ingest", "a.zip", "-o", "b.h5", "--workers", "0"]])
def test_wrong_words_end_with_2(h5dat: Run, words: list[str]) -> None:
    assert h5dat(*words).code == 2


def test_config_commands_print_json(h5dat: Run, tmp_path: Path) -> None:
    from h5dat_lib.config import Config, parse

    assert parse(json.loads(h5dat("config", "init").out)) == Config()
    (tmp_path / "c.json").write_text('{"workers": 7}')
    assert json.loads(h5dat("config", "show", "-c", tmp_path / "c.json").out)["workers"] == 7
    schema = json.loads(h5dat("config", "schema").out)
    assert schema["properties"]["workers"]["description"] and schema["patternProperties"] == {r"^(//|\$schema$)": True}


@pytest.mark.parametrize("words", [["--help"], ["ls", "out.h5"]])
def test_quick_commands_do_not_import_prefect_or_decoders(
    tmp_path: Path, threads: Path, archive: Path, h5dat: Run, words: list[str]
) -> None:
    h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    code = (
        "import sys; sys.argv = ['h5dat', *sys.argv[1:]]\nfrom flows.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('LOADED', [name for name in ('prefect', 'cv2', 'PIL', 'pyarrow', 'boto3') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "LOADED []"


SLOW = 80
"""Members of an archive that takes a while."""


def _slow_archive(folder: Path) -> Path:
    return make_zip(folder / "slow.zip", {f"{n:04}.bmp": picture(900, 900, n, format="BMP") for n in range(SLOW)}, zipfile.ZIP_STORED)


def _command(archive: Path) -> list[str]:
    folder = archive.parent
    words = ["ingest", archive, "-o", folder / "out.h5", "-c", folder / "small.json"]
    return [sys.executable, "-m", "flows.cli", *map(str, words)]


def _start(folder: Path, *words: str, **options: object) -> subprocess.Popen[bytes]:
    (folder / "small.json").write_text('{"batch_seconds": 0.2, "workers": 2}')
    return subprocess.Popen([*_command(_slow_archive(folder)), *words], cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]


def test_ctrl_c_leaves_a_readable_output_and_says_how_to_go_on(tmp_path: Path, h5dat: Run) -> None:
    process = _start(tmp_path, "--direct", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    output, deadline = tmp_path / "out.h5", time.monotonic() + 60
    while not (output.exists() and output.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    *progress, said = err.splitlines()
    assert b"same command" in said and all(b" members, " in line for line in progress), err  # none but on a busy machine
    contents = json.loads(h5dat("ls", tmp_path / "out.h5", "--json").out)
    first = contents["classes"][0]["rows"]
    assert 0 < first < SLOW and contents["runs"][0]["status"] == "interrupted"
    again = subprocess.run([*_command(tmp_path / "slow.zip"), "--direct", "--json"], cwd=ROOT, capture_output=True, check=True)
    report = json.loads(again.stdout)
    assert report["skipped"] > 0 and report["rows"] == SLOW - first
    assert h5dat("verify", tmp_path / "out.h5").code == 0


def test_a_terminal_sees_a_live_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = _start(tmp_path, "--direct", stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert f"of {SLOW} members" in text and "MB/s" in text and "0 rejects" in text
    assert f"{SLOW} members -> {SLOW} rows" in text


def test_the_same_ingest_again_says_so_in_one_line(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    words = ("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    h5dat(*words)
    again = h5dat(*words)
    assert again.code == 0 and again.out == f"{tmp_path / 'out.h5'}: nothing to do, all 4 members are in already\n"


def test_another_configuration_is_refused_in_one_line(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    words = ("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c")
    h5dat(*words, threads)
    (tmp_path / "other.json").write_text(json.dumps({**json.loads(threads.read_text()), "image": {"color": "L"}}))
    ran = h5dat(*words, tmp_path / "other.json")
    assert ran.code == 2 and ran.err.count("\n") == 1 and 'image.color: "keep" in the file, "L" now' in ran.err
    assert h5dat(*words, tmp_path / "other.json", "--new-run").code == 0
    assert h5dat(*words, tmp_path / "other.json", "--restart").code == 0


def test_retry_brings_in_what_a_limit_kept_out(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    (tmp_path / "low.json").write_text(json.dumps({**json.loads(threads.read_text()), "limits": {"pixels": 1}}))
    h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "-c", tmp_path / "low.json")
    before = len(json.loads(h5dat("rejects", tmp_path / "out.h5", "--json").out))
    ran = h5dat("retry", tmp_path / "out.h5", "-c", threads, "--direct", "--json")
    report = json.loads(ran.out)
    assert ran.code == 0 and report["rows"] > 0
    assert len(json.loads(h5dat("rejects", tmp_path / "out.h5", "--json").out)) == before - report["members"] + report["rejects"]
    assert "no rejects" not in h5dat("rejects", tmp_path / "out.h5").out
    assert h5dat("verify", tmp_path / "out.h5").code == 0


def test_recover_says_whether_there_was_something_to_take_back(h5dat: Run, tmp_path: Path, threads: Path, archive: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat("ingest", archive, "-o", output, "--direct", "-c", threads)
    before = output.read_bytes()
    assert h5dat("recover", output).out == f"{output}: nothing to recover\n"
    code = "import os, sys; from pathlib import Path; from h5dat_lib.journal import JournaledFile; f = JournaledFile(Path(sys.argv[1]));"
    subprocess.run([sys.executable, "-c", code + "f.write(bytes(9000)); os.kill(os.getpid(), 9)", str(output)], cwd=ROOT, check=False)
    assert output.read_bytes() != before
    assert h5dat("recover", output).out == f"{output}: taken back to the last commit\n"
    assert output.read_bytes() == before
    assert h5dat("recover", tmp_path / "none.h5").code == 2


def test_what_cannot_be_watched_is_told_in_one_line(h5dat: Run, tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text('{"rules": [{"name": "a", "bucket": "b", "output": "o.txt"}]}')
    ran = h5dat("watch", "--rules", tmp_path / "rules.json", "--prefix", "s3://b/")
    assert ran.code == 2 and ran.err.count("\n") == 1 and "rules.0.output: " in ran.err
    rules = ROOT / "samples" / "rules" / "landing.json"
    assert "found neither a queue nor a prefix" in h5dat("watch", "--rules", rules).err
    assert "prefixes: Value error, expected s3://bucket or" in h5dat("watch", "--rules", rules, "--prefix", "landing/").err


def test_the_schema_of_rules_is_printed(h5dat: Run) -> None:
    assert json.loads(h5dat("config", "schema", "--rules").out)["title"] == "Rules"
