import ipaddress
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.compile import (
    CompileErrors,
    compile_service,
    compile_state,
    selected_devices,
    targets,
    wants_load_balancer,
)
from datapath.compile.hashing import seeds
from datapath.compile.layouts import (
    ADDRESSES,
    BACKENDS,
    FLOWS_ANY,
    FLOWS_TCP,
    LUTS,
    SERVICES,
    BackendValue,
    Config,
    ServiceKey,
    ServiceValue,
    pack_address,
    unpack_address,
)
from datapath.compile.maglev import Member, hash_string, table
from datapath.sources.merge import Known
from datapath.sources.merge import merge as merge_health
from datapath.spec.document import merge
from datapath.state.facts import NextHop
from datapath.state.kernel_state import KernelState, LoadBalancer, Neighbour, UserProgram
from datapath.state.merged import HealthKey
from datapath.state.model import Backend, DesiredState, Hook, Program, Protocol
from unit.state.builders import BUILD, GATEWAY4, GATEWAY6, compiled, desired, device, facts, loaded, service

IP = ipaddress.ip_address
SEEDS = seeds("JLfvgnHc2kaSUFaI")


def frontends(state):
    """{(address, port, protocol): (lut id, count, algorithm)}"""
    found = {}
    for key, value in state.entries[SERVICES].items():
        stored, service_value = ServiceKey.from_buffer_copy(key), ServiceValue.from_buffer_copy(value)
        name = str(unpack_address(bytes(stored.address))), stored.port, Protocol(stored.protocol).name
        found[name] = service_value.lut_id, service_value.backend_count, service_value.algorithm
    return found


def backends(state):
    """{id: (address, port, protocol, state, lut id)}"""
    found = {}
    for key, value in state.entries[BACKENDS].items():
        stored = BackendValue.from_buffer_copy(value)
        address = str(unpack_address(bytes(stored.address)))
        protocol = Protocol(stored.protocol).name
        found[struct.unpack("=I", key)[0]] = address, stored.port, protocol, stored.state, stored.lut_id
    return found


def config(result):
    return Config.from_buffer_copy(result.state.load_balancer.config)


def refused(*services, **options):
    with pytest.raises(CompileErrors) as caught:
        compiled(*services, **options)
    return caught.value.errors


# --- services -----------------------------------------------------------------------------------------------------


def test_a_service_has_a_table_for_each_protocol():
    result = compiled(service(vip=["192.0.2.10:80/TCP", "192.0.2.10:443/TCP", "192.0.2.10:53/UDP"], backends=2))
    found = frontends(result.state)
    tcp, udp = found["192.0.2.10", 80, "TCP"], found["192.0.2.10", 53, "UDP"]
    assert found["192.0.2.10", 443, "TCP"] == tcp
    assert tcp[0] != udp[0]
    assert result.names == {tcp[0]: "web/TCP", udp[0]: "web/UDP"}
    assert set(result.state.luts) == {tcp[0], udp[0]}
    assert sorted((row[2], row[0], row[4]) for row in backends(result.state).values()) == [
        ("TCP", "10.0.1.1", tcp[0]),
        ("TCP", "10.0.1.2", tcp[0]),
        ("UDP", "10.0.1.1", udp[0]),
        ("UDP", "10.0.1.2", udp[0]),
    ]


def test_the_table_is_ciliums():
    result = compiled(service(backends=3), bpf_lb_maglev_table_size=1021)
    (slots,) = result.state.luts.values()
    ids = {row[0]: number for number, row in backends(result.state).items()}
    members = [
        Member(hash_string(Backend(IP(address), 8080), Protocol.TCP), 100, number) for address, number in ids.items()
    ]
    assert slots == table(members, 1021, SEEDS.table).tobytes()


def test_ipv4_is_carried_v4_mapped():
    (key,) = compiled(service()).state.entries[SERVICES]
    assert key == bytes(10) + b"\xff\xff\xc0\x00\x02\x0a" + b"\x00\x50" + b"\x06\x00"


