"""The same pictures in H5DAT and in the formats that others train from: seconds to write them, images a second to read them shuffled.

`python -m tests.benchmarks.peers --folder F` makes an environment of its own in F (peers.txt) and runs peer_formats.py in it, which
sees H5DAT and its libraries behind those of the peers. Every format decodes by the same function, but the folder of files, which
Pillow reads, as torchvision does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "h5dat-peers", help="needs 6 GB")
    parser.add_argument("--rounds", type=int, default=3, help="how often each format is read (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="what the number of pictures is multiplied by (1)")
    options, further = parser.parse_known_args()  # --formats, --cases: of peer_formats
    python = _environment(options.folder)
    words = ["--folder", str(options.folder), "--rounds", str(options.rounds), "--scale", str(options.scale), *further]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "TOKENIZERS_PARALLELISM": "false"}
    sys.exit(subprocess.run([python, "-m", "tests.benchmarks.peer_formats", *words], env=environment, check=False).returncode)


def _environment(folder: Path) -> Path:
    """The Python of an environment with what is pinned in peers.txt, and behind it this one's packages; made once."""
    python, done = folder / "environment" / "bin" / "python", folder / "environment" / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "peers.txt"], check=True)
        (site,) = (folder / "environment").glob("lib/python*/site-packages")
        _stand_in_for_torchvision(python, site)
        (site / "h5dat.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        done.touch()
    return python


def _stand_in_for_torchvision(python: Path, site: Path) -> None:
    """The build that pip takes may be for torch with CUDA and not work; Streaming imports it for datasets that are not used here."""
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
    (site / "torchvision" / "transforms").mkdir(parents=True)
    (site / "torchvision" / "datasets.py").write_text("VisionDataset = CIFAR10 = object\n")
    (site / "torchvision" / "transforms" / "functional.py").write_text("to_tensor = None\n")


if __name__ == "__main__":
    main()
