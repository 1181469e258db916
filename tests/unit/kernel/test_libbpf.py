import errno
import subprocess
import sys

import pytest

from datapath.kernel import abi, libbpf
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.errors import BpfError


def test_junk_is_refused_with_libbpf_s_own_words():
    with pytest.raises(BpfError, match="junk is no eBPF object") as caught:
        BpfObject(b"not an ELF file", "junk")
    assert "not a proper ELF" in caught.value.log


def test_the_verifier_s_log_is_in_the_error(objects):
    with BpfObject((objects / "user.o").read_bytes(), "user") as obj:
        obj.load_only(("out_of_bounds",))
        with pytest.raises(BpfError) as caught:
            obj.load()
    assert caught.value.errno == errno.EACCES
    assert "invalid access to packet" in caught.value.log


def test_only_the_chosen_program_is_loaded(objects):
    with BpfObject((objects / "user.o").read_bytes(), "user") as obj:
        obj.load_only(("tc_pass",))
        obj.load()
        assert libbpf.program_info(obj.program_fd("tc_pass")).type == abi.ProgramType.SCHED_CLS
        with pytest.raises(BpfError):
            obj.program_fd("drop_everything")


def test_configuration_decides_what_the_program_does(objects, config):
    for verdict in (1, 2):
        with BpfObject((objects / "xdp_lb.bpf.o").read_bytes(), "lb") as obj:
            obj.set_initial_value(".rodata.config", config(verdict=verdict, table_size=16381))
            obj.load()
            frame = bytes(range(60))
            assert libbpf.run_program(obj.program_fd("xdp_lb"), frame)[:2] == (verdict, frame)


def test_configuration_of_another_size_is_refused(objects):
    with (
        BpfObject((objects / "xdp_lb.bpf.o").read_bytes(), "lb") as obj,
        pytest.raises(BpfError, match=r"setting .rodata.config to 3 bytes"),
    ):
        obj.set_initial_value(".rodata.config", b"abc")


def test_a_map_that_the_object_lacks(objects):
    with (
        BpfObject((objects / "xdp_lb.bpf.o").read_bytes(), "lb") as obj,
        pytest.raises(BpfError, match="the object has no map 'nonsense'"),
    ):
        obj.map_definition("nonsense")


def test_function_names_are_whole(objects):
    with BpfObject((objects / "user.o").read_bytes(), "user") as obj:
        obj.load_only(("pass_everything_with_a_long_name",))
        obj.load()
        fd = obj.program_fd("pass_everything_with_a_long_name")
        assert libbpf.function_name(fd) == "pass_everything_with_a_long_name"
        assert libbpf.program_info(fd).name == "pass_everything"


def test_without_libbpf_the_error_says_what_to_install():
    code = (
        "import ctypes; real = ctypes.CDLL\n"
        "def absent(name, *a, **k):\n"
        "    if name == 'libbpf.so.1': raise OSError('cannot open shared object file')\n"
        "    return real(name, *a, **k)\n"
        "ctypes.CDLL = absent\n"
        "from datapath.kernel import libbpf\n"
        "libbpf.library()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 1
    assert "install the package libbpf1" in done.stderr
