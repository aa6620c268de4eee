"""What the tests of sessions share."""

import pytest
from session.visitor import ERAS


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    """Both protocol eras, one after the other."""
    return request.param
