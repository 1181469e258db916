from dataclasses import replace

import pytest

from datapath.compile.layouts import SERVICES
from datapath.plan import plan
from datapath.plan.describe import diff, rows
from datapath.state.kernel_state import KernelState, UserProgram
from datapath.state.model import Hook, Program
from unit.state.builders import compiled, loaded, service

FIELDS = {"action", "target", "key", "before", "after", "summary"}
ACTIONS = {"create", "update", "delete", "attach", "replace", "detach", "set"}


def described(first, second, names=None):
    have = loaded(first.state) if first else KernelState()
    want = second.state if second else KernelState()
    return list(rows(plan(want, have), names or (second or first).names))


def summaries(first, second):
    return [row["summary"] for row in described(first, second)]


def test_a_fresh_load_balancer():
    found = summaries(None, compiled(service(backends=2)))
    assert "create map services_v1: 65536 entries" in found
    assert "create tables of map luts_v1: 251 slots" in found
    assert "set sysctl net.ipv4.conf.eth0.forwarding: 1" in found
    assert "create neighbour 10.0.0.1 on eth0: kept resolved" in found
    assert "create map backends_v1 web/TCP 10.0.1.1:8080: active" in found
    assert "create table of web/TCP: 2 backends" in found
    assert "create map services_v1 192.0.2.10:80/TCP: web/TCP, random, 2 backends" in found
    assert "create map addresses_v1 192.0.2.10: VIP" in found
    assert "set configuration snat_address4: 10.0.0.2" in found
    assert found[-1] == "attach xdp eth0: xdp_lb, native"


def test_other_load_balancers():
    first = compiled(service(), datapath_lb_peers="10.0.0.2,10.0.0.9")
    second = compiled(service(), have=loaded(first.state), datapath_lb_peers="10.0.0.2,10.0.0.9,10.0.0.10")
    assert summaries(first, second) == [
        "update map peers_v1 10.0.0.9: next is 10.0.0.2 -> next is 10.0.0.10",
        "create map peers_v1 10.0.0.10: next is 10.0.0.2",
    ]
    assert "set configuration peers: 0 -> 1" in summaries(compiled(service()), first)


def test_a_change_of_backends():
    first = compiled(service(backends=2))
    found = summaries(first, compiled(service(backends=1, algorithm="maglev"), have=loaded(first.state)))
    assert found == [
        found[0],
        "update map services_v1 192.0.2.10:80/TCP: web/TCP, random, 2 backends -> web/TCP, maglev, 1 backend",
        "delete map backends_v1 web/TCP 10.0.1.2:8080: active",
    ]
    assert found[0].startswith("update table of web/TCP: 1 backend, 49.8% of its slots move")


def test_the_table_is_told_by_shares():
    first = compiled(service(backends=2))
    (row,) = [row for row in described(None, first) if row["target"] == "map luts_v1"]
    assert row["key"] == "web/TCP"
    assert row["after"] in ("10.0.1.1:8080 50.20%, 10.0.1.2:8080 49.80%", "10.0.1.2:8080 50.20%, 10.0.1.1:8080 49.80%")


def test_a_long_table_is_cut():
    (row,) = [row for row in described(None, compiled(service(backends=20))) if row["target"] == "map luts_v1"]
    assert row["after"].endswith(" and 4 more")


def test_a_new_configuration_is_told_field_by_field():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_enable_wildcard_entries=False, devices="eth1")
    assert summaries(first, second) == [
        "set sysctl net.ipv4.conf.eth1.forwarding: 1",
        "set configuration wildcard_entries: 1 -> 0",
        "attach xdp eth1: xdp_lb, native",
        "detach xdp eth0: xdp_lb, native",
    ]


def test_a_foreign_program_is_told():
    state = compiled(service()).state
    have = replace(state, load_balancer=replace(state.load_balancer, foreign={"eth0": "program 7 (count)"}))
    (row,) = rows(plan(state, have), {})
    assert row["summary"] == "replace xdp eth0: program 7 (count) -> xdp_lb, native"


def test_removal():
    found = summaries(compiled(service()), None)
    assert found[0] == "detach xdp eth0: xdp_lb, native"
    assert "delete map services_v1: 65536 entries" in found
    assert "delete neighbour 10.0.0.1 on eth0: kept resolved" in found


