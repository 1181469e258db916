"""The guests of tools/kernels/bandwidth.py have qdisc fq and nothing else to do; other machines may have anything."""

import json
import os
from pathlib import Path

import pytest

from bandwidth.topology import bandwidth_node

RESULTS = os.environ.get("DATAPATH_TEST_BANDWIDTH")
"""Directory for what was measured."""


class Figures:
    """What was measured, for docs/bandwidth.md; kept at every step, as a guest may end early."""

    def __init__(self, file):
        self.file = file
        self.found = {"kernel": os.uname().release}

    def note(self, name, value):
        self.found[name] = value
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")


@pytest.fixture(scope="session", autouse=True)
def in_the_guest():
    if RESULTS is None:
        pytest.skip("runs in the guests of `make test-bandwidth`")


@pytest.fixture(scope="session")
def figures():
    return Figures(Path(RESULTS, "bandwidth.json"))


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    with bandwidth_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture
def node(running):
    """The node, with nothing on its way."""
    running.settle()
    return running
