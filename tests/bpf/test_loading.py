"""Every program that ships passes the verifier under every option combination; its work is recorded."""

import itertools
import json
import os
from pathlib import Path

import pytest

from bpf.conftest import REPOSITORY
from datapath.compile.layouts import HISTORIES, LUTS, MODE_DSR, MODE_SNAT, BandwidthConfig, Config, NodeConfig
from datapath.kernel import features, libbpf, load_balancer
from datapath.kernel.abi import MapType
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.errors import BpfError

TABLE_SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)
SWITCHES = ("enable_ipv4", "enable_ipv6", "wildcard_entries", "reject_without_backend")
MODES = {
    "snat": (MODE_SNAT, 0),
    **{f"dsr-{name}": (MODE_DSR, number) for number, name in enumerate(("opt", "ipip", "geneve"), 1)},
    **{f"hybrid-{name}": (MODE_SNAT | MODE_DSR, number) for number, name in enumerate(("opt", "ipip", "geneve"), 1)},
}
COMBINATIONS = list(itertools.product((0, 1), repeat=len(SWITCHES)))
IN_GUEST = "DATAPATH_TEST_KERNEL" in os.environ
"""In an emulated guest a program takes a second or two."""


def combinations_of(mode):
    """Of the switches: all; in a guest all on and all off, and each one alone off in the modes with the most code."""
    if not IN_GUEST:
        return COMBINATIONS
    off = (0, 1, len(SWITCHES)) if mode.startswith("hybrid") else (0, len(SWITCHES))
    return [each for each in COMBINATIONS if each.count(0) in off]


BUDGET = 300_000
"""Instructions that the verifier may look at; the kernel's limit is a million, and older kernels need more."""
RECORD = REPOSITORY / "build" / "bpf" / "verifier.json"
GLOBAL_FUNCTIONS_ON_CALL = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 8)
"""Before (2afae08c9dcb) the verifier looks at a global function whether or not what calls it is switched off."""


def load(path, table_size, **fields):
    """Instructions that the verifier processed, None on kernels that do not tell (before 5.16)."""
    config = Config(
        snat_port_min=1024, snat_port_max=29999, maglev_table_size=table_size, tcp_established_timeout=2000000,
        tcp_closing_timeout=2500, any_timeout=15000, **fields,
    )  # fmt: skip
    config.snat_address4[:] = bytes(10) + b"\xff\xff" + b"\x0a\0\0\1"
    config.snat_address6[:] = b"\xfd" + bytes(14) + b"\1"
    with (
        BpfObject(path.read_bytes(), path.name) as obj,
        libbpf.closing(libbpf.map_create(MapType.ARRAY, "lut", 4, table_size * 4 + 4, max_entries=1)) as template,
    ):
        for name in obj.map_names():
            if name in (LUTS, HISTORIES):
                obj.set_inner_map(name, template)
            if "." not in name and obj.map_definition(name).max_entries > 64:
                obj.set_max_entries(name, 64)
        (program,) = obj.programs()
        load_balancer.set_config(obj, program.name, bytes(config))
        obj.load()
        info = Path(f"/proc/self/fdinfo/{obj.program_fd(program.name)}").read_text()
    counts = [int(line.split()[1]) for line in info.splitlines() if line.startswith("verified_insns")]
    return counts[0] if counts else None


def loads_under_every_combination(lb_object, name, table_size):
    path = lb_object.parent / f"{name}.bpf.o"
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    counts = {}
    for mode, (modes, dispatch) in MODES.items():
        for values in combinations_of(mode):
            fields = {**dict(zip(SWITCHES, values)), "forwarding_modes": modes, "dsr_dispatch": dispatch}
            counts[f"{mode} {''.join(map(str, values))}"] = load(path, table_size, **fields)
    RECORD.write_text(json.dumps({**record, f"{name} {table_size}": counts}, indent=1, sort_keys=True))
    known = [count for count in counts.values() if count is not None]
    assert max(known, default=0) < BUDGET
    # What is switched off is not even looked at.
    if known and GLOBAL_FUNCTIONS_ON_CALL:
        for mode in MODES:
            assert counts[f"{mode} 0000"] * 10 < counts[f"{mode} 1111"]


