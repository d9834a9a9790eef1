"""Rows as files: byte for byte what the archive had where it was kept, the same values elsewhere, and never outside the folder."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import av
import h5py
import imagecodecs
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import ConfigError, H5datError, InputError, OutputError
from h5dat_lib.exporting import Exported, ExportOptions, folder
from tests.conftest import Ran, config, make_tar, make_zip, picture
from tests.exporting.conftest import Rename

DATA = Path(__file__).parents[1] / "data"
RECORDS = b'number,word,when\n1,"a, b",2024-01-02\n2,,2024-01-03\n3,"",\n'


def exported(
    tmp_path: Path, members: dict[str, bytes], to: str = "folder", options: ExportOptions | None = None, **settings: object
) -> Exported:
    """The members as an output, and that as ``out``."""
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(**settings))
    return h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out", to, options)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What was kept


def test_what_was_kept_is_byte_for_byte_what_the_archive_has(tmp_path: Path) -> None:
    members = {
        "a/photo.jpg": picture(format="JPEG"),
        "a/scan.TIFF": picture(format="TIFF"),
        "b.json": b'\xef\xbb\xbf{"a": [1,  2]}\r\n',
        "c.json": '{"ä": 1}'.encode("utf-16"),
        "d.txt": "grüß\r\nGott".encode("utf-16"),
        "e.md": "grüß".encode("cp1252"),
        "f.lines.jsonl": b'{"a": 1}\n{"a": 2}\n',
        "g.csv": b'number,word\n1,"a, b"\n2,\n3,""\n',
        "h.dat": os.urandom(100),
        "umlaut ä/~#%$.txt": b"x",
    }
    found = exported(tmp_path, members, image={"storage": "encoded"}, unknown="bytes", document={"columns": "none"})
    assert files(tmp_path / "out") == members
    assert (found.files, found.renamed, found.left_out, found.bytes) == (len(members), 0, [], sum(map(len, members.values())))
    assert found.identical == len(members) - 2  # lines and records are written anew


def test_a_compressed_member_is_what_was_in_it(tmp_path: Path) -> None:
    members = {"a.png.gz": gzip.compress(picture()), "b.txt.bz2": bz2.compress(b"words"), "c.csv.gz": gzip.compress(RECORDS)}
    found = exported(tmp_path, members, image={"storage": "encoded"})
    assert files(tmp_path / "out") == {"a.png": picture(), "b.txt": b"words", "c.csv": RECORDS}
    assert (found.identical, found.renamed) == (0, 3)


# What was decoded


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_decoded_pictures_are_png_with_the_same_pixels(tmp_path: Path, mode: str) -> None:
    members = {"a.tif": picture(mode=mode, format="TIFF"), "b.PNG": picture(9, 7, mode=mode), "c": picture(seed=3, mode=mode)}
    found = exported(tmp_path, members)
    written = files(tmp_path / "out")
    assert list(written) == ["a.png", "b.PNG", "c.png"]
    for name, member in zip(written, members.values(), strict=True):
        with Image.open(io.BytesIO(written[name])) as image, Image.open(io.BytesIO(member)) as original:
            assert image.format == "PNG" and np.array_equal(np.asarray(image), np.asarray(original))
    assert found.renamed == 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_stay(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, channels), "u2")
    exported(tmp_path, {"deep.png": bytes(imagecodecs.png_encode(pixels))})
    found = imagecodecs.png_decode((tmp_path / "out" / "deep.png").read_bytes())
    assert found.dtype == np.uint16 and np.array_equal(found.reshape(pixels.shape), pixels)


def test_what_png_cannot_hold_is_a_numpy_file(tmp_path: Path) -> None:
    pixels, out = np.random.default_rng(0).random((5, 7), "f4"), io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF")
    exported(tmp_path, {"a.tif": out.getvalue()})
    assert np.array_equal(np.load(tmp_path / "out" / "a.npy"), pixels[..., np.newaxis])


def test_pages_and_frames_lie_in_a_folder_named_as_their_member(tmp_path: Path) -> None:
    pages, out = [Image.new("L", (4, 3), shade) for shade in (1, 2, 3)], io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    members = {"scan.tif": out.getvalue(), "film.mp4": (DATA / "audio" / "film.mp4").read_bytes(), "one.png": picture()}
    exported(tmp_path, members, image={"frames": "all"}, video={"audio": True})
    written = files(tmp_path / "out")
    assert [name for name in written if name.startswith("scan")] == [f"scan.tif/frame-{n:06d}.png" for n in range(3)]
    with av.open(str(DATA / "audio" / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    names = [name for name in written if name.startswith("film.mp4/")]
    assert names == [f"film.mp4/frame-{n:06d}.png" for n in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        assert np.asarray(Image.open(io.BytesIO(written[name]))).shape == frame.shape
    assert "film.wav" in written and "one.png" in written


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_sound_is_wav_with_the_same_samples(tmp_path: Path, dtype: str) -> None:
    exported(tmp_path, {"a.flac": (DATA / "audio" / "s16_stereo_44k.flac").read_bytes()}, audio={"dtype": dtype})
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        samples = file["audio"].samples[0]
    if dtype == "int16":
        with wave.open(str(tmp_path / "out" / "a.wav")) as sound:
            assert (sound.getnchannels(), sound.getframerate(), sound.getsampwidth()) == (2, 44100, 2)
            assert sound.readframes(sound.getnframes()) == samples.tobytes()
    with av.open(str(tmp_path / "out" / "a.wav")) as sound:
        found = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in sound.decode(audio=0)])
    assert found.dtype == samples.dtype and np.array_equal(found, samples)


def test_items_and_lines_are_one_file_again(tmp_path: Path) -> None:
    array = [{"a": 1, "b": "\n"}, {"a": None}, {"a": [1, {}]}]
    members = {
        "a.json": json.dumps(array, indent=2).encode(),
        "b.jsonl": b'{\n "x": 1}\n\n{"x":\r\n2}',
        "c.json": b"[1, 2]",
        "d.json": b"{}",
    }
    exported(tmp_path, members)
    written = files(tmp_path / "out")
    assert json.loads(written["a.json"]) == array
    assert [json.loads(line) for line in written["b.jsonl"].splitlines()] == [{"x": 1}, {"x": 2}]
    assert (written["c.json"], written["d.json"]) == (members["c.json"], members["d.json"])


def test_records_are_csv_that_reads_as_the_same_rows(tmp_path: Path) -> None:
    members = {
        "a.csv": b'number,word,when,share,yes\n1,"a, ""b""",2024-01-02T03:04:05Z,0.1,true\n,,,,\n3,"",2024-01-02T03:04:06Z,1e-300,false\n',
        "b.tsv": b"other\tnumber\n x \t5\n#y\t6\n\t7\n",
    }
    exported(tmp_path, members)
    written = files(tmp_path / "out")
    assert [
        next(csv.reader([written[name].decode().splitlines()[0]], delimiter=sign)) for name, sign in (("a.csv", ","), ("b.tsv", "\t"))
    ] == [
        ["number", "word", "when", "share", "yes"],
        ["number", "other"],
    ]
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", written), tmp_path / "b.h5", config())
    with h5dat_lib.open(tmp_path / "a.h5") as before, h5dat_lib.open(tmp_path / "b.h5") as after:
        assert before["tables"].table().equals(after["tables"].table())


