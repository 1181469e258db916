import os

import pytest

from datapath.kernel import cgroups
from datapath.kernel.errors import RefusedError


def test_found_again_by_the_id_that_links_tell():
    root = cgroups.mounts()[0]
    inner = root / f"datapath-cgroups-test-{os.getpid()}"
    inner.mkdir()
    try:
        assert cgroups.path_of(inner.stat().st_ino) == str(inner)
        assert cgroups.canonical(f"{inner}/../{inner.name}/") == str(inner)
    finally:
        inner.rmdir()
    assert cgroups.path_of(root.stat().st_ino) == str(root)


@pytest.mark.parametrize("path", ["/etc", "/nonsense", "/sys/fs/cgroup/nonsense", ""])
def test_what_is_no_cgroup(path):
    with pytest.raises(RefusedError, match="is no cgroup v2 directory; cgroup2 is mounted at /"):
        cgroups.canonical(path)
