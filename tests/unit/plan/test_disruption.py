import ipaddress
import struct
from array import array
from dataclasses import replace

import pytest

from datapath.compile.layouts import BACKENDS, FlowKey, FlowValue, pack_address
from datapath.plan import disruption, plan
from datapath.state.kernel_state import KernelState
from datapath.state.merged import HealthKey
from unit.state.builders import compiled, device, facts, loaded, service

IP = ipaddress.ip_address


def between(first, second, flows=(), names=None):
    have = loaded(first.state) if first else KernelState()
    want = second.state if second else KernelState()
    return disruption(plan(want, have), names or (second or first).names, flows)


def flow(state, backend, direction=0, port=2000, client="198.51.100.7"):
    """A flow to the backend with that address, as the kernel would have it."""
    for packed, value in state.entries[BACKENDS].items():
        if value[:16] == pack_address(IP(backend)):
            lut_id = struct.unpack("=I", value[20:24])[0]
            key = FlowKey(source_port=port, destination_port=80, protocol=6, direction=direction)
            key.source[:] = pack_address(IP(client))
            key.destination[:] = pack_address(IP("192.0.2.10" if ":" not in backend else "2001:db8::10"))
            (number,) = struct.unpack("=I", packed)
            return key, FlowValue(backend_id=number, lut_id=lut_id, new_source_port=port)
    raise LookupError(backend)


def test_the_first_apply_disrupts_nothing():
    assert between(None, compiled(service())) == {"slots_moved": {}, "flows_affected": {}, "notes": []}


def test_a_backend_that_goes_moves_its_slots_and_its_flows():
    first = compiled(service(backends=4))
    second = compiled(service(backends=3), have=loaded(first.state))
    flows = [
        flow(first.state, "10.0.1.4", port=2000),
        flow(first.state, "10.0.1.4", port=2001),
        flow(first.state, "10.0.1.4", direction=1),
        flow(first.state, "10.0.1.1"),
    ]
    found = between(first, second, flows)
    assert found["flows_affected"] == {"web/TCP": 2}
    assert found["slots_moved"]["web/TCP"] == pytest.approx(0.25, abs=0.03)


def test_slots_are_compared_by_backend_and_not_by_id():
    first = compiled(service(backends=3))
    renumbered = compiled(service(backends=3), bpf_lb_service_backend_map_max=4, bpf_lb_maglev_map_max=65536)
    assert first.state.luts != renumbered.state.luts
    assert between(first, renumbered)["slots_moved"] == {}


def test_a_backend_that_fails_keeps_its_flows():
    check = {"type": "tcp"}
    first = compiled(service(backends=2, health_check=check))
    failed = {HealthKey("web", IP("10.0.1.1"), 8080): False}
    second = compiled(service(backends=2, health_check=check), health=failed, have=loaded(first.state))
    found = between(first, second, [flow(first.state, "10.0.1.1")])
    assert found["flows_affected"] == {}
    assert found["slots_moved"]["web/TCP"] == pytest.approx(0.5, abs=0.01)


def test_a_service_that_goes_is_told_by_its_name_or_its_frontend():
    first = compiled(service(), service("other", "192.0.2.11:80/TCP"))
    second = compiled(service("other", "192.0.2.11:80/TCP"), have=loaded(first.state))
    flows = [flow(first.state, "10.0.1.1")]
    flows[0][1].lut_id = next(number for number, name in first.names.items() if name == "web/TCP")
    assert between(first, second)["slots_moved"] == {"192.0.2.10:80/TCP": 1.0}
    assert between(first, second, names={**first.names, **second.names})["slots_moved"] == {"web/TCP": 1.0}


def test_another_table_size_moves_most_slots():
    first = compiled(service(backends=3))
    second = compiled(service(backends=3), have=loaded(first.state), bpf_lb_maglev_table_size=509)
    found = between(first, second)
    assert found["slots_moved"]["web/TCP"] == pytest.approx(2 / 3, abs=0.05)
    assert any("table size changes" in note for note in found["notes"])
    assert found["flows_affected"] == {}


def test_flows_are_not_read_where_none_can_be_affected():
    def forbidden():
        raise AssertionError("flows were read")
        yield

    first = compiled(service(backends=2))
    second = compiled(service(backends=3), have=loaded(first.state))
    assert between(first, second, forbidden())["flows_affected"] == {}