# Names


HOSTILE = [
    "../outside.png",
    "/etc/absolute.png",
    "a/../../outside.png",
    "C:\\windows\\x.png",
    "C:/drive.png",
    "nul\0inside.png",
    "..",
    ".",
    "",
    "a//b/./c.png",
    "aux.png",
    "ends with dot.",
    "x" * 300 + ".png",
    "/".join(["deep"] * 200) + "/d.png",
    "a\nb\x1b[31m.png",
    "Case.png",
    "case.PNG",
    "same.png",
    "same.png",
    "file",
    "file/within.png",
    "e\u0301.png",
    "\u00e9.png",
]


@pytest.mark.parametrize("to", ["folder", "coco", "webdataset"])
def test_no_name_leads_out_of_the_folder_or_over_another_file(tmp_path: Path, rename: Rename, to: str) -> None:
    members = {f"{number:02d}.png": picture(seed=number) for number in range(len(HOSTILE))}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(image={"storage": "encoded"}))
    rename(tmp_path / "a.h5", HOSTILE)
    (tmp_path / "jail").mkdir()
    found = h5dat_lib.export(tmp_path / "a.h5", tmp_path / "jail" / "out", to, ExportOptions(images=True))
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.h5", "jail"} and [p.name for p in (tmp_path / "jail").iterdir()] == [
        "out"
    ]
    if to == "webdataset":
        return
    written = files(tmp_path / "jail" / "out" / ("images" if to == "coco" else ""))
    assert sorted(written.values()) == sorted(members.values())
    assert len({name.casefold() for name in written}) == len(members) and all(name.isprintable() for name in written)
    assert found.renamed >= 12 and found.identical == len(members)
    assert not [
        part for name in written for part in name.split("/") if part in ("..", "aux.png") or part[-1] in " ." or len(part.encode()) > 255
    ]


