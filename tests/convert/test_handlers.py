import subprocess
import sys

import pytest

from h5dat_lib.convert import HANDLERS, by_extension, formats, handler_for


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.JPG", "jpeg"),
        ("x.jfif", "jpeg"),
        ("x.dib", "bmp"),
        ("x.tif", "tiff"),
        ("x.ndjson", "jsonl"),
        ("x.tab", "csv"),
        ("x.y.txt", "txt"),
    ],
)
def test_an_extension_names_its_handler_in_any_case(path: str, name: str) -> None:
    handler = by_extension(path)
    assert handler is not None
    assert handler.name == name


@pytest.mark.parametrize("path", ["", "noextension", "a.jpg/b", "x.exe", "x."])
def test_other_paths_have_no_handler(path: str) -> None:
    assert by_extension(path) is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"GIF89a", "gif"),
        (b"II+\0\x08\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"RIFF\1\2\3\4WEBPVP8 ", "webp"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "bmp"),
    ],
)
def test_content_outweighs_the_extension(head: bytes, name: str) -> None:
    handler = handler_for(head, "misleading.csv")
    assert handler is not None
    assert handler.name == name


@pytest.mark.parametrize(
    ("head", "path", "name"), [(b"BMW,Audi\n1,2\n", "cars.csv", "csv"), (b"\0\1\2", "x.jpg", "jpeg"), (b"RIFF", "x.webp", "webp")]
)
def test_content_without_a_signature_goes_by_the_extension(head: bytes, path: str, name: str) -> None:
    handler = handler_for(head, path)
    assert handler is not None
    assert handler.name == name


def test_names_and_extensions_are_unique() -> None:
    extensions = [extension for handler in HANDLERS for extension in handler.extensions]
    assert len(set(extensions)) == len(extensions)
    assert len({handler.name for handler in HANDLERS}) == len(HANDLERS)


def test_a_member_has_each_of_its_handlers_once() -> None:
    names = [handler.name for handler in formats(b"\0\0\0\x18ftypmp42", "x.mov")]
    assert names[0] == "mp4" and "soundtrack" in names
    assert len(set(names)) == len(names)


def printed(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_table_loads_no_heavy_library() -> None:
    loaded = printed("import sys, h5dat_lib.convert as c; c.single_threaded(); print(*sys.modules)")
    assert {"cv2", "pyarrow", "charset_normalizer"}.isdisjoint(loaded)


@pytest.mark.parametrize("order", ["c.single_threaded(); import cv2, pyarrow", "import cv2, pyarrow; c.single_threaded()"])
def test_native_libraries_have_one_thread(order: str) -> None:
    code = f"import h5dat_lib.convert as c; {order}; print(cv2.getNumThreads(), pyarrow.cpu_count(), pyarrow.io_thread_count())"
    assert printed(code) == ["1", "1", "1"]
