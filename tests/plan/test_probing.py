"""What is looked at before a run, in a process that may die or hang."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import pytest

from h5dat_lib.plan.probing import _elsewhere


@pytest.mark.parametrize("look", [partial(os._exit, 3), partial(os.abort), partial(time.sleep, 60)])
def test_a_look_that_dies_or_hangs_finds_nothing(look: Any) -> None:
    started = time.monotonic()
    assert _elsewhere(look, 2) == []
    assert time.monotonic() - started < 20


def test_what_a_look_finds_comes_back() -> None:
    assert _elsewhere(partial(list, [((1, 2, 3), "|u1")]), 30) == [((1, 2, 3), "|u1")]