def test_ipv6_goes_through_the_same_maps():
    result = compiled(service(vip="[2001:db8::10]:80/UDP", backends=["[2001:db8:1::1]:53"]))
    assert list(frontends(result.state)) == [("2001:db8::10", 80, "UDP")]
    assert list(result.state.entries[ADDRESSES]) == [pack_address(IP("2001:db8::10"))]


def test_each_vip_is_one_address():
    vips = ["192.0.2.10:80/TCP", "192.0.2.10:53/UDP", "192.0.2.11:80/TCP"]
    result = compiled(service(vip=vips))
    assert set(result.state.entries[ADDRESSES]) == {pack_address(IP("192.0.2.10")), pack_address(IP("192.0.2.11"))}


@pytest.mark.parametrize(
    ("option", "own", "number"),
    [("random", None, 1), ("maglev", None, 2), ("random", "maglev", 2), ("maglev", "random", 1)],
)
def test_the_algorithm_is_the_services_or_the_options(option, own, number):
    result = compiled(service(algorithm=own), bpf_lb_algorithm=option)
    assert frontends(result.state)["192.0.2.10", 80, "TCP"][2] == number


def test_a_service_without_usable_backends_has_no_table_but_keeps_its_backends():
    parked = [{"address": "10.0.1.1:80", "state": "maintenance"}, {"address": "10.0.1.2:80", "weight": 0}]
    result = compiled(service(backends=parked))
    assert result.state.luts == {}
    assert frontends(result.state)["192.0.2.10", 80, "TCP"][1] == 0
    assert [row[3] for row in backends(result.state).values()] == [3, 3]


def test_a_failed_backend_is_quarantined_and_out_of_the_table():
    web = service(backends=3, health_check={"type": "tcp"})
    result = compiled(web, health={HealthKey("web", IP("10.0.1.2"), 8080): False})
    (failed,) = [number for number, row in backends(result.state).items() if row[3] == 2]
    assert backends(result.state)[failed][0] == "10.0.1.2"
    (slots,) = result.state.luts.values()
    assert failed not in set(memoryview(slots).cast("I"))
    assert frontends(result.state)["192.0.2.10", 80, "TCP"][1] == 2


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, False),
        ({"debug": True}, False),
        ({"devices": "eth0"}, False),
        ({"devices": "eth0", "bpf-lb-acceleration": "native"}, True),
    ],
)
def test_a_load_balancer_is_wanted_for_its_own_options_or_services(config, wanted):
    merged = merge_health(merge(DesiredState(), {"options": {"config": config}}))
    state = compile_state(merged, facts(), KernelState(), BUILD).state
    assert (state.load_balancer is not None) is wanted
    assert bool(state.map_sizes) is wanted


def test_where_there_are_endpoints_only_services_want_a_load_balancer():
    """Options may be those of a whole fleet."""
    document = {
        "options": {"config": {"devices": "eth0", "bpf-lb-algorithm": "maglev"}},
        "endpoints": {"items": [{"name": "host", "host": True}]},
    }
    merged = merge(DesiredState(), document)
    assert not wants_load_balancer(merge_health(merged, {}))
    assert wants_load_balancer(merge_health(replace(merged, services=desired(service()).services), {}))
    assert wants_load_balancer(merge_health(replace(merged, endpoints=()), {}))


# --- ids ----------------------------------------------------------------------------------------------------------


def test_the_same_state_again_has_the_same_ids():
    services = [service(f"s{number}", f"192.0.2.{number}:80/TCP", backends=5) for number in range(1, 20)]
    first = compiled(*services)
    assert compiled(*services, have=loaded(first.state)).state == first.state


