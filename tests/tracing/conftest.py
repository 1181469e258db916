import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def in_the_guest():
    """The guest of tools/kernels/tracing.py has the headers of its kernel; other machines may have anything."""
    if "DATAPATH_TEST_TRACING" not in os.environ:
        pytest.skip("runs in the guest of `make test-tracing`")
