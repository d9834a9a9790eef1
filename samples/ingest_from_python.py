"""Ingests an archive and reads it back, all from Python and without Prefect: python samples/ingest_from_python.py IN OUT.h5

Pictures of one size make a dense column, which PyTorch, JAX or numpy can index in batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5dat_lib
from h5dat_lib import config

TRAINING = Path(__file__).with_name("configs") / "training-224.json"


def main(archive: str, output: str) -> None:
    h5dat_lib.ingest(archive, output, config=config.load(TRAINING))
    with h5dat_lib.open(output) as f:
        print("classes:", ", ".join(f.classes))
        images = f["images"]
        for i in range(len(images)):
            print(images.origin(i), images.pixels[i].shape)


if __name__ == "__main__":  # worker processes import this file anew
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