@pytest.mark.parametrize("to", ["folder", "webdataset", "parquet", "huggingface", "coco"])
def test_no_name_of_a_class_or_a_split_leads_out(tmp_path: Path, to: str) -> None:
    rule = {"name": "images", "medium": "images", "extensions": ["png"], "labels": [{"name": "fold", "folder": 1}]}
    members = {"one/a.png": picture(), "..x/b.png": picture()}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(schema={"classes": [rule]}))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.move("images", "..")
        categories = file[".."]["fold/categories"]
        categories[...] = [text.replace(b"..x", b"..") for text in categories[...]]
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "jail" / "out", to, ExportOptions(split="fold", images=True))
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.h5", "jail"}
    assert [path.name for path in (tmp_path / "jail").iterdir()] == ["out"]
    assert len(files(tmp_path / "jail" / "out")) >= 2


def test_the_names_of_a_member_are_kept_where_they_can_be(tmp_path: Path, rename: Rename) -> None:
    names = ["12:30?.png", "..hidden.png", ".x/ü %41.png", "-rf.png"]
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture(seed=n) for n in range(4)}), tmp_path / "a.h5", config())
    rename(tmp_path / "a.h5", names)
    assert h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out").renamed == 0
    assert sorted(files(tmp_path / "out")) == sorted(names)


