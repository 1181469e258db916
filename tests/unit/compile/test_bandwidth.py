"""What rates ask of the kernel."""

import struct
from dataclasses import replace

import pytest

from datapath.compile import CompileErrors, compile_state, wants_load_balancer
from datapath.compile.bandwidth import FQ, MQ
from datapath.compile.layouts import (
    BANDWIDTH_ENDPOINTS,
    BANDWIDTH_NATIVES,
    BANDWIDTH_RATES,
    RATE_EGRESS,
    RATE_INGRESS,
    BandwidthConfig,
    BbrConfig,
    Rate,
    RateKey,
)
from datapath.plan import plan
from datapath.plan.describe import diff, rows
from datapath.plan.operations import DeleteEntry, PutBandwidth, PutEntry, RemoveBandwidth, SetQdisc, SetSysctl
from datapath.sources.merge import merge as merge_health
from datapath.spec.document import merge
from datapath.state.kernel_state import KernelState, Qdisc
from datapath.state.model import DesiredState
from unit.state.builders import BUILD, device, facts, service

HOST = {"name": "host", "host": True, "egress_bandwidth": "1G"}
DB = {"name": "db", "interface": "ve-db", "egress_bandwidth": "50M", "priority": "guaranteed"}
WEB = {"name": "web", "interface": "ve-web", "ingress_bandwidth": "10M"}


def devices(*extra):
    names = ("eth0", "ve-db", "ve-web", *extra)
    return [replace(device(name, "10.0.0.2/24"), index=index) for index, name in enumerate(names, 2)]


def node(*found, **fields):
    return facts(*(found or devices()), features={"sch_fq": True}, **fields)


def compiled(*endpoints, on=None, have=None, services=(), **config):
    options = {"enable-bandwidth-manager": True, **{key.replace("_", "-"): value for key, value in config.items()}}
    document = {
        "options": {"config": options},
        "services": {"items": list(services)},
        "endpoints": {"items": list(endpoints)},
    }
    merged = merge_health(merge(DesiredState(), document))
    return compile_state(merged, on or node(), have or KernelState(), BUILD)


def refusals(*arguments, **fields):
    with pytest.raises(CompileErrors) as refused:
        compiled(*arguments, **fields)
    return refused.value.errors


def number(key):
    return struct.unpack("=I", key)[0]


def rates(state):
    found = {}
    for packed, value in state.entries[BANDWIDTH_RATES].items():
        key, rate = RateKey.from_buffer_copy(packed), Rate.from_buffer_copy(value)
        found[key.endpoint, key.direction] = (rate.bytes_per_second, rate.burst, rate.priority)
        assert bool(rate.horizon) == (key.direction == RATE_EGRESS and rate.bytes_per_second > 0)
    return found


def numbers(state):
    return {number(key): number(value) for key, value in state.entries[BANDWIDTH_ENDPOINTS].items()}


def test_rates_of_endpoints():
    result = compiled(HOST, DB, WEB)
    state = result.state
    assert numbers(state) == {3: 4097, 4: 4098}
    assert rates(state) == {
        (4096, RATE_EGRESS): (125_000_000, 0, 0),
        (4097, RATE_EGRESS): (6_250_000, 0, 7),
        (4098, RATE_INGRESS): (1_250_000, 128 * 1024, 0),
    }
    assert dict(result.endpoints) == {4096: "host", 4097: "db", 4098: "web"}
    assert (state.bandwidth.native, state.bandwidth.endpoints) == ({"eth0"}, {"ve-db", "ve-web"})
    config = BandwidthConfig.from_buffer_copy(state.bandwidth.config)
    assert (bytes(config.build_id), config.horizon, config.route) == (BUILD, 2 * 10**9, 0)
    assert state.entries[BANDWIDTH_NATIVES] == {}
    assert dict(state.qdiscs) == {"eth0": Qdisc(FQ, "ours")}
    assert state.load_balancer is None


def test_a_burst_is_a_tenth_of_a_second():
    assert rates(compiled({**WEB, "ingress_bandwidth": "1G"}).state)[4097, RATE_INGRESS][1] == 12_500_000


@pytest.mark.parametrize(
    ("bandwidth", "seconds"),
    [("1k", 2), ("10M", 2), ("50M", 0.671), ("100M", 0.336), ("1G", 0.034), ("100G", 0.005), (2**63 - 1, 0.005)],
)
def test_what_may_wait_is_four_mebibytes_or_two_seconds(bandwidth, seconds):
    (value,) = compiled({**DB, "egress_bandwidth": bandwidth}).state.entries[BANDWIDTH_RATES].values()
    assert Rate.from_buffer_copy(value).horizon == pytest.approx(seconds * 1e9, rel=0.02)


