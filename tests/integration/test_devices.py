"""A device whose driver refuses native XDP: told before, at, and after the apply, and never disturbed."""

import pytest

from datapath.kernel import devices
from integration.node import document, service

REASON = "driver veth has native XDP, but not for this device as it is set up now"
REMEDY = "as many receive queues as the other end has transmit queues"


@pytest.fixture
def queued(agent):
    """The client's end of the veth sends by more queues than the other end receives by."""
    agent.client.run("ethtool -L eth0 tx 2")
    return agent


def test_native_mode_is_refused_with_reason_and_remedy(queued):
    for ask in (queued.check, queued.apply):
        (error,) = ask(document(service()), code=2)["errors"]
        assert "device client0 has no native XDP" in error["message"]
        assert REASON in error["message"]
        assert error["allowed"].startswith(REMEDY)
        assert queued.xdp_program("client0") is None


def test_generic_mode_is_told_with_reason_and_remedy(queued):
    wanted = document(service(), acceleration="best-effort")
    assert any(REMEDY in warning for warning in queued.check(wanted)["warnings"])
    assert queued.xdp_program("client0") is None
    queued.apply(wanted)
    attached = queued.ask("status")["devices"]
    assert {name: device["mode"] for name, device in attached.items()} == {"client0": "generic", "backend0": "native"}
    assert (attached["client0"]["driver"], attached["client0"]["native_xdp"]) == ("veth", False)
    assert f"{REASON} -> {REMEDY}" in queued.run("status").stdout
    assert f"{REASON} -> {REMEDY}" in queued.run("info").stdout
    seen = queued.ask("info")["devices"]
    assert (seen["client0"]["xdp_mode"], seen["backend0"]["xdp_mode"]) == ("generic", "native")


def test_an_mtu_beyond_one_buffer_is_native_too(agent):
    if devices.xdp_features(1) is None:
        pytest.skip("this kernel (before 6.3) does not redirect frames in several buffers")
    agent.client.run("ip link set eth0 mtu 9000")
    agent.check(document(service()))
    agent.apply(document(service()))
    attached = agent.ask("status")["devices"]
    assert {device["mode"] for device in attached.values()} == {"native"}


def test_what_is_attached_is_not_tried_again(agent):
    agent.apply(document(service()))
    before = [agent.xdp_program(device) for device in ("client0", "backend0")]
    agent.client.run("ip link set eth0 mtu 1400")
    agent.apply(document(service(port=8081)))
    assert [agent.xdp_program(device) for device in ("client0", "backend0")] == before
