"""Which endpoints a node has."""

from datapath.compile.endpoints import claimed, remarks, resolve
from datapath.state.facts import Device
from datapath.state.model import Endpoint

DEVICES = {
    name: Device(name, index, "veth", "02:00:00:00:00:01", 1500, up=True)
    for index, name in enumerate(("lo", "eth0", "ve-a", "ve-b", "tap0"), 1)
}
HOST = Endpoint("host", host=True)
DB = Endpoint("db", interface="ve-b")
CONTAINERS = Endpoint("containers", interfaces="ve-*")


def found(*endpoints, devices=DEVICES):
    return {each.name: each.device.name if each.device else each.present for each in resolve(endpoints, devices)}


def test_an_endpoint_has_its_device():
    assert found(HOST, DB) == {"host": True, "db": "ve-b"}
    assert remarks([HOST, DB], DEVICES) == []


def test_an_endpoint_without_its_device_is_pending():
    assert found(Endpoint("db", interface="ve-c"), devices=DEVICES) == {"db": False}
    (told,) = remarks([Endpoint("db", interface="ve-c")], DEVICES)
    assert told == "endpoint db is pending: there is no device ve-c; it is applied when that appears"


def test_each_device_that_a_pattern_matches_is_an_endpoint():
    assert found(CONTAINERS) == {"containers/ve-a": "ve-a", "containers/ve-b": "ve-b"}
    assert found(Endpoint("any", interfaces="*")).keys() == {"any/eth0", "any/ve-a", "any/ve-b", "any/tap0"}
    assert found(Endpoint("one", interfaces="tap[0-9]")) == {"one/tap0": "tap0"}


def test_an_endpoint_of_that_very_device_wins():
    assert found(CONTAINERS, DB) == {"containers/ve-a": "ve-a", "db": "ve-b"}
    assert found(DB, CONTAINERS) == found(CONTAINERS, DB)


def test_a_pattern_that_finds_nothing_is_pending():
    assert found(Endpoint("vms", interfaces="vnet*")) == {"vms": False}
    told = "endpoint one is pending: there is no device ve-b* that is no other endpoint's"
    assert remarks([DB, Endpoint("one", interfaces="ve-b*")], DEVICES) == [f"{told}; it is applied when that appears"]


def test_of_two_patterns_the_first_name_has_the_device():
    other = Endpoint("zones", interfaces="*-a")
    assert found(other, CONTAINERS) == {"containers/ve-a": "ve-a", "containers/ve-b": "ve-b", "zones": False}
    assert "device ve-a matches endpoints containers and zones; it is containers's" in remarks(
        [other, CONTAINERS], DEVICES
    )


def test_devices_that_endpoints_stand_for():
    indexes = {name: each.index for name, each in DEVICES.items()}
    assert claimed([HOST], indexes) == {}
    assert claimed([DB, CONTAINERS], indexes) == {"ve-a": 3, "ve-b": 4}
    assert claimed([Endpoint("db", interface="ve-c")], indexes) == {}