@pytest.mark.parametrize(
    ("before", "after", "summary"),
    [
        (None, ("a" * 16, Hook.XDP), "attach program count: f, tag aaaaaaaaaaaaaaaa, xdp native on eth0"),
        (
            ("a" * 16, Hook.XDP),
            ("b" * 16, Hook.XDP),
            f"replace program count: f, tag {'a' * 16}, xdp native on eth0 -> f, tag {'b' * 16}, xdp native on eth0",
        ),
        (("a" * 16, Hook.TC), None, "detach program count: f, tag aaaaaaaaaaaaaaaa, tc ingress on eth0"),
        (None, ("a" * 16, Hook.NONE), "create program count: f, tag aaaaaaaaaaaaaaaa, not attached"),
    ],
)
def test_users_programs(before, after, summary):
    def state(tag, hook):
        device = None if hook is Hook.NONE else "eth0"
        return KernelState(programs={"count": UserProgram(Program("count", "/x.o", "f", hook, device), tag)})

    states = [state(*each) if each else KernelState() for each in (after, before)]
    (row,) = rows(plan(*states), {})
    assert row["summary"] == summary


def test_every_operation_has_rows_and_every_row_has_all_fields():
    first = compiled(service(), service("other", "192.0.2.11:80/TCP"))
    second = compiled(
        service(backends=2),
        service("web6", "[2001:db8::10]:80/UDP", backends=["[2001:db8:1::1]:80"]),
        have=loaded(first.state),
        bpf_lb_maglev_table_size=509,
        bpf_ct_global_tcp_max=2048,
    )
    found = described(first, second)
    operations = plan(second.state, loaded(first.state)).operations
    assert len(found) >= len(operations)
    for row in found:
        assert set(row) == FIELDS
        assert row["action"] in ACTIONS
        assert "\n" not in row["summary"]
        assert row["before"] is not None or row["after"] is not None


def test_a_diff_has_a_line_for_each_thing_that_differs():
    first = compiled(service(backends=2))
    second = compiled(service(backends=1), have=loaded(first.state))
    texts = diff(described(first, second))
    assert texts["before"].splitlines()[0] == "map backends_v1 web/TCP 10.0.1.2:8080: active"
    assert "map services_v1 192.0.2.10:80/TCP: web/TCP, random, 2 backends" in texts["before"].splitlines()
    assert "map services_v1 192.0.2.10:80/TCP: web/TCP, random, 1 backend" in texts["after"].splitlines()
    assert "10.0.1.2" not in texts["after"]


def test_a_diff_of_nothing_is_empty():
    state = compiled(service())
    assert diff(described(state, state)) == {"before": "", "after": ""}


def test_entries_of_unknown_values_are_described_too():
    state = compiled(service()).state
    key, value = next(iter(state.entries[SERVICES].items()))
    strange = bytes([*key[:18], 132, 0])
    have = replace(loaded(state), entries={**state.entries, SERVICES: {key: value, strange: bytes(8)}})
    (row,) = rows(plan(state, have), {})
    assert row["key"] == "192.0.2.10 port 80 protocol 132"
    assert row["before"].endswith("unknown (0), 0 backends")


def test_operations_that_nobody_described_are_an_error():
    class Strange:
        pass

    strange = replace(plan(KernelState(), KernelState()), operations=(Strange(),))
    with pytest.raises(TypeError):
        list(rows(strange, {}))


def test_direct_server_return_is_told():
    first = compiled(service(backends=1))
    found = summaries(first, compiled(service(backends=1), have=loaded(first.state), bpf_lb_mode="dsr"))
    before, after = "web/TCP, random, 1 backend", "web/TCP, random, DSR, 1 backend"
    assert f"update map services_v1 192.0.2.10:80/TCP: {before} -> {after}" in found
    assert "update map choices_tcp_v1: 1024 entries -> 262144 entries" in found
    assert "set configuration dsr_dispatch: 0 -> 1" in found


def test_a_change_to_tc_and_back():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_acceleration="disabled")
    assert summaries(first, second) == ["attach tc eth0: tc_lb, ingress", "detach xdp eth0: xdp_lb, native"]
    assert summaries(second, first) == ["attach xdp eth0: xdp_lb, native", "detach tc eth0: tc_lb, ingress"]
    assert "detach tc eth0: tc_lb, ingress" in summaries(second, None)


def test_a_backend_s_programs():
    first = compiled(datapath_dsr_backend=True)
    assert summaries(None, first) == ["attach tc eth0: tc_node, ingress and egress"]
    wider = compiled(datapath_dsr_backend=True, devices="eth+")
    assert summaries(first, wider) == [
        "replace tc eth0: tc_node, ingress and egress",
        "attach tc eth1: tc_node, ingress and egress",
    ]
    assert summaries(first, None) == ["detach tc eth0: tc_node, ingress and egress"]
    broken = replace(first.state, node=replace(first.state.node, problems={"eth0": "tc_node_egress not attached"}))
    (row,) = rows(plan(first.state, broken), {})
    assert (row["action"], row["before"]) == ("replace", "tc_node_egress not attached")