def test_another_source_address_ends_the_flows_of_its_family():
    web6 = service("web6", "[2001:db8::10]:80/TCP", backends=["[2001:db8:1::1]:80"])
    first = compiled(service(), web6)
    moved = facts(device("eth0", "10.0.0.3/24", "2001:db8::2/64"))
    second = compiled(service(), web6, node=moved, have=loaded(first.state))
    flows = [flow(first.state, "10.0.1.1"), flow(first.state, "2001:db8:1::1", client="2001:db8:2::7")]
    found = between(first, second, flows)
    assert found["flows_affected"] == {"web/TCP": 1}
    assert found["notes"] == ["the source address of IPv4 requests changes: all IPv4 flows end"]


def test_a_smaller_port_range_ends_the_flows_outside():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), datapath_snat_port_range="3000-9000")
    flows = [flow(first.state, "10.0.1.1", port=2000), flow(first.state, "10.0.1.1", port=4000)]
    assert between(first, second, flows)["flows_affected"] == {"web/TCP": 1}


def test_removing_the_load_balancer_ends_every_flow():
    first = compiled(service())
    found = between(first, None, [flow(first.state, "10.0.1.1")])
    assert found["flows_affected"] == {"web/TCP": 1}
    assert found["slots_moved"] == {"web/TCP": 1.0}
    assert "the load balancer is removed: every flow through it ends" in found["notes"]


def test_a_smaller_flow_map_is_told():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_ct_global_any_max=2048)
    assert between(first, second)["notes"] == [
        "map flows_any_v1 shrinks from 262144 to 2048: flows that do not fit are forgotten"
    ]


def test_a_table_that_the_kernel_lost_part_of_has_moved():
    state = compiled(service(backends=2)).state
    ((lut_id, slots),) = state.luts.items()
    damaged = array("I", slots)
    for index in range(0, 251, 2):
        damaged[index] = 0
    have = replace(loaded(state), luts={lut_id: damaged.tobytes()})
    assert disruption(plan(state, have), {lut_id: "web/TCP"})["slots_moved"] == {"web/TCP": round(126 / 251, 4)}


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"bpf_lb_acceleration": "testing-only"}, "eth1 changes from native to generic XDP, which cannot be"),
        ({"devices": ["eth0"]}, "eth1 is left: what comes by it is not balanced any more"),
    ],
)
def test_a_device_that_is_left_or_changes_its_mode_is_noted(options, note):
    first = compiled(service(), devices=["eth0", "eth1"])
    second = compiled(service(), have=loaded(first.state), **{"devices": ["eth0", "eth1"], **options})
    assert [each for each in between(first, second)["notes"] if each.startswith(note)]
    assert between(first, compiled(service(), have=loaded(first.state), devices=["eth0", "eth1"]))["notes"] == []


# --- forwarding modes ---


def test_a_change_of_mode_ends_the_flows_of_the_services_concerned():
    both = {"vip": ["192.0.2.10:80/TCP", "192.0.2.10:80/UDP"]}
    first = compiled(service(**both))
    second = compiled(service(**both), have=loaded(first.state), bpf_lb_mode="hybrid")
    found = between(first, second)
    assert found["notes"] == ["web/TCP changes to DSR: its established flows end"]
    assert found["slots_moved"] == {}


def test_flows_are_counted_of_services_that_change_mode_alone():
    one, other = service(mode="snat"), service("other", "192.0.2.11:80/TCP", ["10.0.2.1:80"], mode="snat")
    options = {"bpf_lb_mode_annotation": True}
    first = compiled(one, other, **options)
    second = compiled({**one, "mode": "dsr"}, other, have=loaded(first.state), **options)
    flows = [flow(first.state, "10.0.1.1"), flow(first.state, "10.0.1.1", direction=1), flow(first.state, "10.0.2.1")]
    found = between(first, second, flows)
    assert found["flows_affected"] == {"web/TCP": 1}
    assert found["notes"] == ["web/TCP changes to DSR: its established flows end"]
    back = between(second, first)
    assert back["notes"] == ["web/TCP changes to SNAT: its established flows end"]


def test_another_dispatch_is_noted_where_it_is_used():
    first = compiled(service(), bpf_lb_mode="dsr")
    second = compiled(service(), have=loaded(first.state), bpf_lb_mode="dsr", bpf_lb_dsr_dispatch="geneve")
    (note,) = between(first, second)["notes"]
    assert note.startswith("the dispatch of direct server return changes")
    unused = compiled(), compiled(bpf_lb_mode="dsr"), compiled(bpf_lb_mode="dsr", bpf_lb_dsr_dispatch="geneve")
    assert between(unused[1], unused[2])["notes"] == []
    assert between(unused[0], unused[1])["notes"] == []


def test_a_change_between_xdp_and_tc_misses_nothing():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_acceleration="disabled")
    assert between(first, second)["notes"] == []
    assert between(second, first)["notes"] == []
