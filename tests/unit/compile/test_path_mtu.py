import ipaddress
from dataclasses import replace

import pytest

from datapath.compile import CompileErrors, path_mtu
from datapath.compile.path_mtu import Way, added
from datapath.spec.options import effective
from datapath.state.facts import NextHop
from datapath.state.model import Protocol
from unit.state.builders import compiled, desired, device, facts, service


@pytest.mark.parametrize(
    ("dispatch", "version", "tcp", "udp"),
    [
        ("opt", 4, 0, 8), ("opt", 6, 0, 24),
        ("ipip", 4, 20, 20), ("ipip", 6, 40, 40),
        ("geneve", 4, 20 + 8 + 8 + 14, 20 + 8 + 8 + 12 + 14), ("geneve", 6, 40 + 8 + 8 + 14, 40 + 8 + 8 + 24 + 14),
    ],
)  # fmt: skip
def test_what_a_packet_grows_by(dispatch, version, tcp, udp):
    assert (added(dispatch, Protocol.TCP, version), added(dispatch, Protocol.UDP, version)) == (tcp, udp)


def judge(*services, mtu=1500, receiving=1500, **config):
    state = desired(*services, **{"bpf_lb_mode": "dsr", **config})
    ways = {backend.address: Way("eth1", mtu) for each in state.services for backend in each.backends}
    return path_mtu.judge(state.services, effective(state.options), ways, [Way("eth0", receiving)])


UDP = "192.0.2.10:53/UDP"
V6 = {"vip": "[2001:db8::10]:80/TCP", "backends": ["[2001:db8:1::1]:80"]}


def test_full_size_packets_that_do_not_fit_are_told_with_numbers():
    (warning,) = judge(service(vip="192.0.2.10:8080/TCP"), bpf_lb_dsr_dispatch="ipip").warnings
    assert warning == (
        "TCP requests of 1500 bytes, the MTU of eth0, need 1520 with dispatch ipip; the MTU of eth1 towards 10.0.1.1"
        " and 2 more backends is 1500: clients get ICMP fragmentation needed, effective MTU 1480"
    )


@pytest.mark.parametrize(("mtu", "warned"), [(1519, True), (1520, False)])
def test_room_to_the_byte(mtu, warned):
    assert bool(judge(service(vip="192.0.2.10:8080/TCP"), mtu=mtu, bpf_lb_dsr_dispatch="ipip").warnings) is warned


def test_clients_that_never_send_so_much_are_not_warned_of():
    assert judge(service(vip="192.0.2.10:8080/TCP"), receiving=1400, bpf_lb_dsr_dispatch="ipip").warnings == ()


def test_an_option_is_on_udp_packets_and_on_small_syns():
    assert judge(service()).warnings == ()
    (warning,) = judge(service(vip=UDP)).warnings
    assert warning.startswith("UDP requests of 1500 bytes, the MTU of eth0, need 1508 with dispatch opt")


def test_services_without_direct_server_return_are_passed_over():
    assert judge(service(vip=UDP), bpf_lb_mode="snat", bpf_lb_dsr_dispatch="geneve").warnings == ()
    assert judge(service(vip=UDP), bpf_lb_mode="hybrid", bpf_lb_dsr_dispatch="geneve").warnings == ()
    assert len(judge(service(), bpf_lb_mode="hybrid", bpf_lb_dsr_dispatch="geneve").warnings) == 1


@pytest.mark.parametrize(("dispatch", "least"), [("ipip", 1280 + 40), ("geneve", 1280 + 70)])
def test_ipv6_must_keep_1280_bytes(dispatch, least):
    fits = judge(service(**V6), mtu=least, bpf_lb_dsr_dispatch=dispatch)
    assert fits.refusals == ()
    (refusal,) = judge(service(**V6), mtu=least - 1, bpf_lb_dsr_dispatch=dispatch).refusals
    assert refusal == (
        f"requests by IPv6 may always have 1280 bytes, which dispatch {dispatch} makes {least};"
        f" the MTU of eth1 towards 2001:db8:1::1 is {least - 1}"
    )


def test_ipv4_must_keep_576_bytes():
    tcp = service(vip="192.0.2.10:8080/TCP")
    assert judge(tcp, mtu=596, bpf_lb_dsr_dispatch="ipip").refusals == ()
    assert len(judge(tcp, mtu=595, bpf_lb_dsr_dispatch="ipip").refusals) == 1


def test_ipv6_inside_ipv4_keeps_ipv6s_minimum():
    crossing = service(vip="[2001:db8::10]:8080/TCP", backends=["10.0.1.1:8080"])
    assert judge(crossing, mtu=1300, bpf_lb_dsr_dispatch="ipip").refusals == ()
    assert len(judge(crossing, mtu=1299, bpf_lb_dsr_dispatch="ipip").refusals) == 1
    assert "packet too big, effective MTU 1280" in judge(crossing, mtu=1300, bpf_lb_dsr_dispatch="ipip").warnings[0]


def test_the_routes_own_mtu_counts():
    backend = ipaddress.ip_address("10.0.1.1")
    for route, expected in ((0, 1500), (1400, 1400), (9000, 1500)):
        node = facts(next_hops={backend: NextHop("eth0", backend, route)})
        assert path_mtu.ways_of(node, [backend]) == {backend: Way("eth0", expected)}
    assert path_mtu.ways_of(facts(without_route=["10.0.1.1"]), [backend]) == {}


def narrow(mtu):
    return facts(replace(device("eth0", "10.0.0.2/24", "2001:db8::2/64"), mtu=mtu), device("eth1", "10.9.0.2/24"))


def test_compiling_refuses_and_warns():
    dsr = {"bpf_lb_mode": "dsr", "bpf_lb_dsr_dispatch": "geneve"}
    with pytest.raises(CompileErrors, match="makes 1350; the MTU of eth0 towards 2001:db8:1::1 is 1300"):
        compiled(service(**V6), node=narrow(1300), **dsr)
    found = compiled(service(**V6), node=narrow(1500), **dsr)
    assert any("effective MTU 1430" in warning for warning in found.warnings)
    assert not any("effective MTU" in warning for warning in compiled(service(**V6), node=narrow(1500)).warnings)