def test_ids_stay_when_others_come_and_go():
    a, b = service("a", "192.0.2.1:80/TCP"), service("b", "192.0.2.2:80/TCP")
    first = compiled(a, b)
    second = compiled(b, service("c", "192.0.2.3:80/TCP"), have=loaded(first.state))
    assert frontends(second.state)["192.0.2.2", 80, "TCP"] == frontends(first.state)["192.0.2.2", 80, "TCP"]
    kept = {number: row for number, row in backends(first.state).items() if number in backends(second.state)}
    assert kept == {number: row for number, row in backends(second.state).items() if number in kept}
    assert len(kept) == 3


def test_a_service_that_is_renamed_keeps_its_table():
    first = compiled(service("old"))
    second = compiled(service("new"), have=loaded(first.state))
    assert second.state == first.state
    assert list(second.names.values()) == ["new/TCP"]


def test_the_table_goes_with_most_of_the_frontends():
    vips = [f"192.0.2.{number}:80/TCP" for number in range(1, 6)]
    first = compiled(service("a", vips[:3]), service("b", vips[3:], backends=["10.0.2.1:80"]))
    ids = {name: number for number, name in first.names.items()}
    # one of a's three frontends moves to b
    services = [service("a", vips[:2]), service("b", vips[2:], backends=["10.0.2.1:80"])]
    second = compiled(*services, have=loaded(first.state))
    assert {name: number for number, name in second.names.items()} == ids


@pytest.mark.parametrize("name", ["a", "renamed"])
def test_a_service_without_frontends_in_the_kernel_finds_its_table_by_its_backends(name):
    # "b" has the same backends, and its frontend: its table is nobody else's.
    services = [service("a", "192.0.2.1:80/TCP"), service("b", "192.0.2.2:80/TCP")]
    old = compiled(*services).state
    lost = {key: value for key, value in old.entries[SERVICES].items() if pack_address(IP("192.0.2.1")) not in key}
    assert len(lost) == 1
    have = replace(loaded(old), entries={**old.entries, SERVICES: lost})
    new = compiled(service(name, "192.0.2.1:80/TCP"), services[1], have=have).state
    assert new.entries == old.entries
    assert new.luts == old.luts


def test_ids_that_become_free_are_not_given_away_at_once():
    first = compiled(service(backends=4))
    second = compiled(service(backends=[f"10.0.2.{number}:80" for number in range(1, 5)]), have=loaded(first.state))
    assert not set(backends(first.state)) & set(backends(second.state))


def test_ids_that_become_free_are_given_away_when_nothing_else_is_left():
    first = compiled(service(backends=4), bpf_lb_service_backend_map_max=4)
    others = [f"10.0.2.{number}:80" for number in range(1, 5)]
    second = compiled(service(backends=others), have=loaded(first.state), bpf_lb_service_backend_map_max=4)
    assert set(backends(second.state)) == set(backends(first.state)) == {1, 2, 3, 4}


def test_ids_beyond_a_smaller_map_are_drawn_anew():
    first = compiled(service(backends=4))
    assert max(backends(first.state)) > 4
    second = compiled(
        service(backends=4), have=loaded(first.state), bpf_lb_service_backend_map_max=4, bpf_lb_maglev_map_max=1
    )
    assert set(backends(second.state)) == {1, 2, 3, 4}
    assert set(second.names) == {1}


@pytest.mark.parametrize(
    ("option", "services", "map_name", "size", "wanted"),
    [
        ("bpf-lb-service-map-max", [service(vip=["192.0.2.1:1", "192.0.2.1:2"])], SERVICES, 1, 2),
        ("bpf-lb-service-backend-map-max", [service(backends=3)], BACKENDS, 2, 3),
        ("bpf-lb-maglev-map-max", [service(vip=["192.0.2.1:1/TCP", "192.0.2.1:1/UDP"])], LUTS, 1, 2),
    ],
)
def test_a_full_map_is_told_with_its_size_and_option(option, services, map_name, size, wanted):
    (error,) = refused(*services, **{option: size})
    assert error.document == "services"
    assert error.value == wanted
    assert f"map {map_name} is full: it holds {size} " in error.message
    assert option in error.allowed


