"""What tests of packing share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.packing.helpers import Watched


@pytest.fixture
def watched() -> Iterator[type[Watched]]:
    Watched.peak = Watched.calls = 0
    Watched.alive.clear()
    yield Watched
    Watched.alive.clear()
