"""The fixtures of the fault matrix."""

from __future__ import annotations

import pytest

from tests.faults.matrix import Figure


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Says what was measured; it stands in the table of `make faults`."""

    def say(text: str) -> None:
        request.node.user_properties.append(("figure", text))

    return say