def test_the_largest_rates_fit():
    largest = 2**63 - 1
    found = rates(compiled({**DB, "egress_bandwidth": largest, "ingress_bandwidth": largest}).state)
    assert found[4097, RATE_EGRESS][0] == largest // 8
    # As the program computes it: nanoseconds of a burst.
    assert found[4097, RATE_INGRESS] == (largest // 8, 18446744073, 0)


def test_endpoints_without_rates_cost_nothing():
    state = compiled({"name": "db", "interface": "ve-db"}).state
    assert (state.bandwidth.native, state.bandwidth.endpoints, rates(state), numbers(state)) == (set(), set(), {}, {})
    assert compiled(WEB).state.bandwidth.native == set()


def routed(*endpoints, **fields):
    return compiled(*endpoints, enable_host_legacy_routing=False, **fields)


def test_where_programs_route_they_are_at_every_endpoint_s_device():
    plain = {"name": "db", "interface": "ve-db"}
    state = routed(HOST, plain, WEB).state
    assert numbers(state) == {3: 4097, 4: 4098}
    assert rates(state).keys() == {(4096, RATE_EGRESS), (4098, RATE_INGRESS)}
    assert (state.bandwidth.native, state.bandwidth.endpoints) == ({"eth0"}, {"ve-db", "ve-web"})
    assert BandwidthConfig.from_buffer_copy(state.bandwidth.config).route == 1
    assert {number(key): number(value) for key, value in state.entries[BANDWIDTH_NATIVES].items()} == {2: 1}
    # Of whom there is nothing to route, nothing is there.
    alone = routed({"name": "host", "host": True}).state
    assert (alone.bandwidth.native, numbers(alone), alone.entries[BANDWIDTH_NATIVES]) == (set(), {}, {})


def test_a_device_that_leads_out_is_routed_to_and_not_from():
    (error,) = refusals({"name": "db", "interface": "eth0"}, enable_host_legacy_routing=False)
    assert error.path == "endpoints.db"


def test_devices_are_routed_to_before_anything_is_routed():
    result = routed(DB)
    operations = plan(result.state, compiled(DB).state).operations
    assert [type(each) for each in operations] == [PutBandwidth, PutEntry]
    described = [row["summary"] for row in rows(plan(result.state, KernelState()), {}, result.endpoints)]
    assert "create map natives_v1 device 2: leads out of the node" in described
    fresh = [each.map for each in plan(result.state, KernelState()).operations if isinstance(each, PutEntry)]
    assert fresh == [BANDWIDTH_NATIVES, BANDWIDTH_RATES, BANDWIDTH_ENDPOINTS]


def test_numbers_stay_with_their_devices():
    first = compiled(WEB).state
    assert numbers(first) == {4: 4097}
    both = compiled(DB, WEB, have=first).state
    assert numbers(both) == {3: 4098, 4: 4097}
    assert numbers(compiled(DB, have=both).state) == {3: 4098}


def test_every_device_of_a_pattern_has_the_rate():
    state = compiled(
        {"name": "containers", "interfaces": "ve-*", "egress_bandwidth": "8k"}, {**DB, "priority": 2}
    ).state
    assert rates(state) == {(4097, RATE_EGRESS): (1000, 0, 0), (4098, RATE_EGRESS): (6_250_000, 0, 2)}


def test_an_endpoint_without_its_device_waits():
    state = compiled({**DB, "interface": "ve-c"}).state
    assert (rates(state), state.bandwidth.endpoints) == ({}, set())


def test_without_fq_it_is_refused():
    (error,) = refusals(DB, on=facts(*devices(), features={"sch_fq": False}))
    assert error.path == "options.values.enable_bandwidth_manager"
    assert "sch_fq" in error.message
    assert "CONFIG_NET_SCH_FQ" in error.allowed


def test_a_device_that_leads_out_is_no_endpoint_s():
    (error,) = refusals({**DB, "interface": "eth0"})
    assert error.path == "endpoints.db"


def test_somebody_s_qdisc_is_not_taken_away():
    (error,) = refusals(have=KernelState(qdiscs={"eth0": Qdisc("htb 1:", "other")}))
    assert "qdisc htb 1:, which somebody configured" in error.message
    compiled(have=KernelState(qdiscs={"eth0": Qdisc("fq_codel", "kernel"), "ve-db": Qdisc("htb 1:", "other")}))


def test_mq_where_there_are_several_queues():
    wide = replace(devices()[0], queues=4)
    assert dict(compiled(on=node(wide)).state.qdiscs) == {"eth0": Qdisc(MQ, "ours")}


def below(kind, name="up0", lower=("eth0", "ve-db")):
    return node(replace(device(name), kind=kind, lower=lower), *devices(), default_devices=(name,))


@pytest.mark.parametrize("kind", ["bond", "vlan"])
def test_packets_queue_at_the_devices_below(kind):
    state = compiled(HOST, on=below(kind)).state
    assert state.qdiscs.keys() == {"eth0", "ve-db"}
    assert state.bandwidth.native == {"up0"}


def test_the_host_is_not_counted_twice():
    on = below("vlan", lower=("eth0",))
    (error,) = refusals(HOST, on=on, devices="eth0,up0")
    assert "count its packets twice" in error.message
    compiled(DB, on=on, devices="eth0,up0")


@pytest.mark.parametrize(("value", "expected"), [("128", "4096"), ("4096", "4096"), ("8192", "8192")])
def test_sysctls_are_raised_and_stay_where_they_are_higher(value, expected):
    state = compiled(on=node(sysctls={"net.core.somaxconn": value})).state
    assert dict(state.sysctls) == {"net.core.somaxconn": expected}


def test_the_default_qdisc_where_this_namespace_has_it():
    sysctls = {"net.core.default_qdisc": "fq_codel", "net.core.netdev_max_backlog": "300"}
    wanted = {"net.core.default_qdisc": "fq", "net.core.netdev_max_backlog": "1000"}
    assert dict(compiled(on=node(sysctls=sysctls)).state.sysctls) == wanted


def test_the_manager_alone_wants_no_load_balancer():
    assert compiled(DB, devices="eth0").state.load_balancer is None
    assert compiled(DB, services=[service()]).state.load_balancer is not None
    merged = merge_health(merge(DesiredState(), {"options": {"config": {"enable-bandwidth-manager": False}}}))
    assert not wants_load_balancer(merged)


# --- BBR ---

CONGESTION, IDLE = "net.ipv4.tcp_congestion_control", "net.ipv4.tcp_slow_start_after_idle"
FEATURES = {"sch_fq": True, "tcp_bbr": True, "delivery_time": True, "sock_ops_netns": True}
BBR = {"enable_bbr": True, "enable_host_legacy_routing": False}
HOST_ONLY = {"enable_bbr": True, "enable_bbr_hostns_only": True}


def capable(without=None, default="cubic", **fields):
    features = {name: name != without for name in FEATURES}
    sysctls = {CONGESTION: default, IDLE: "1"}
    return facts(*devices(), features=features, sysctls=sysctls, netns_cookie=77, **fields)


def test_bbr_of_all_is_a_sysctl():
    state = compiled(DB, on=capable(), **BBR).state
    assert (dict(state.sysctls), state.host_bbr) == ({CONGESTION: "bbr", IDLE: "0"}, None)


def test_bbr_of_the_host_alone_is_a_program():
    result = compiled(DB, on=capable(), **HOST_ONLY)
    assert dict(result.state.sysctls) == {IDLE: "0"}
    config = BbrConfig.from_buffer_copy(result.state.host_bbr)
    assert (bytes(config.build_id), config.netns_cookie) == (BUILD, 77)
    assert bytes(config.congestion) == b"cubic" + bytes(11)
    assert result.warnings == ()


def test_the_host_s_default_is_what_it_was_before_bbr_of_all():
    result = compiled(on=capable(default="bbr", originals={CONGESTION: "reno"}), **HOST_ONLY)
    assert bytes(BbrConfig.from_buffer_copy(result.state.host_bbr).congestion).rstrip(b"\0") == b"reno"
    assert result.warnings == ()


def test_a_host_whose_default_is_bbr_is_warned_of():
    (warning,) = compiled(on=capable(default="bbr"), **HOST_ONLY).warnings
    assert "endpoints have BBR as well" in warning


def test_without_bbr_nothing_of_it_is_wanted():
    state = compiled(DB, on=capable()).state
    assert (dict(state.sysctls), state.host_bbr) == ({}, None)
    compiled(DB, on=node())


@pytest.mark.parametrize(
    ("options", "missing", "path"),
    [
        (BBR, "tcp_bbr", "options.values.enable_bbr"),
        (BBR, "delivery_time", "options.values.enable_bbr"),
        (HOST_ONLY, "tcp_bbr", "options.values.enable_bbr"),
        (HOST_ONLY, "sock_ops_netns", "options.values.enable_bbr_hostns_only"),
    ],
)
def test_what_the_kernel_lacks_is_refused_by_name(options, missing, path):
    (error,) = refusals(DB, on=capable(without=missing), **options)
    assert error.path == path
    assert f"(feature {missing})" in error.message
    assert "a kernel " in error.allowed


@pytest.mark.parametrize(("options", "missing"), [(BBR, "sock_ops_netns"), (HOST_ONLY, "delivery_time")])
def test_what_is_not_needed_is_not_asked_for(options, missing):
    compiled(DB, on=capable(without=missing), **options)


def test_bbr_in_words():
    result = compiled(on=capable(), **HOST_ONLY)
    have = KernelState(sysctls={CONGESTION: "cubic", IDLE: "1"}, host_bbr=None)
    summaries = [row["summary"] for row in rows(plan(result.state, have), {})]
    assert "attach cgroup sock_bbr: BBR in place of cubic for the host's own sockets" in summaries
    assert "set sysctl net.ipv4.tcp_slow_start_after_idle: 1 -> 0" in summaries
    gone = [row["summary"] for row in rows(plan(KernelState(), result.state), {})]
    assert "detach cgroup sock_bbr: BBR in place of cubic for the host's own sockets" in gone
    lost = replace(result.state, host_bbr=b"")
    (row,) = rows(plan(result.state, lost), {})
    assert row["action"] == "replace"


# --- operations ---


def test_fq_comes_first_and_goes_last():
    result = compiled(DB, on=node(sysctls={"net.core.somaxconn": "128"}))
    have = KernelState(sysctls={"net.core.somaxconn": "128"}, qdiscs={"eth0": Qdisc("fq_codel", "kernel")})
    operations = plan(result.state, have).operations
    kinds = [SetSysctl, SetQdisc, PutBandwidth, PutEntry, PutEntry]
    assert [type(each) for each in operations] == kinds
    assert [each.map for each in operations[3:]] == [BANDWIDTH_RATES, BANDWIDTH_ENDPOINTS]
    assert plan(result.state, result.state).operations == ()
    assert plan(KernelState(), result.state).operations == (RemoveBandwidth(), SetQdisc("eth0", ""))


def test_a_changed_rate_is_one_entry():
    first, second = compiled(DB).state, compiled({**DB, "egress_bandwidth": "60M"}).state
    ((operation,)) = plan(second, first).operations
    assert (type(operation), operation.map) == (PutEntry, BANDWIDTH_RATES)


def test_an_endpoint_that_goes_is_unmarked_before_its_rate_goes():
    first, second = compiled(DB, WEB).state, compiled(WEB, have=compiled(DB, WEB).state).state
    operations = plan(second, first).operations
    assert isinstance(operations[0], PutBandwidth)
    assert [(type(each), each.map) for each in operations[1:]] == [
        (DeleteEntry, BANDWIDTH_ENDPOINTS),
        (DeleteEntry, BANDWIDTH_RATES),
    ]


def test_a_missing_program_is_drift():
    want = compiled(DB).state
    have = replace(want, bandwidth=replace(want.bandwidth, problems={"ve-db": "tc_bandwidth_mark not attached"}))
    assert plan(want, have).operations == (PutBandwidth(want.bandwidth),)


def test_in_words():
    result = compiled(DB, WEB)
    have = KernelState(qdiscs={"eth0": Qdisc("fq_codel", "kernel")})
    described = list(rows(plan(result.state, have), result.names, result.endpoints))
    assert [row["summary"] for row in described] == [
        f"set qdisc eth0: fq_codel -> {FQ}",
        "attach tc eth0: tc_bandwidth, egress",
        "attach tc ve-db: tc_bandwidth, of an endpoint, ingress and egress",
        "attach tc ve-web: tc_bandwidth, of an endpoint, ingress and egress",
        "create program tc_bandwidth: loaded",
        "create map rates_v1 db egress: 50 Mbit/s, horizon 0.671 s, priority 7",
        "create map rates_v1 web ingress: 10 Mbit/s, burst 131072 bytes",
        "create map endpoints_v1 device 3: db",
        "create map endpoints_v1 device 4: web",
    ]
    assert "qdisc eth0: fq_codel\n" in diff(described)["before"]
    gone = [row["summary"] for row in rows(plan(KernelState(), result.state), {})]
    assert gone[-2:] == ["delete program tc_bandwidth: loaded", f"set qdisc eth0: {FQ} -> the kernel's default"]


def test_a_priority_without_a_rate_in_words():
    result = compiled({"name": "db", "interface": "ve-db", "priority": 9})
    summaries = [row["summary"] for row in rows(plan(result.state, KernelState()), {}, result.endpoints)]
    assert "create map rates_v1 db egress: unlimited, priority 9" in summaries