@pytest.mark.parametrize("table_size", TABLE_SIZES)
def test_loads_under_every_combination(lb_object, table_size):
    loads_under_every_combination(lb_object, "xdp_lb", table_size)


# The same functions behind another context: the size of tables is a number in both.
@pytest.mark.parametrize("table_size", [TABLE_SIZES[0], TABLE_SIZES[-1]])
def test_loads_under_every_combination_at_tc(lb_object, table_size):
    loads_under_every_combination(lb_object, "tc_lb", table_size)


WAYS = ("transmit", "vlans", "multi_buffer", "peers")
"""What devices and other load balancers ask for."""


@pytest.mark.parametrize("mode", MODES)
def test_loads_for_all_kinds_of_surroundings(lb_object, mode):
    modes, dispatch = MODES[mode]
    fields = {**dict.fromkeys(SWITCHES, 1), "forwarding_modes": modes, "dsr_dispatch": dispatch}
    known = [way for way in WAYS if way != "multi_buffer" or features.has("xdp_frags")]
    # In a guest all of them together.
    for values in [(1,) * len(known)] if IN_GUEST else itertools.product((0, 1), repeat=len(known)):
        count = load(lb_object, TABLE_SIZES[0], **fields, **dict(zip(known, values)))
        assert count is None or count < BUDGET


@pytest.mark.parametrize("mode", MODES)
def test_loads_beside_other_load_balancers_at_tc(lb_object, mode):
    modes, dispatch = MODES[mode]
    fields = {**dict.fromkeys(SWITCHES, 1), "forwarding_modes": modes, "dsr_dispatch": dispatch}
    count = load(lb_object.parent / "tc_lb.bpf.o", TABLE_SIZES[0], **fields, peers=1)
    assert count is None or count < BUDGET


NODE_SWITCHES = ("enable_ipv4", "enable_ipv6", "enable_opt", "enable_geneve", "enable_ipip")


def test_loads_under_every_combination_node(lb_object):
    """The programs on the nodes that backends are on."""
    path = lb_object.parent / "tc_node.bpf.o"
    for values in itertools.product((0, 1), repeat=len(NODE_SWITCHES)):
        with BpfObject(path.read_bytes(), path.name) as obj:
            obj.set_initial_value(".rodata.config", bytes(NodeConfig(**dict(zip(NODE_SWITCHES, values)))))
            obj.load()
            for program in obj.programs():
                info = Path(f"/proc/self/fdinfo/{obj.program_fd(program.name)}").read_text()
                counts = [int(line.split()[1]) for line in info.splitlines() if line.startswith("verified_insns")]
                assert max(counts, default=0) < BUDGET


def test_loads_bandwidth(lb_object):
    """The programs of the bandwidth manager, whoever routes what endpoints send."""
    path = lb_object.parent / "tc_bandwidth.bpf.o"
    sizes = {}
    for route in (0, 1):
        with BpfObject(path.read_bytes(), path.name) as obj:
            obj.set_initial_value(".rodata.config", bytes(BandwidthConfig(horizon=2 * 10**9, route=route)))
            obj.load()
            found = {program.name: obj.program_fd(program.name) for program in obj.programs()}
            assert found.keys() == {f"tc_bandwidth_{name}" for name in ("mark", "egress", "ingress")}
            sizes[route] = {name: libbpf.program_info(fd).xlated_prog_len // 8 for name, fd in found.items()}
    # The stack's routing costs no instruction of ours, nor does ours where packets leave.
    assert sizes[0]["tc_bandwidth_mark"] * 5 < sizes[1]["tc_bandwidth_mark"]
    assert (sizes[0]["tc_bandwidth_egress"], sizes[0]["tc_bandwidth_ingress"]) == (
        sizes[1]["tc_bandwidth_egress"],
        sizes[1]["tc_bandwidth_ingress"],
    )


def test_table_smaller_than_configured_is_refused(lb_object, monkeypatch):
    """The verifier itself keeps a slot within its table."""
    create = libbpf.map_create

    def smaller(kind, name, key_size, value_size, **more):
        return create(kind, name, key_size, value_size - 8, **more)

    monkeypatch.setattr(libbpf, "map_create", smaller)
    with pytest.raises(BpfError) as caught:
        load(lb_object, 251, enable_ipv4=1, forwarding_modes=MODE_SNAT)
    assert "invalid access to map value" in caught.value.log