def test_all_full_maps_are_told_at_once():
    errors = refused(
        service(vip=["192.0.2.1:1/TCP", "192.0.2.1:1/UDP"], backends=3),
        bpf_lb_map_max=1,
    )
    assert {error.message.split()[1] for error in errors} == {SERVICES, BACKENDS, LUTS}


def test_more_backends_than_slots_are_refused():
    (error,) = refused(service(backends=[f"10.0.{n >> 8}.{n & 255}:80" for n in range(256, 256 + 252)]))
    assert "252 backends do not fit into a table of 251 slots" in error.message


def test_a_table_that_is_small_for_its_backends_is_warned_of():
    assert any("4 backends share 251 slots" in warning for warning in compiled(service(backends=4)).warnings)
    assert not compiled(service(backends=2)).warnings


# --- devices ------------------------------------------------------------------------------------------------------


def attached(*services, **options):
    return dict(compiled(*services or [service()], **options).state.load_balancer.attachments)


def test_devices_follow_the_routes_by_default():
    assert attached() == {"eth0": "native"}


def test_the_device_towards_a_backend_is_taken_too():
    node = facts(next_hops={IP("10.0.1.1"): NextHop("eth1", IP("10.9.0.1"))})
    assert attached(service(backends=1), node=node) == {"eth0": "native", "eth1": "native"}


@pytest.mark.parametrize(
    ("devices", "names"),
    [("eth0", {"eth0"}), ("eth+", {"eth0", "eth1"}), ("+", {"eth0", "eth1"}), (["eth1", "eth0"], {"eth0", "eth1"})],
)
def test_devices_by_name_and_wildcard(devices, names):
    assert set(attached(devices=devices)) == names


def test_the_direct_routing_device_is_always_attached():
    assert set(attached(devices="eth0", direct_routing_device="eth1")) == {"eth0", "eth1"}


def test_a_device_that_does_not_exist_is_refused_with_the_nearest():
    (error,) = refused(service(), devices="eth0,eht1")
    assert (error.document, error.path, error.value) == ("options", "options.values.devices[1]", "eht1")
    assert "there is no device eht1" in error.message
    assert error.allowed == "devices of this node: eth0, eth1"
    assert error.nearest == "eth1"


def test_a_direct_routing_device_that_does_not_exist_is_refused():
    errors = refused(service(), direct_routing_device="eth9")
    assert ("options.values.direct_routing_device", "eth9") in [(error.path, error.value) for error in errors]


def test_a_wildcard_may_match_nothing_beside_others():
    result = compiled(service(), devices="eth0,ens+")
    assert set(result.state.load_balancer.attachments) == {"eth0"}
    assert "no device matches ens+" in result.warnings


def test_a_node_without_device_to_attach_to_is_refused():
    assert any("none matches" in error.message for error in refused(service(), devices="ens+"))
    node = facts(default_devices=(), next_hops={})
    assert any("no default route" in error.message for error in refused(service(), node=node))


NO_NATIVE = device("eth0", "10.0.0.2/24", native=False, driver="e1000", reason="driver e1000 refuses it")


def test_a_device_without_native_xdp_is_refused_with_its_driver_and_the_way_out():
    (error,) = refused(service(), node=facts(NO_NATIVE))
    assert error.path == "options.values.acceleration"
    assert "device eth0 has no native XDP: its driver is e1000 (driver e1000 refuses it)" in error.message
    assert "best-effort would attach there in generic mode" in error.message


def test_best_effort_takes_generic_mode_where_it_must():
    node = facts(NO_NATIVE, device("eth1", "10.9.0.2/24"))
    result = compiled(service(), node=node, devices="eth+", bpf_lb_acceleration="best-effort")
    assert result.state.load_balancer.attachments == {"eth0": "generic", "eth1": "native"}
    assert any("eth0 runs in generic XDP mode: its driver is e1000" in warning for warning in result.warnings)


def test_testing_only_is_generic_everywhere():
    assert attached(devices="eth+", bpf_lb_acceleration="testing-only") == {"eth0": "generic", "eth1": "generic"}


