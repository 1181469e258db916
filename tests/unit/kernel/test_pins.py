import subprocess
import sys

import pytest

from datapath.kernel.pins import Pins, ensure_bpffs, is_bpffs


def test_device_names_lose_their_dots(tmp_path):
    assert Pins(tmp_path).load_balancer_link("eth0.100").name == "xdp_eth0~100"


@pytest.mark.parametrize("name", ["", "a/b"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be pinned"):
        Pins(tmp_path).program(name)


def test_created_directories_go_when_they_are_empty(pins):
    place = Pins(pins)
    place.create()
    assert is_bpffs(place.maps)
    place.remove_empty()
    assert not pins.exists()


def test_a_bpffs_is_mounted_where_none_is(tmp_path):
    root = tmp_path / "bpf" / "datapath"
    ensure_bpffs(root)
    try:
        assert is_bpffs(root.parent)
    finally:
        subprocess.run(["umount", root.parent], check=True)
    assert not is_bpffs(root.parent)


def test_nothing_is_mounted_in_a_service_s_own_mount_namespace(tmp_path):
    code = f"from datapath.kernel.pins import ensure_bpffs, Path; ensure_bpffs(Path({str(tmp_path / 'b' / 'd')!r}))"
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", code],
        check=False, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "mount -t bpf bpf" in done.stderr
    assert not (tmp_path / "b").exists()
