"""In a guest of `make test-kernels`: what the probe says of a kernel is what the kernel's history says.

Elsewhere there is no history to compare with, and these tests are skipped.
"""

import json
import os
import re
from pathlib import Path

import pytest

from datapath.kernel import features

SINCE = {
    "bpf": "3.18",
    "btf": "5.2",
    "jit": "3.18",
    "map_in_map": "4.12",
    "lru_hash": "4.10",
    "batch": "5.6",
    "map_in_map_batch": "5.19",  # 9263dddc7b6f
    "xdp_link": "5.9",  # aa8d3a716b59
    "xdp_frags": "5.18",  # c2f2cdbeffda
    "fib_lookup": "4.18",
    "jiffies64": "5.6",  # 5576b991e9c1
    "bpf_loop": "5.17",  # e6f2dd0f8067
    "tcx": "6.6",  # e420bed02507
    "cgroup_link": "5.7",  # af6eea57437a
    "neighbour_managed": "5.16",  # 7482e3841d52
    "test_run_device": "5.15",  # 47316f4a3053
    "sch_fq": "3.12",  # a module of Debian's
    "tcp_bbr": "4.9",  # a module of Debian's
    "delivery_time": "5.18",  # 8d21ec0e46ed, 9bb984f28d5b
    "sock_ops_netns": "5.15",
}
"""Feature -> the first kernel that has it."""

pytestmark = pytest.mark.skipif("DATAPATH_TEST_KERNEL" not in os.environ, reason="only in a guest")


def number(version):
    return tuple(map(int, version.split(".")))


@pytest.fixture(scope="module")
def expected():
    kernel = number(os.environ["DATAPATH_TEST_KERNEL"])
    return {name: kernel >= number(since) for name, since in SINCE.items()}


def test_this_is_the_kernel_that_was_asked_for():
    assert re.match(re.escape(os.environ["DATAPATH_TEST_KERNEL"]) + r"\.", os.uname().release)


def test_the_probe_tells_this_kernel_s_truth(expected):
    measured = features.probe()
    Path("/run/results/features.json").write_text(json.dumps(measured, indent=1))
    assert measured == expected