def test_a_device_that_was_not_probed_stays_as_it_is_attached():
    node = facts(device("eth0", "10.0.0.2/24", native=None))
    have = KernelState(load_balancer=LoadBalancer(b"", {"eth0": "generic"}))
    assert attached(node=node, have=have, bpf_lb_acceleration="best-effort") == {"eth0": "generic"}
    assert attached(node=node, bpf_lb_acceleration="best-effort") == {"eth0": "native"}
    assert attached(node=node) == {"eth0": "native"}


def test_a_device_that_is_down_is_warned_of():
    node = facts(device("eth0", "10.0.0.2/24", up=False))
    assert "device eth0 is down" in compiled(service(), node=node).warnings


def test_the_devices_to_ask_about_are_known_beforehand():
    merged = merge_health(desired(service(), devices="eth+,nothing"))
    assert selected_devices(merged, facts()) == ("eth0", "eth1")
    assert targets(merged) == {IP("10.0.1.1"), IP("10.0.1.2"), IP("10.0.1.3")}


# --- configuration ------------------------------------------------------------------------------------------------


def test_the_configuration():
    result = compiled(
        service(),
        service("web6", "[2001:db8::10]:80/TCP", backends=["[2001:db8:1::1]:80"]),
        bpf_lb_maglev_table_size=1021,
        datapath_snat_port_range="2000-20000",
        bpf_lb_enable_wildcard_entries="false",
        service_no_backend_response="drop",
    )
    found = config(result)
    assert bytes(found.build_id) == BUILD
    assert unpack_address(bytes(found.snat_address4)) == IP("10.0.0.2")
    assert unpack_address(bytes(found.snat_address6)) == IP("2001:db8::2")
    assert (found.snat_port_min, found.snat_port_max) == (2000, 20000)
    assert found.maglev_table_size == 1021
    assert (found.hash_seed4, found.hash_seed6) == (SEEDS.flow4, SEEDS.flow6)
    assert (found.tcp_established_timeout, found.tcp_closing_timeout, found.any_timeout) == (2000000, 2500, 15000)
    assert (found.enable_ipv4, found.enable_ipv6) == (1, 1)
    assert (found.wildcard_entries, found.reject_without_backend) == (0, 0)


def test_a_family_without_services_has_no_source_and_no_sysctls():
    result = compiled(service())
    assert not any(config(result).snat_address6)
    assert set(result.state.sysctls) == {"net.ipv4.conf.eth0.forwarding"}


def test_the_source_address_stays_while_it_is_there():
    first = compiled(service(), node=facts(device("eth0", "10.0.0.2/24")))
    both = facts(device("eth0", "10.0.0.1/24", "10.0.0.2/24"))
    assert unpack_address(bytes(config(compiled(service(), node=both)).snat_address4)) == IP("10.0.0.1")
    kept = compiled(service(), node=both, have=loaded(first.state))
    assert unpack_address(bytes(config(kept).snat_address4)) == IP("10.0.0.2")
    gone = compiled(service(), node=facts(device("eth0", "10.0.0.1/24")), have=loaded(first.state))
    assert unpack_address(bytes(config(gone).snat_address4)) == IP("10.0.0.1")


def test_a_vip_is_the_source_only_where_there_is_nothing_else():
    node = facts(device("eth0", "192.0.2.10/32", "10.0.0.2/24"))
    assert unpack_address(bytes(config(compiled(service(), node=node)).snat_address4)) == IP("10.0.0.2")
    node = facts(device("eth0", "192.0.2.10/32"))
    alone = compiled(service(), node=node, bpf_lb_enable_wildcard_entries=False)
    assert unpack_address(bytes(config(alone).snat_address4)) == IP("192.0.2.10")


def test_a_vip_that_would_cut_the_node_off_is_refused():
    (error,) = refused(service(), node=facts(device("eth0", "192.0.2.10/32")))
    assert "VIP 192.0.2.10 is the node's own address" in error.message
    assert "bpf-lb-enable-wildcard-entries: false" in error.allowed


