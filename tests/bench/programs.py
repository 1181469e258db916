"""The harness's own programs: compiled into build/bench, loaded."""

import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

from datapath.kernel import libbpf
from datapath.kernel.bpf_object import BpfObject

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / "build" / "bench"
PRODUCT = REPOSITORY / "build" / "bpf" / "xdp_lb.bpf.o"
SOURCES = Path(__file__).parent / "programs"
_FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
_RUN_TIME = 0
"""enum bpf_stats_type: BPF_STATS_RUN_TIME."""
_HELPER_CALL = re.compile(r"\t85 00 00 00 (..) (..) (..) (..)\s")
"""An instruction of llvm-objdump: BPF_CALL with source register 0, so neither of an own function nor of a kfunc."""


def build_product():
    subprocess.run(("make", "--silent", "-f", "bpf/build.mk", "bpf"), cwd=REPOSITORY, check=True)


def compiled(source, name, *flags):
    """The object file of `source`, made anew, as bytes."""
    BUILD.mkdir(parents=True, exist_ok=True)
    target = BUILD / f"{name}.bpf.o"
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run(("clang", *_FLAGS, "-idirafter", include, *flags, "-c", source, "-o", target), check=True)
    return target.read_bytes()


def own(name):
    """An object of this directory, opened."""
    return BpfObject(compiled(SOURCES / f"{name}.bpf.c", name), name)


def counted():
    """The load balancer, opened, that counts its helper calls (programs/counted.h)."""
    source = REPOSITORY / "bpf" / "xdp_lb.bpf.c"
    return BpfObject(compiled(source, "counted", "-include", str(SOURCES / "counted.h")), "counted")


def helper_ids(path=PRODUCT):
    """Numbers (enum bpf_func_id) of the helpers that an object file calls anywhere."""
    listing = subprocess.run(("llvm-objdump", "-d", path), check=True, capture_output=True, text=True).stdout
    return {int("".join(reversed(groups)), 16) for groups in _HELPER_CALL.findall(listing)}


def load_on(obj, maps, config, **sections):
    """Load an object made of the load balancer's parts on the maps in service (name -> file descriptor)."""
    for name in obj.map_names():
        if "." not in name:
            obj.reuse_map(name, maps[name])
    obj.set_initial_value(".rodata.config", config)
    for name, value in sections.items():
        obj.set_initial_value(f".rodata.{name}", value)
    obj.load()


def _told(program):
    """What the kernel tells of a loaded program: name -> text."""
    lines = Path(f"/proc/self/fdinfo/{program}").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def verified_instructions(program):
    """Instructions that the verifier looked at when it loaded a program; None on kernels that do not tell (< 5.16)."""
    told = _told(program).get("verified_insns")
    return None if told is None else int(told)


def runs(program):
    """(runs, nanoseconds) of a loaded program while the kernel kept statistics (`statistics`)."""
    told = _told(program)
    return int(told["run_cnt"]), int(told["run_time_ns"])


@contextmanager
def statistics():
    """The kernel counts runs of all programs, and reads the clock around each (BPF_ENABLE_STATS)."""
    fd = libbpf.check(libbpf.library().bpf_enable_stats(_RUN_TIME), "switching statistics of programs on")
    with libbpf.closing(fd):
        yield


def sizes(program):
    """(instructions, bytes of machine code) of a loaded program."""
    info = libbpf.program_info(program)
    return info.xlated_prog_len // 8, info.jited_prog_len
