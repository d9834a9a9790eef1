"""What the tests share: archives made on the spot, and the command line run in this process."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.config import Config, parse


def picture(width: int = 8, height: int = 6, seed: int = 0, mode: str = "RGB", format: str = "PNG") -> bytes:
    """A small picture of noise, encoded by Pillow."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype="u1")
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, format)
    return out.getvalue()


def make_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of these members, written by the standard library."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """A tar, by the standard library."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_folder(path: Path, members: Mapping[str, bytes]) -> Path:
    """A folder of files, with the folders within it that the names ask for."""
    path.mkdir(exist_ok=True)
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def config(**settings: object) -> Config:
    """A configuration that runs in threads, so that a test does not wait for processes to start."""
    return parse({"task_runner": "threads", "workers": 2, **settings})


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def h5dat(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process."""
    from flows.cli import main

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["h5dat", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def threads(tmp_path: Path) -> Path:
    """A configuration file that runs in threads."""
    path = tmp_path / "threads.json"
    path.write_text('{"task_runner": "threads"}')
    return path
