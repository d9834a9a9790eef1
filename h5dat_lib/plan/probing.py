"""First members of a class -> what is decided of its rows before any is made: how pixels are cut, and which keys become columns."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection

from h5dat_lib.archive.member import Content, Member, SourceReader
from h5dat_lib.archive.packed import unpacked
from h5dat_lib.columns import FRAMES, Block, Bytes
from h5dat_lib.config import Config, Limits, MediumOptions
from h5dat_lib.convert import handler_for, image, video
from h5dat_lib.errors import MemberError
from h5dat_lib.plan.layout import Forms, pixel_layout
from h5dat_lib.plan.schema import Class
from h5dat_lib.storage import aws

__all__ = ["PROBED", "PROBES", "OpenMembers", "decide"]

PROBED = 32
"""Members of a class that are looked at."""
_DOCUMENTS = 1000
"""Documents that are looked at for their common keys."""
_DOCUMENT_BYTES = 8 << 20
"""Larger members of a class are not looked at for them."""
Shape = tuple[tuple[int, ...], str]
"""Shape of a picture, and its dtype."""


OpenMembers = Callable[[], SourceReader]
"""Opens the source that members are read from; another process may be sent it."""


def decide(forms: Forms, firsts: Mapping[Class, Sequence[Member]], open_members: OpenMembers, config: Config) -> None:
    """Adds what the first members of classes decide, where nothing is decided yet.

    A member that cannot be read has no say: it becomes a reject when it is converted, with its reason.
    """
    with closing(open_members()) as reader:
        for class_, members in firsts.items():
            PROBES[class_.medium](forms, class_.name, _Samples(reader, members, open_members), config)


class _Samples:
    """The first members of a class, in a source."""

    def __init__(self, reader: SourceReader, members: Sequence[Member], open_members: OpenMembers) -> None:
        self.members = members
        self.open_members = open_members
        self._reader = reader

    def contents(self, limits: Limits) -> Iterator[Content]:
        """Their bytes."""
        return _contents(self._reader, self.members, limits)


def _contents(reader: SourceReader, members: Sequence[Member], limits: Limits) -> Iterator[Content]:
    reader.expect(members)
    for member in members:
        content = Content(reader, member, limits)
        try:
            yield unpacked(content) or content
        except MemberError:
            continue


def _decide_pictures(forms: Forms, name: str, samples: _Samples, config: Config) -> None:
    if name in forms.layouts:
        return
    options = config.options(name).image
    if options.storage == "encoded":  # nothing is cut; in S3 each look would be fetched beside the run
        return
    shapes = []
    for content in samples.contents(config.limits):
        try:
            shapes.append(image.probe(content.read(), options, config.limits))
        except MemberError:
            continue
    forms.layouts[name] = pixel_layout(shapes, options)


def _decide_frames(forms: Forms, name: str, samples: _Samples, config: Config) -> None:
    """In a process of its own, where members are converted in processes: opening a video runs much foreign code on foreign bytes."""
    table, options = f"{name}/{FRAMES}", config.options(name)
    if table in forms.layouts:
        return
    if options.video.resize and options.video.resize.mode != "fit":
        size, channels = options.video.resize, 1 if options.video.color == "L" else 3
        forms.layouts[table] = pixel_layout([((size.height, size.width, channels), "|u1")], options.video)
        return
    look = partial(_video_shapes, samples.open_members, samples.members, options, config)
    shapes = look() if config.task_runner == "threads" else _elsewhere(look, config.limits.member_seconds)
    forms.layouts[table] = pixel_layout(shapes, options.video)


def _elsewhere(look: Callable[[], list[Shape]], seconds: float) -> list[Shape]:
    """What a process of its own finds; nothing when it dies of it, or has found nothing after so long."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(look, sender), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(seconds) else []
    except EOFError:
        return []
    finally:
        process.kill()
        process.join()


def _answer(look: Callable[[], list[Shape]], sender: Connection) -> None:
    sender.send(look())


def _video_shapes(open_members: OpenMembers, members: Sequence[Member], options: MediumOptions, config: Config) -> list[Shape]:
    aws.use(config.s3)
    shapes = []
    with closing(open_members()) as reader:
        for content in _contents(reader, members, config.limits):
            try:
                handler = handler_for(content.head(), content.member.path, "videos")
                if handler and handler.medium == "videos":
                    shapes.append(video.probe(content, options))
            except MemberError:
                continue
    return shapes


def _decide_keys(forms: Forms, name: str, samples: _Samples, config: Config) -> None:
    if name in forms.keys or config.options(name).document.columns != "common":
        return
    from h5dat_lib.convert.document import common_keys

    documents = (document for content in samples.contents(config.limits) for document in _documents(content))
    forms.keys[name] = common_keys(islice(documents, _DOCUMENTS))


def _documents(content: Content) -> Iterator[bytes]:
    """The first documents of a member that is JSON; those of other formats have no keys in common to look for."""
    if content.member.size > _DOCUMENT_BYTES:
        return
    try:
        handler = handler_for(content.head(), content.member.path, "documents")
        blocks = handler.convert(content, _PLAIN) if handler and handler.name in ("json", "jsonl") else iter(())
        for block in blocks:
            if isinstance(block, Block) and isinstance(block.columns["document"], Bytes):
                yield from block.columns["document"].values
    except MemberError:
        return


_PLAIN = MediumOptions.model_validate({"document": {"pairs": False, "columns": "none"}})
PROBES: dict[str, Callable[[Forms, str, _Samples, Config], None]] = {
    "images": _decide_pictures,
    "videos": _decide_frames,
    "documents": _decide_keys,
}
"""What the first members decide, by the medium of their class."""
