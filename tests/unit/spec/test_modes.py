"""Forwarding modes: what options and services may say together."""

import pytest

from datapath.spec.document import dump, load, merge
from datapath.spec.errors import SpecErrors
from datapath.spec.later import LATER
from datapath.spec.modes import mode_of, uses
from datapath.spec.options import effective
from datapath.state.model import DesiredState, Mode, Protocol

NOTHING = DesiredState()
IPIP = {"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": "ipip"}
CHOICE = {"bpf-lb-mode-annotation": True}


def service(**fields):
    return {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.1.11:80"], **fields}


def document(options, *services):
    return {"options": {"config": options}, "services": {"items": list(services)}}


def errors(options, *services, current=NOTHING):
    with pytest.raises(SpecErrors) as refused:
        merge(current, document(options, *services))
    return [(error.path, error.message) for error in refused.value.errors]


@pytest.mark.parametrize(
    ("options", "own", "tcp", "udp"),
    [
        ({}, None, "snat", "snat"),
        ({"bpf-lb-mode": "dsr"}, None, "dsr", "dsr"),
        ({"bpf-lb-mode": "hybrid"}, None, "dsr", "snat"),
        (CHOICE, "dsr", "dsr", "dsr"),
        ({**CHOICE, "bpf-lb-mode": "dsr"}, "snat", "snat", "snat"),
        ({**CHOICE, "bpf-lb-mode": "dsr"}, None, "dsr", "dsr"),
    ],
)
def test_the_mode_of_a_service(options, own, tcp, udp):
    chosen = Mode(own) if own else None
    found = [mode_of(chosen, protocol, effective(options)).value for protocol in (Protocol.TCP, Protocol.UDP)]
    assert found == [tcp, udp]
    assert {Mode(tcp), Mode(udp)} <= uses(effective(options))


def test_only_modes_that_may_occur_are_used():
    assert uses(effective({})) == {Mode.SNAT}
    assert uses(effective({"bpf-lb-mode": "dsr"})) == {Mode.DSR}
    assert uses(effective({"bpf-lb-mode": "hybrid"})) == uses(effective(CHOICE)) == set(Mode)


def test_a_service_that_chooses_is_stored_as_it_was_given():
    state = merge(NOTHING, document(CHOICE, service(mode="DSR")))
    assert state.services[0].mode is Mode.DSR
    assert load(dump(state)) == state


def test_a_service_may_not_choose_without_the_option():
    ((path, message),) = errors({"bpf-lb-mode": "dsr"}, service(mode="snat"))
    assert path == "services.items[0].mode"
    assert "only with bpf-lb-mode-annotation: true" in message


def test_the_option_cannot_go_while_a_service_chooses():
    state = merge(NOTHING, document(CHOICE, service(mode="dsr")))
    ((path, _),) = errors({}, current=state)
    assert path == "services.web.mode"


def test_hybrid_leaves_services_no_choice():
    ((path, message),) = errors({"bpf-lb-mode": "hybrid", **CHOICE})
    assert path == "options"
    assert message.startswith("hybrid chooses by protocol")
    assert any("unknown value 'hybrid'" in message for _, message in errors(CHOICE, service(mode="hybrid")))


@pytest.mark.parametrize("key", ["bpf-lb-rss-ipv4-src-cidr", "bpf-lb-rss-ipv6-src-cidr"])
@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, False),
        ({"bpf-lb-dsr-dispatch": "ipip"}, False),
        ({"bpf-lb-mode": "dsr"}, False),
        ({"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": "geneve"}, False),
        (IPIP, True),
        ({**IPIP, "bpf-lb-mode": "hybrid"}, True),
        ({**CHOICE, "bpf-lb-dsr-dispatch": "ipip"}, True),
    ],
)
def test_sources_of_tunnels_need_tunnels(key, options, allowed):
    wanted = {**options, key: "10.200.0.0/16" if "ipv4" in key else "2001:db8:200::/96"}
    if allowed:
        merge(NOTHING, document(wanted))
        return
    ((path, message),) = errors(wanted)
    assert (path, message) == ("options", f"{key} is the source of IP tunnels, and no service uses one")


def test_a_tunnel_leads_to_the_frontend_s_port():
    item = service(backends=["10.0.1.11:80", "10.0.1.12:8080"])
    ((path, message),) = errors(IPIP, item)
    assert path == "services.items[0].backends[1]"
    assert "192.0.2.10:80/TCP" in message
    assert "nothing rewrites it to 8080" in message
    for options in ({}, {"bpf-lb-mode": "dsr"}, {"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": "geneve"}):
        merge(NOTHING, document(options, item))


def test_only_the_frontends_in_tunnels_count():
    """With hybrid the UDP frontend's packets are translated."""
    hybrid = {**IPIP, "bpf-lb-mode": "hybrid"}
    merge(NOTHING, document(hybrid, service(frontends=["192.0.2.10:80/TCP", "192.0.2.10:53/UDP"])))
    found = errors(hybrid, service(frontends=["192.0.2.10:80/TCP", "192.0.2.10:81/TCP"]))
    assert [path for path, _ in found] == ["services.items[0].backends[0]"]


def test_options_that_services_stand_against_are_refused_with_the_service_s_place():
    state = merge(NOTHING, document({}, service(backends=["10.0.1.11:8080"])))
    ((path, message),) = errors(IPIP, current=state)
    assert path == "services.web.backends[0]"
    assert "nothing rewrites it" in message


@pytest.mark.parametrize(
    ("options", "frontends", "allowed"),
    [
        (IPIP, ["192.0.2.10:80/TCP"], True),
        ({**IPIP, "bpf-lb-mode": "hybrid"}, ["192.0.2.10:80/TCP"], True),
        ({**IPIP, "bpf-lb-mode": "hybrid"}, ["192.0.2.10:80/TCP", "192.0.2.10:80/UDP"], False),
        ({"bpf-lb-dsr-dispatch": "ipip"}, ["192.0.2.10:80/TCP"], False),
        ({"bpf-lb-mode": "dsr"}, ["192.0.2.10:80/TCP"], False),
        ({"bpf-lb-mode": "dsr", "bpf-lb-dsr-dispatch": "geneve"}, ["192.0.2.10:80/TCP"], False),
    ],
)
def test_only_tunnels_lead_to_the_other_address_family(options, frontends, allowed):
    item = service(frontends=frontends, backends=["10.0.1.11:80", "[2001:db8:1::11]:80"])
    if allowed:
        merge(NOTHING, document(options, item))
        return
    ((path, message),) = errors(options, item)
    assert path == "services.items[0].backends[1]"
    assert "mixed address families" in message
    assert "IP tunnels" in message


def test_an_absent_service_is_not_judged():
    merge(NOTHING, document({}, service(state="absent", mode="dsr", backends=["[2001:db8:1::11]:80"])))


def test_vxlan_is_refused_for_its_own_reason():
    for name in ("tunnel-protocol", "cilium_tunnel_mode"):
        assert "direct server return" in LATER[name]
        assert "VXLAN" in LATER[name]


def test_too_big_packets_are_always_answered():
    assert "always answered" in LATER["enable-pmtu-discovery"]
