"""How long a test may take, its fixtures counted, before it is taken for hung (pytest-timeout).

A test that needs longer for a reason of its own says so: `@pytest.mark.timeout(SECONDS)`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# About three times what the longest takes on two processors that others use, too.
SECONDS = {"unit": 60, "integration": 300, "host": 900}
# `checkout` compiles the default image, unless that is there.
WITH_A_WHOLE_BUILD = 900


def seconds(item: pytest.Item) -> int:
    """The bound of *item*, by its folder and by what it has built."""
    if "checkout" in getattr(item, "fixturenames", ()):
        return WITH_A_WHOLE_BUILD
    return SECONDS[item.path.relative_to(HERE).parts[0]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its bound."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds(item)))
