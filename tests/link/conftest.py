"""Time for the tests of the link."""

import pytest
from understudy.actors.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
