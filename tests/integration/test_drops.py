"""`datapath drops` on a machine that lacks what it takes; where it has that, tests/tracing shows the rest."""

import os
from pathlib import Path

import pytest


@pytest.mark.skipif(
    Path("/lib/modules", os.uname().release, "build").is_dir(), reason="this machine has the headers of its kernel"
)
def test_refused_with_the_remedy(node):
    error = node.ask("drops", "--seconds", "1", code=2)["errors"][0]
    assert error["path"] in ("python3-bpfcc", f"linux-headers-{os.uname().release}")
    assert "role ebpf.datapath.tracing installs what is missing" in error["message"]
    text = node.run("drops", "--seconds", "1")
    assert (text.returncode, text.stdout) == (2, "")
    assert error["message"] in text.stderr
