"""A device whose driver refuses native XDP: told before, at, and after the apply, and never disturbed."""

import pytest

from integration.node import document, service

REASON = "the other end's MTU 9000 is above 3506, the most that driver veth takes for XDP in one buffer"
REMEDY = "ip link set dev OTHER_END mtu 3506"


@pytest.fixture
def jumbo(agent):
    """The client's end of the veth takes larger frames than XDP does."""
    agent.client.run("ip link set eth0 mtu 9000")
    return agent


def test_native_mode_is_refused_with_reason_and_remedy(jumbo):
    for ask, words in ((jumbo.check, ""), (jumbo.apply, "veth: Peer MTU is too large to set XDP")):
        (error,) = ask(document(service()), code=2)["errors"]
        assert "device client0 has no native XDP" in error["message"]
        assert REASON in error["message"]
        assert words in error["message"]
        assert error["allowed"].startswith(REMEDY)
        assert jumbo.xdp_program("client0") is None


def test_generic_mode_is_told_with_reason_and_remedy(jumbo):
    wanted = document(service(), acceleration="best-effort")
    assert any(REMEDY in warning for warning in jumbo.check(wanted)["warnings"])
    assert jumbo.xdp_program("client0") is None
    jumbo.apply(wanted)
    devices = jumbo.ask("status")["devices"]
    assert {name: device["mode"] for name, device in devices.items()} == {"client0": "generic", "backend0": "native"}
    assert (devices["client0"]["driver"], devices["client0"]["native_xdp"]) == ("veth", False)
    assert f"{REASON} -> {REMEDY}" in jumbo.run("status").stdout
    assert f"{REASON} -> {REMEDY}" in jumbo.run("info").stdout
    seen = jumbo.ask("info")["devices"]
    assert (seen["client0"]["xdp_mode"], seen["backend0"]["xdp_mode"]) == ("generic", "native")


def test_what_is_attached_is_not_tried_again(agent):
    agent.apply(document(service()))
    before = [agent.xdp_program(device) for device in ("client0", "backend0")]
    agent.client.run("ip link set eth0 mtu 1400")
    agent.apply(document(service(port=8081)))
    assert [agent.xdp_program(device) for device in ("client0", "backend0")] == before
