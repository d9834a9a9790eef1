"""Formats that others train from, each as a class: write pictures, read one, read an epoch of shuffled batches. Run by peers.py."""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import h5dat_lib
from h5dat_lib.training.torch_datasets import collate
from tests.benchmarks.data import photo

BATCH = 64
SINGLES = 200
POOL = 200
"""Different pictures."""


@dataclass(frozen=True)
class Case:
    """Pictures of one size in one storage."""

    count: int
    width: int
    height: int
    decoded: bool

    def __str__(self) -> str:
        return f"{self.count} of {self.width} x {self.height}, {'decoded' if self.decoded else 'encoded'}"


CASES = (
    Case(8000, 80, 60, False), Case(8000, 80, 60, True), Case(3000, 256, 256, False), Case(2000, 256, 256, True),
    Case(512, 1440, 1080, False), Case(256, 1440, 1080, True),
)  # fmt: skip


def decode(data: Any) -> Any:
    """The pixels of a file, or of an array that is kept as it is."""
    return simplejpeg.decode_jpeg(data) if isinstance(data, bytes) else data


def stacked(samples: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack([decode(sample) for sample in samples]))


class Items(Dataset[Any]):
    """A dataset by number, whose batches are read by one call where the format has one."""

    def __init__(self, count: int, read: Callable[[list[int]], list[Any]]) -> None:
        self.count, self.read = count, read

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.read([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        return self.read(numbers)


class Format:
    """One format. ``write`` gets the folder, the encoded files and their case."""

    decoded = encoded = writes = True
    package = ""
    context: str | None = None
    collate = staticmethod(stacked)

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder, self.case = folder, case

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        raise NotImplementedError

    def dataset(self) -> Any:
        raise NotImplementedError

    def loader(self, workers: int) -> Any:
        return DataLoader(
            self.dataset(),
            BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=self.collate,
            persistent_workers=workers > 0,
            multiprocessing_context=self.context if workers else None,
        )

    def single(self) -> Callable[[int], Any] | None:
        dataset = self.dataset()
        return lambda number: decode(dataset[number])


class H5dat(Format):
    package = "h5dat"
    memory_map = False

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        """By the command line, whose start counts: workers that this process would start import torch with this module."""
        settings, output = self.folder / "settings.json", self.folder / "a.h5"
        settings.write_text(json.dumps({"compression": {"filter": "none"}} if self.case.decoded else {}))
        words = ["ingest", files, "-o", output, "-c", settings, "--storage", "decoded" if self.case.decoded else "encoded"]
        subprocess.run([sys.executable, "-m", "flows.cli", *words, "--direct", "--quiet"], check=True)

    def _table(self) -> Any:
        return h5dat_lib.open(self.folder / "a.h5", memory_map=self.memory_map)["images"]

    def loader(self, workers: int) -> Any:
        dataset = self._table().torch("pixels", shuffle=True, batch_size=BATCH)
        return DataLoader(dataset, None, num_workers=workers, persistent_workers=workers > 0)

    def single(self) -> Callable[[int], Any] | None:
        return self._table().pixels.__getitem__


class H5datAgain(H5dat):
    """The same file, read in another way."""

    writes = False

    def __init__(self, folder: Path, case: Case) -> None:
        super().__init__(folder.with_name("H5dat"), case)


class H5datMapped(H5datAgain):
    """Mapped into memory, as Hugging Face maps its files."""

    encoded = False
    memory_map = True


class H5datByNumber(H5datAgain):
    """The other dataset: torch's own sampler."""

    collate = staticmethod(collate)

    def dataset(self) -> Any:
        return self._table().torch("pixels")

    loader = Format.loader

    def single(self) -> Callable[[int], Any] | None:
        return None


class H5py(H5datAgain):
    """The same file, read as one does without H5DAT: by h5py, opened by each worker for itself."""

    package = "h5py"
    single = Format.single

    def dataset(self) -> Any:
        return Items(self.case.count, _H5pyRead(self.folder / "a.h5"))


class _H5pyRead:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: Callable[[int], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "read": None}

    def __call__(self, numbers: list[int]) -> list[Any]:
        self.read = self.read or self._opened()
        return [self.read(number) for number in numbers]

    def _opened(self) -> Callable[[int], Any]:
        column = h5py.File(self.path)["images/pixels"]
        if isinstance(column, h5py.Dataset):
            return column.__getitem__
        values, starts, lengths = column["values"], column["offset"][:].tolist(), column["length"][:].tolist()
        return lambda number: values[starts[number] : starts[number] + lengths[number]].tobytes()


class Memory(Format):
    """What is in memory already, so that the decoder alone, and torch, are measured. Not a format."""

    package = "simplejpeg"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        self.pictures = pictures

    def dataset(self) -> Any:
        return Items(self.case.count, partial(_of_list, self.pictures))


def _of_list(pictures: Sequence[Any], numbers: list[int]) -> list[Any]:
    return [pictures[number] for number in numbers]


def _pillow(paths: Sequence[Path], numbers: list[int]) -> list[Any]:
    return [np.asarray(Image.open(paths[number]).convert("RGB")) for number in numbers]


class Folder(Format):
    """A folder of JPEGs read by Pillow, as torchvision's ImageFolder does; also beside decoded pictures, as what people come from."""

    package = "pillow"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        with zipfile.ZipFile(files) as archive:
            archive.extractall(self.folder)

    def dataset(self) -> Any:
        return Items(self.case.count, partial(_pillow, sorted(self.folder.rglob("*.jpg"))))


class WebDataset(Format):
    package = "webdataset"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        import webdataset

        with webdataset.ShardWriter(str(self.folder / "%04d.tar"), maxcount=self.case.count // 16, verbose=0) as writer:
            for number, picture in enumerate(pictures):
                writer.write({"__key__": f"{number:06}", "npy" if self.case.decoded else "jpg": picture})

    def loader(self, workers: int) -> Any:
        import webdataset

        urls = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000)
        dataset = dataset.map(_npy if self.case.decoded else _jpg).batched(BATCH, collation_fn=stacked)
        return DataLoader(dataset, None, num_workers=workers, persistent_workers=workers > 0)

    def single(self) -> Callable[[int], Any] | None:
        return None


def _npy(sample: dict[str, Any]) -> Any:
    return np.load(io.BytesIO(sample["npy"]))


def _jpg(sample: dict[str, Any]) -> bytes:
    return bytes(sample["jpg"])


class Mds(Format):
    package = "mosaicml-streaming"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        from streaming import MDSWriter

        kind = f"ndarray:uint8:{self.case.height},{self.case.width},3" if self.case.decoded else "bytes"
        with MDSWriter(out=str(self.folder), columns={"picture": kind}) as writer:
            for picture in pictures:
                writer.write({"picture": picture})

    def dataset(self) -> Any:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        return StreamingDataset(local=str(self.folder), shuffle=True, batch_size=BATCH)

    def loader(self, workers: int) -> Any:
        return DataLoader(self.dataset(), BATCH, num_workers=workers, collate_fn=_of_key, persistent_workers=workers > 0)

    def single(self) -> Callable[[int], Any] | None:
        dataset = self.dataset()
        return lambda number: decode(dataset[number]["picture"])


def _of_key(samples: Sequence[Any]) -> torch.Tensor:
    return stacked([sample["picture"] for sample in samples])


def _as_it_is(picture: Any) -> Any:
    return {"picture": picture}


class LitData(Format):
    package = "litdata"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        import litdata

        litdata.optimize(_as_it_is, list(pictures), str(self.folder), chunk_bytes="64MB", num_workers=2, verbose=False)

    def dataset(self) -> Any:
        import litdata

        return litdata.StreamingDataset(str(self.folder), shuffle=True)

    def loader(self, workers: int) -> Any:
        import litdata

        return litdata.StreamingDataLoader(
            self.dataset(), batch_size=BATCH, num_workers=workers, collate_fn=_of_key, persistent_workers=workers > 0
        )

    def single(self) -> Callable[[int], Any] | None:
        dataset = self.dataset()
        return lambda number: decode(dataset[number]["picture"])


class Lance(Format):
    package = "pylance"
    context = "spawn"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        import lance
        import pyarrow as pa

        raw = [picture if isinstance(picture, bytes) else picture.tobytes() for picture in pictures]
        lance.write_dataset(pa.table({"picture": pa.array(raw, pa.large_binary())}), str(self.folder / "a.lance"))

    def dataset(self) -> Any:
        return Items(self.case.count, _LanceRead(str(self.folder / "a.lance"), self.case))


class _LanceRead:
    def __init__(self, path: str, case: Case) -> None:
        self.path, self.case, self.opened = path, case, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def __call__(self, numbers: list[int]) -> list[Any]:
        import lance

        self.opened = self.opened or lance.dataset(self.path)
        return _raw(self.opened.take(numbers)["picture"].to_pylist(), self.case)


def _raw(found: Sequence[bytes], case: Case) -> list[Any]:
    if not case.decoded:
        return list(found)
    return [np.frombuffer(data, "u1").reshape(case.height, case.width, 3) for data in found]


class HuggingFace(Format):
    package = "datasets"

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        import datasets

        raw = [picture if isinstance(picture, bytes) else picture.tobytes() for picture in pictures]
        features = datasets.Features({"picture": datasets.Value("large_binary")})
        datasets.Dataset.from_dict({"picture": raw}, features=features).save_to_disk(str(self.folder))

    def dataset(self) -> Any:
        import datasets

        return Items(self.case.count, partial(_of_arrow, datasets.load_from_disk(str(self.folder)), self.case))


def _of_arrow(table: Any, case: Case, numbers: list[int]) -> list[Any]:
    return _raw(table[numbers]["picture"], case)


class Zarr(Format):
    package = "zarr"
    encoded = False

    def write(self, files: Path, pictures: Sequence[Any]) -> None:
        import zarr

        shape = (self.case.count, self.case.height, self.case.width, 3)
        array = zarr.create_array(str(self.folder / "a.zarr"), shape=shape, chunks=(1, *shape[1:]), dtype="u1", compressors=None)
        for first in range(0, self.case.count, 500):
            array[first : first + 500] = np.stack(pictures[first : first + 500])

    def dataset(self) -> Any:
        import zarr

        return Items(self.case.count, partial(_of_zarr, zarr.open_array(str(self.folder / "a.zarr"), mode="r")))


def _of_zarr(array: Any, numbers: list[int]) -> list[Any]:
    return list(array.oindex[np.asarray(numbers)] if len(numbers) > 1 else array[numbers[0]][None])


FORMATS: tuple[type[Format], ...] = (
    H5dat,
    H5datMapped,
    H5datByNumber,
    H5py,
    Memory,
    Folder,
    WebDataset,
    Mds,
    LitData,
    Lance,
    HuggingFace,
    Zarr,
)


# Measuring


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--formats", nargs="*")
    parser.add_argument("--cases", nargs="*", type=int, default=range(len(CASES)))
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}")
    for case in (CASES[number] for number in options.cases):
        case = Case(int(case.count * options.scale), case.width, case.height, case.decoded)
        kinds = [kind for kind in FORMATS if (kind.decoded if case.decoded else kind.encoded)]
        kinds = [kind for kind in kinds if not options.formats or kind.__name__ in options.formats]
        _compare(options.folder / str(case).replace(" ", "-").replace(",", ""), case, kinds, options.rounds)


def _compare(folder: Path, case: Case, kinds: Sequence[type[Format]], rounds: int) -> None:
    print(f"\n{case}\n\n| format | write s | MB | one image us | images/s, 0 workers | 1 | 2 |\n|---|---|---|---|---|---|---|", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    files, pictures = _pictures(folder, case)
    formats = [kind(folder / kind.__name__, case) for kind in kinds]
    written = [_written(one, files, pictures) for one in formats]
    found: list[list[list[float]]] = [[[] for _ in range(4)] for _ in formats]
    for _ in range(rounds):
        for one, columns in zip(formats, found, strict=True):
            columns[0].append(_singles(one))
            for workers in range(3):
                columns[1 + workers].append(_rate(one, workers))
    for one, seconds, columns in zip(formats, written, found, strict=True):
        rates = " | ".join(_against(column, base) for column, base in zip(columns, found[0], strict=True))
        size = sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file()) / 1e6
        print(f"| {type(one).__name__} ({version(one.package)}) | {seconds:.2f} | {size:.1f} | {rates} |", flush=True)


def _against(column: Sequence[float], base: Sequence[float]) -> str:
    """The median, and the median of the ratios to H5DAT, round by round."""
    if any(np.isnan(column)):
        return "-"
    ratio = statistics.median(a / b for a, b in zip(column, base, strict=True)) if not any(np.isnan(base)) else float("nan")
    return f"{statistics.median(column):,.0f} ({ratio:.2f})"


def _pictures(folder: Path, case: Case) -> tuple[Path, list[Any]]:
    """A stored zip of JPEGs, and what each format is given of it: files, or their pixels."""
    rng = np.random.default_rng(1)
    pool = [photo(rng, case.width, case.height) for _ in range(min(POOL, case.count))]
    files = [pool[number % POOL] for number in range(case.count)]
    path = folder / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, data in enumerate(files):
            archive.writestr(f"{number:06}.jpg", data)
    return path, [decode(data) for data in files] if case.decoded else files


def _written(one: Format, files: Path, pictures: Sequence[Any]) -> float:
    if not one.writes:
        return float("nan")
    shutil.rmtree(one.folder, ignore_errors=True)
    one.folder.mkdir()
    started = time.perf_counter()
    one.write(files, pictures)
    return time.perf_counter() - started


def _singles(one: Format) -> float:
    """Microseconds of one image, at random."""
    read = one.single()
    if read is None:
        return float("nan")
    numbers = random.Random(1).sample(range(one.case.count), min(SINGLES, one.case.count))
    read(numbers[0])
    started = time.perf_counter()
    for number in numbers:
        read(number)
    return (time.perf_counter() - started) / len(numbers) * 1e6


def _rate(one: Format, workers: int) -> float:
    """Images a second of an epoch, the second of two: workers have been started."""
    loader = one.loader(workers)
    for _ in _batches(loader):
        pass
    started = time.perf_counter()
    images = sum(len(batch) for batch in _batches(loader))
    assert images == one.case.count, (type(one).__name__, images, one.case.count)
    return images / (time.perf_counter() - started)


def _batches(loader: Any) -> Iterator[Any]:
    yield from loader


if __name__ == "__main__":
    main()
