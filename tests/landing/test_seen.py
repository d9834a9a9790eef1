"""The memory of a listing: what was seen is not new, unless its content or its output is another."""

from __future__ import annotations

from pathlib import Path

from h5dat_lib.landing.landed import Landed
from h5dat_lib.landing.seen import Seen


def test_what_was_noted_is_not_new_after_a_restart_unless_it_has_changed(tmp_path: Path) -> None:
    landed, other = Landed("b", "k", etag="1"), Landed("b", "é\n'", etag="1")
    seen = Seen(tmp_path / "home" / "seen.sqlite")
    assert seen.new("b", [(landed, "o.h5"), (other, "")]) == [landed, other]
    seen.note(landed, "o.h5", "ingested", "")
    seen.note(other, "", "left out", "of no rule")
    again = Seen(tmp_path / "home" / "seen.sqlite")
    assert again.new("b", [(landed, "o.h5"), (other, "")]) == []
    assert again.new("b", []) == []
    replaced = Landed("b", "k", etag="2")
    assert again.new("b", [(replaced, "o.h5")]) == [replaced]
    assert again.new("b", [(landed, "p.h5"), (other, "q.h5")]) == [landed, other]
    assert again.new("c", [(Landed("c", "k", etag="1"), "o.h5")]) != []
    again.note(replaced, "o.h5", "refused", "no archive")
    assert again.new("b", [(landed, "o.h5")]) == [landed]


def test_a_page_of_a_listing_is_one_question(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen.sqlite")
    page = [(Landed("b", f"{number:06}", etag="1"), "o.h5") for number in range(1000)]
    for landed, output in page[:3]:
        seen.note(landed, output, "ingested", "")
    assert len(seen.new("b", page)) == 997