def test_two_archives_with_a_member_of_one_name_have_a_folder_each(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    make_zip(tmp_path / "first.zip", {"1.png": picture(seed=1), "2.png": picture(seed=2)})
    make_tar(tmp_path / "second.tar.gz", {"1.png": picture(seed=3)})
    make_zip(tmp_path / "other" / "first.zip", {"3.png": picture(seed=4)})
    archives = [tmp_path / "first.zip", tmp_path / "second.tar.gz", tmp_path / "other" / "first.zip"]
    h5dat_lib.ingest(list(map(str, archives)), tmp_path / "a.h5", config())
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out")
    assert list(files(tmp_path / "out")) == ["first/1.png", "first/2.png", "first~2/3.png", "second/1.png"]


def test_archives_without_a_name_in_common_share_the_folder(tmp_path: Path) -> None:
    for name in "ab":
        h5dat_lib.ingest(make_zip(tmp_path / f"{name}.zip", {f"{name}.png": picture()}), tmp_path / "a.h5", config())
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out")
    assert list(files(tmp_path / "out")) == ["a.png", "b.png"]


def test_pictures_of_one_name_with_other_endings_are_all_there(tmp_path: Path) -> None:
    found = exported(tmp_path, {"a.bmp": picture(format="BMP"), "a.png": picture(seed=1), "a.tif": picture(seed=2, format="TIFF")})
    assert list(files(tmp_path / "out")) == ["a.png", "a~2.png", "a~3.png"] and found.files == 3


# What is chosen


def test_classes_conditions_and_splits_choose_rows(tmp_path: Path) -> None:
    members = {f"{n}.png": picture(8 + n, seed=n) for n in range(6)} | {"notes.txt": b"words"}
    found = exported(tmp_path, members, options=ExportOptions(["images"], "width > 9", {"train": 0.5, "test": 0.5}))
    written = files(tmp_path / "out")
    assert {Path(name).name for name in written} == {"2.png", "3.png", "4.png", "5.png"} and found.rows == 4
    assert {Path(name).parent.name for name in written} <= {"train", "test"}
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        images = file["images"]
        train = {images.origin(int(row)).member for row in images.split({"train": 0.5, "test": 0.5})["train"]}
    assert {Path(name).name for name in written if name.startswith("train/")} == train - {"0.png", "1.png"}


def test_a_class_that_a_condition_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    found = exported(tmp_path, {"a.png": picture(), "b.txt": b"words"}, options=ExportOptions(where="height = 6"))
    assert list(files(tmp_path / "out")) == ["a.png"]
    assert [asdict(left) for left in found.left_out] == [{"name": "texts", "rows": 1, "reason": "the class lacks what height = 6 asks for"}]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (ExportOptions(["image"]), InputError, "did you mean 'images'"),
        (ExportOptions(where="depth = 6"), InputError, "no column 'depth'"),
        (ExportOptions(where="height = 7"), InputError, "found no rows to export"),
        (ExportOptions(split="fold"), InputError, "no column 'fold'"),
        (ExportOptions(split={"a": 0.3}), ConfigError, "add up to 1"),
        (ExportOptions(label="height"), InputError, "no column of categories 'height'"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_made(tmp_path: Path, options: ExportOptions, error: type[H5datError], words: str) -> None:
    with pytest.raises(error, match=words):
        exported(tmp_path, {"a.png": picture()}, options=options)
    assert not (tmp_path / "out").exists()


# The destination


def test_a_destination_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture()}), tmp_path / "a.h5", config())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file.json").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    for name, words in (
        ("full", "not empty"),
        ("file.json", "it there already"),
        ("dangling", "it there already"),
        ("file.json/x", "written"),
    ):
        with pytest.raises(OutputError, match=words):
            h5dat_lib.export(tmp_path / "a.h5", tmp_path / name)
    with pytest.raises(OutputError, match="expected a local path"):
        h5dat_lib.export(tmp_path / "a.h5", "s3://bucket/out")
    assert (tmp_path / "file.json").read_text() == "mine" and not (tmp_path / "elsewhere").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.zip", "dangling", "file.json", "full"]


def test_an_empty_folder_is_filled_also_by_a_link_to_it(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture()}), tmp_path / "a.h5", config())
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "link")
    assert list(files(tmp_path / "empty")) == ["a.png"] and (tmp_path / "link").is_symlink()
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_export_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, h5dat: Callable[..., Ran]) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture() for n in range(3)}), tmp_path / "a.h5", config())
    write, calls = folder.write_file, []

    def interrupted(*arguments: object) -> str:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "write_file", interrupted)
    ran = h5dat("export", tmp_path / "a.h5", tmp_path / "out")
    assert ran.code == 130 and ran.out + ran.err in ("", "h5dat: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.zip"]


def test_an_export_that_is_killed_is_not_there(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture() for n in range(3)}), tmp_path / "a.h5", config())
    script = (
        "import os, signal, sys, h5dat_lib\n"
        "from h5dat_lib.exporting import destination\n"
        "destination.Destination._publish = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "h5dat_lib.export(sys.argv[1], sys.argv[2])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, tmp_path / "a.h5", tmp_path / "out"], check=False)
    assert ran.returncode == -signal.SIGKILL and not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.*.part/*.png"))) == 3
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out")
    assert len(files(tmp_path / "out")) == 3