def test_the_source_is_the_direct_routing_devices():
    result = compiled(service(), direct_routing_device="eth1")
    assert unpack_address(bytes(config(result).snat_address4)) == IP("10.9.0.2")


def test_a_family_without_source_address_is_refused():
    web6 = service("web6", "[2001:db8::10]:80/TCP", backends=["[2001:db8:1::1]:80"])
    (error,) = refused(web6, node=facts(device("eth0", "10.0.0.2/24", "fe80::2/64")))
    assert "no global IPv6 address" in error.message
    assert "eth0" in error.message


def test_a_port_range_that_the_node_draws_from_is_refused():
    (error,) = refused(service(), datapath_snat_port_range="1024-40000")
    assert error.path == "options.values.snat_port_range"
    assert "net.ipv4.ip_local_port_range (32768 to 60999)" in error.message


def test_forwarding_on_every_device_and_router_advertisements_kept():
    web6 = service("web6", "[2001:db8::10]:80/TCP", backends=["[2001:db8:1::1]:80"])
    assert compiled(web6, devices="eth+").state.sysctls == {
        "net.ipv6.conf.eth0.accept_ra": "2",
        "net.ipv6.conf.eth0.forwarding": "1",
        "net.ipv6.conf.eth1.forwarding": "1",
    }


def test_map_sizes_follow_the_common_one_unless_they_are_set():
    sizes = compiled(
        service(),
        bpf_lb_map_max=1000,
        bpf_lb_service_map_max=10,
        bpf_ct_global_tcp_max=2048,
        bpf_ct_global_any_max=4096,
    ).state.map_sizes
    # ids run from 1
    assert (sizes[SERVICES], sizes[ADDRESSES], sizes[BACKENDS], sizes[LUTS]) == (10, 10, 1001, 1001)
    assert (sizes[FLOWS_TCP], sizes[FLOWS_ANY]) == (2048, 4096)


def test_neighbours_are_next_hops_and_gateways():
    node = facts(next_hops={IP("10.9.0.7"): NextHop("eth1", IP("10.9.0.7"))})
    result = compiled(service(backends=["10.9.0.7:80"]), node=node)
    assert result.state.neighbours == {
        Neighbour("eth0", GATEWAY4),
        Neighbour("eth0", GATEWAY6),
        Neighbour("eth1", IP("10.9.0.7")),
    }


def test_a_backend_without_route_is_warned_of():
    result = compiled(service(backends=2), node=facts(without_route=["10.0.1.2"]))
    assert [warning for warning in result.warnings if "10.0.1.2:8080 cannot be reached" in warning]


@pytest.mark.parametrize(("peer_xdp", "told"), [(True, []), (False, ["carries"]), (None, ["perhaps carries"])])
def test_a_veth_without_a_program_on_its_peer_is_warned_of(peer_xdp, told):
    node = facts(device("eth0", "10.0.0.2/24", driver="veth", peer_xdp=peer_xdp))
    warnings = compiled(service(backends=2), node=node).warnings
    assert len(warnings) == len(told)
    assert all(f"a veth whose peer {seen} no XDP program" in warning for seen, warning in zip(told, warnings))
    assert not compiled(service(backends=2), node=node, bpf_lb_acceleration="testing-only").warnings


# --- users' programs ----------------------------------------------------------------------------------------------


def user(name="count", **attach):
    return {"name": name, "object": "/opt/count.o", "attach": attach}


def test_users_programs_are_wanted_as_they_were_inspected():
    inspected = UserProgram(Program("count", "/opt/count.o", "f", Hook.TC, "eth0"), "0123456789abcdef")
    result = compiled(programs=[user(type="tc", device="eth0")], inspected=[inspected])
    assert result.state.programs == {"count": inspected}


