"""Reads pictures and where they came from with h5py alone, no h5dat needed: python samples/read_with_h5py.py FILE.h5"""

from __future__ import annotations

import sys
from typing import Any

import h5py
import numpy as np


def picture(pixels: Any, i: int) -> Any:
    """Row i as (height, width, channels): a dense column is one dataset, a ragged one a group of flat bytes and where each row lies."""
    if isinstance(pixels, h5py.Dataset):
        return np.asarray(pixels[i])
    o, n = int(pixels["offset"][i]), int(pixels["length"][i])
    return np.asarray(pixels["values"][o : o + n]).view(np.dtype(pixels["dtype"].asstr()[i])).reshape(pixels["shape"][i])


def text(column: h5py.Group, i: int) -> str:
    """Row i of a text column."""
    o, n = int(column["offset"][i]), int(column["length"][i])
    return bytes(column["values"][o : o + n]).decode()


def main(path: str) -> None:
    with h5py.File(path, "r") as f:
        images, paths = f["images"], f["lineage/members/path"]
        for i, member in enumerate(images["_member"][:]):
            a = picture(images["pixels"], i)
            print(f"{text(paths, member):24} {a.shape!s:16} {a.dtype} mean {a.mean():.1f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
