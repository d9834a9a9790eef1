"""Makes a small zip of mixed files: python samples/make_archive.py OUT.zip

The pictures and records beside this script, in order of their path. Made twice, the archive is the same byte for byte.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

SAMPLES = Path(__file__).resolve().parent
COMPRESSED = {".gif", ".jpg", ".png", ".webp"}
"""Extensions of formats that are compressed already; such members are stored, all others deflated."""
LEFT_OUT = {".md"}


def sources() -> list[Path]:
    """The files that go into the archive, in order of their path in it."""
    files = [path for folder in ("pictures", "records") for path in (SAMPLES / folder).rglob("*")]
    return sorted(path for path in files if path.is_file() and path.suffix not in LEFT_OUT and not path.name.startswith("."))


def build(out: Path) -> int:
    """Writes the archive and returns how many members it has."""
    files = sources()
    with zipfile.ZipFile(out, "w") as archive:
        for path in files:
            member = zipfile.ZipInfo(path.relative_to(SAMPLES).as_posix(), date_time=(2026, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_STORED if path.suffix in COMPRESSED else zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, 0o644 << 16  # Unix, on every system
            archive.writestr(member, path.read_bytes())
    return len(files)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    print(f"{target}: {build(target)} members")
