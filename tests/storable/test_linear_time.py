"""Reading takes time in proportion to the size of the image, whatever the image contains."""

from __future__ import annotations

import pytest

from tests.storable.growth import BOUND, growth
from tests.storable.hostile import ALL, try_thaw

SIZE = 100_000
#: Strings are compared so fast that it only shows in large images.
LARGE = 500_000


@pytest.mark.parametrize("name", ALL)
def test_reading(name: str) -> None:
    """An image of four times the size takes about four times as long."""
    make, options = ALL[name]
    size = LARGE if "equal key" in name else SIZE
    assert growth(make, lambda image: try_thaw(image, options), size) < BOUND
