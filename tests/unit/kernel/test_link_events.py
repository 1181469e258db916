"""Devices that come and go are noticed."""

import select

import pytest

from datapath.kernel.link_events import LinkEvents, device_indexes


@pytest.fixture
def events(node):
    events = LinkEvents()
    yield events
    events.close()


def readable(events, seconds=5.0):
    return bool(select.select([events], [], [], seconds)[0])


def test_a_device_that_comes_and_one_that_goes(events, node):
    events.drain()
    assert not readable(events, 0)
    node.run("ip link add ve-a type veth peer name ve-b")
    assert readable(events)
    assert {"ve-a", "ve-b"} <= device_indexes().keys()
    events.drain()
    assert not readable(events, 0)
    node.run("ip link del ve-a")
    assert readable(events)
    assert "ve-b" not in device_indexes()


def test_more_than_there_is_room_for(events, node):
    for number in range(400):
        node.run(f"ip link set eth0 mtu {1400 + number % 2}")
    assert readable(events)
    events.drain()
    assert not readable(events, 0)
