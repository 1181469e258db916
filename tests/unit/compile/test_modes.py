"""Direct server return, tc and backends' programs, as they are compiled."""

import ipaddress
from dataclasses import replace

import pytest

from datapath.compile import CompileErrors, compile_service, wants_load_balancer
from datapath.compile.config import map_sizes
from datapath.compile.layouts import (
    CHOICES_ANY,
    CHOICES_TCP,
    DISPATCH_GENEVE,
    DISPATCH_IPIP,
    DISPATCH_OPT,
    FLOWS_TCP,
    MODE_DSR,
    MODE_SNAT,
    SERVICE_DSR,
    SERVICES,
    Config,
    NodeConfig,
    ServiceKey,
    ServiceValue,
    unpack_address,
)
from datapath.sources.merge import Known, Merger
from datapath.sources.merge import merge as merge_health
from datapath.spec.options import effective
from datapath.state.merged import HealthKey
from datapath.state.model import Protocol
from unit.state.builders import BUILD, compiled, desired, device, facts, loaded, service

IP = ipaddress.ip_address
BOTH = ["192.0.2.10:80/TCP", "192.0.2.10:80/UDP"]
IPIP = {"bpf_lb_mode": "dsr", "bpf_lb_dsr_dispatch": "ipip"}


def config(result):
    return Config.from_buffer_copy(result.state.load_balancer.config)


def flags(result):
    """{"TCP": flags} of all frontends of a protocol."""
    found = {}
    for key, value in result.state.entries[SERVICES].items():
        name = Protocol(ServiceKey.from_buffer_copy(key).protocol).name
        found[name] = ServiceValue.from_buffer_copy(value).flags
    return found


@pytest.mark.parametrize(
    ("options", "own", "expected", "modes"),
    [
        ({}, None, (0, 0), MODE_SNAT),
        ({"bpf_lb_mode": "dsr"}, None, (SERVICE_DSR, SERVICE_DSR), MODE_DSR),
        ({"bpf_lb_mode": "hybrid"}, None, (SERVICE_DSR, 0), MODE_SNAT | MODE_DSR),
        ({"bpf_lb_mode_annotation": True}, "dsr", (SERVICE_DSR, SERVICE_DSR), MODE_SNAT | MODE_DSR),
        ({"bpf_lb_mode_annotation": True, "bpf_lb_mode": "dsr"}, "snat", (0, 0), MODE_SNAT | MODE_DSR),
    ],
)
def test_services_say_how_they_are_forwarded_and_the_program_what_may_occur(options, own, expected, modes):
    result = compiled(service(vip=BOTH, **({"mode": own} if own else {})), **options)
    assert flags(result) == {"TCP": expected[0], "UDP": expected[1]}
    assert config(result).forwarding_modes == modes


@pytest.mark.parametrize(
    ("mode", "dispatch", "expected"),
    [
        ("snat", "geneve", 0),
        ("dsr", "opt", DISPATCH_OPT),
        ("dsr", "ipip", DISPATCH_IPIP),
        ("hybrid", "geneve", DISPATCH_GENEVE),
    ],
)
def test_the_dispatch(mode, dispatch, expected):
    result = compiled(service(backends=["10.0.1.1:80"]), bpf_lb_mode=mode, bpf_lb_dsr_dispatch=dispatch)
    found = config(result)
    assert found.dsr_dispatch == expected
    wrapped = expected in (DISPATCH_IPIP, DISPATCH_GENEVE)
    source = unpack_address(bytes(found.encap_source4)) if any(found.encap_source4) else None
    assert source == (IP("10.0.0.2") if wrapped else None)
    assert (found.encap_mask4, found.encap_mask6) == (0, 0)


def test_outer_sources_that_a_hash_spreads():
    result = compiled(
        service(backends=["10.0.1.1:80", "[2001:db8:1::1]:80"]),
        bpf_lb_rss_ipv4_src_cidr="10.200.0.0/20",
        bpf_lb_rss_ipv6_src_cidr="2001:db8:200::/64",
        **IPIP,
    )
    found = config(result)
    assert unpack_address(bytes(found.encap_source4)) == IP("10.200.0.0")
    assert unpack_address(bytes(found.encap_source6)) == IP("2001:db8:200::")
    assert bytes(found)[Config.encap_mask4.offset :][:4] == b"\x00\x00\x0f\xff"
    assert bytes(found)[Config.encap_mask6.offset :][:4] == b"\xff\xff\xff\xff"


def test_a_backend_of_the_other_family_needs_an_outer_source_of_its_family():
    item = service(backends=["[2001:db8:1::1]:80"])
    result = compiled(item, **IPIP)
    assert unpack_address(bytes(config(result).encap_source6)) == IP("2001:db8::2")
    assert result.state.sysctls["net.ipv6.conf.eth0.forwarding"] == "1"
    bare = facts(device("eth0", "10.0.0.2/24"))
    with pytest.raises(CompileErrors, match="no global IPv6 address"):
        compiled(item, node=bare, **IPIP)
    compiled(item, node=bare, bpf_lb_rss_ipv6_src_cidr="2001:db8:200::/96", **IPIP)


def test_direct_server_return_by_option_needs_no_address_of_the_load_balancer():
    bare = facts(device("eth0", "2001:db8::2/64"))
    with pytest.raises(CompileErrors, match="no global IPv4 address"):
        compiled(service(), node=bare)
    assert not any(config(compiled(service(), node=bare, bpf_lb_mode="dsr")).snat_address4)