def test_a_program_on_a_device_that_does_not_exist_is_refused():
    error = compiled(programs=[user(type="tc", device="eth7")]).refused["count"]
    assert (error.document, error.path) == ("programs", "programs.count.attach.device")
    assert "there is no device eth7" in error.message


def test_a_program_in_the_load_balancers_place_is_refused():
    error = compiled(service(), programs=[user(type="xdp", device="eth0")]).refused["count"]
    assert "the load balancer is attached" in error.message


@pytest.mark.parametrize("running", [True, False])
def test_a_program_that_cannot_be_used_stays_as_it_is(running):
    old = UserProgram(Program("count", "", "f", Hook.TC, "eth7"), "0123456789abcdef")
    have = KernelState(programs={"count": old} if running else {})
    wanted = [user(type="tc", device="eth7"), user("gone", type="tc", device="eth0")]
    new = UserProgram(Program("count", "/opt/count.o", "f", Hook.TC, "eth7"), "fedcba9876543210")
    result = compiled(service(), programs=wanted, inspected=[new], have=have)
    assert result.state.programs == have.programs
    assert result.state.load_balancer is not None


# --- one service --------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)), st.sampled_from(["open", "closed"]))
def test_one_service_compiles_to_what_all_of_them_do(before, after, all_failed):
    check = {"type": "tcp", "all_failed": all_failed}
    services = [
        service("a", ["192.0.2.1:80/TCP", "192.0.2.1:80/UDP"], backends=5, health_check=check),
        service("b", "192.0.2.2:80/TCP", backends=2),
    ]

    def health(failed):
        return {HealthKey("a", IP(f"10.0.1.{number}"), 8080): False for number in failed}

    old = compiled(*services, health=health(before))
    new = compiled(*services, health=health(after), have=loaded(old.state))
    changed, _ = merge_health(desired(*services), Known(health(after))).services
    assert compile_service(old, changed).state == new.state


@settings(max_examples=60)
@given(st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)))
def test_one_service_with_other_backends_compiles_to_what_all_of_them_do(first, second, third):
    """Step by step: ids that became free must not stand in the way."""

    def services(numbers):
        backends = [f"10.0.1.{number}:8080" for number in sorted(numbers)]
        frontends = ["192.0.2.1:80/TCP", "192.0.2.1:80/UDP"]
        return service("a", frontends, backends=backends), service("b", "192.0.2.2:80/TCP", backends=2)

    old = compiled(*services(first))
    for numbers in (second, third):
        new = compiled(*services(numbers), have=loaded(old.state))
        changed, _ = merge_health(desired(*services(numbers))).services
        old = compile_service(old, changed)
        assert old.state == new.state
        assert old.ids == new.ids


def test_one_service_for_whose_backends_there_is_no_room():
    def services(count):
        return service("a", backends=count), service("b", "192.0.2.2:80/TCP", backends=2)

    old = compiled(*services(2), bpf_lb_service_backend_map_max=5)
    changed, _ = merge_health(desired(*services(3))).services
    assert len(compile_service(old, changed).ids.backends) == 5
    changed, _ = merge_health(desired(*services(4))).services
    with pytest.raises(CompileErrors, match="map backends_v1 is full: it holds 5 backends, 6 are wanted"):
        compile_service(old, changed)


def test_tables_that_stay_are_not_made_again():
    services = [service("a", "192.0.2.1:80/TCP"), service("b", "192.0.2.2:80/TCP")]
    first = compiled(*services)
    services[1] = service("b", "192.0.2.2:80/TCP", backends=4)
    second = compiled(*services, have=loaded(first.state), previous=first)
    ids = {name: number for number, name in first.names.items()}
    assert second.tables[ids["a/TCP"]] is first.tables[ids["a/TCP"]]
    assert second.tables[ids["b/TCP"]] is not first.tables[ids["b/TCP"]]


def test_tables_of_another_seed_are_made_again():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), previous=first, bpf_lb_maglev_hash_seed="AAAAAAAAAAAAAAAA")
    assert second.state.luts != first.state.luts