def test_a_service_with_direct_server_return_keeps_a_table_without_backends():
    """Its history tells where established flows are."""
    item = service(backends=[{"address": "10.0.1.1:8080", "state": "maintenance"}])
    assert compiled(item).state.luts == {}
    assert list(compiled(item, bpf_lb_mode="dsr").state.luts.values()) == [bytes(4 * 251)]


def test_the_same_after_health_checks_alone():
    check = {"type": "tcp"}
    state = desired(service(backends=1, health_check=check), bpf_lb_mode="dsr")
    first = compiled(service(backends=1, health_check=check), bpf_lb_mode="dsr")
    down = {HealthKey("web", IP("10.0.1.1"), 8080): False}
    second = compile_service(first, Merger(state, Known(down)).merge_service(state.services[0]))
    assert list(second.state.luts.values()) == [bytes(4 * 251)]
    assert flags(second) == {"TCP": SERVICE_DSR}


def test_a_change_of_mode_makes_no_table_again():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), previous=first, bpf_lb_mode="dsr")
    assert all(second.tables[each] is first.tables[each] for each in first.tables)


def test_maps_of_recorded_flows_follow_the_flow_maps_where_they_are_used():
    sizes = map_sizes(effective({"bpf-lb-mode": "hybrid", "bpf-ct-global-tcp-max": 100000}))
    assert (sizes[FLOWS_TCP], sizes[CHOICES_TCP], sizes[CHOICES_ANY]) == (100000, 50000, 131072)
    unused = map_sizes(effective({}))
    assert (unused[CHOICES_TCP], unused[CHOICES_ANY]) == (1024, 1024)


# --- tc -----------------------------------------------------------------------------------------------------------


def test_without_acceleration_the_program_runs_at_tc():
    node = facts(device("eth0", "10.0.0.2/24", native=False))
    result = compiled(service(), node=node, bpf_lb_acceleration="disabled")
    assert dict(result.state.load_balancer.attachments) == {"eth0": "tc"}
    assert not [warning for warning in result.warnings if "XDP" in warning]


def test_a_bond_carries_a_program_at_tc_itself():
    bond = replace(device("bond0", "10.0.0.2/24"), kind="bond", lower=("eth0", "eth1"))
    node = facts(bond, device("eth0"), device("eth1"), default_devices=("bond0",))
    result = compiled(service(), node=node, bpf_lb_acceleration="disabled", devices="bond0")
    assert dict(result.state.load_balancer.attachments) == {"bond0": "tc"}


def test_back_from_tc_to_what_the_device_can():
    """Nothing attached at tc has shown what the driver can do at XDP."""
    node = facts(device("eth0", "10.0.0.2/24", native=None))
    first = compiled(service(), node=node, bpf_lb_acceleration="disabled")
    second = compiled(service(), node=node, have=loaded(first.state), bpf_lb_acceleration="best-effort")
    assert dict(second.state.load_balancer.attachments) == {"eth0": "native"}


# --- a backend's programs -----------------------------------------------------------------------------------------


def test_a_backend_loads_no_load_balancer():
    result = compiled(datapath_dsr_backend=True, devices="eth0", bpf_lb_mode="dsr")
    state = result.state
    assert state.load_balancer is None
    assert (dict(state.map_sizes), dict(state.entries)) == ({}, {})
    assert state.node.devices == {"eth0"}
    found = NodeConfig.from_buffer_copy(state.node.config)
    assert bytes(found.build_id) == BUILD
    assert (found.enable_opt, found.enable_ipip, found.enable_geneve, found.enable_ipv4, found.enable_ipv6) == (
        1,
        1,
        1,
        1,
        1,
    )


def test_options_of_backends_alone_want_no_load_balancer():
    def wanted(*services, **options):
        merged = merge_health(desired(*services, **options))
        return wants_load_balancer(replace(merged, options={**merged.options}))

    assert wanted()
    assert not wanted(datapath_dsr_backend=True)
    assert wanted(service(), datapath_dsr_backend=True)
    alone = replace(merge_health(desired()), options={"datapath-dsr-backend": False})
    assert not wants_load_balancer(alone)


def test_a_backend_that_balances_too_has_both():
    state = compiled(service(), datapath_dsr_backend=True).state
    assert state.load_balancer is not None
    assert state.node is not None


def test_a_backend_s_devices_are_chosen_like_a_load_balancer_s():
    assert compiled(datapath_dsr_backend=True).state.node.devices == {"eth0"}
    assert compiled(datapath_dsr_backend=True, devices="eth+").state.node.devices == {"eth0", "eth1"}
    with pytest.raises(CompileErrors, match="there is no device eth7"):
        compiled(datapath_dsr_backend=True, devices="eth7")


def test_families_that_are_off_are_off_there_too():
    found = NodeConfig.from_buffer_copy(compiled(datapath_dsr_backend=True, enable_ipv6=False).state.node.config)
    assert (found.enable_ipv4, found.enable_ipv6) == (1, 0)


@pytest.mark.parametrize(
    ("own", "all_", "expected"),
    [("0", "0", None), ("1", "0", "2"), ("0", "1", "2"), ("2", "0", "2"), ("0", "2", "2"), (None, None, None)],
)
def test_strict_source_checks_are_made_loose(own, all_, expected):
    sysctls = {"net.ipv4.conf.eth0.rp_filter": own, "net.ipv4.conf.all.rp_filter": all_}
    node = facts(sysctls={name: value for name, value in sysctls.items() if value is not None})
    state = compiled(node=node, datapath_dsr_backend=True).state
    assert state.sysctls.get("net.ipv4.conf.eth0.rp_filter") == expected
