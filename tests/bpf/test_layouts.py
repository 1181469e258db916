"""Both sides of every shared structure, compared through the object's debug information."""

import ctypes
import json
import subprocess

import pytest

from bpf.conftest import REPOSITORY
from datapath.compile import layouts
from datapath.generate import outcomes as generated


class Btf:
    """Types of an object file, as bpftool prints them."""

    def __init__(self, path):
        command = ["bpftool", "btf", "dump", "file", path, "-j"]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        self.types = {entry["id"]: entry for entry in json.loads(output.stdout)["types"]}

    def named(self, kind, name):
        (found,) = [entry for entry in self.types.values() if (entry["kind"], entry["name"]) == (kind, name)]
        return found

    def size(self, number):
        entry = self.types[number]
        if entry["kind"] == "ARRAY":
            return entry["nr_elems"] * self.size(entry["type_id"])
        return entry["size"] if "size" in entry else self.size(entry["type_id"])

    def members(self, name):
        """(name, offset, size) of each member, in bytes."""
        return [
            (member["name"], member["bits_offset"] // 8, self.size(member["type_id"]))
            for member in self.named("STRUCT", name)["members"]
        ]


@pytest.fixture(scope="module")
def btf(lb_object):
    return Btf(lb_object)


@pytest.fixture(scope="module")
def node_btf(lb_object):
    return Btf(lb_object.parent / "tc_node.bpf.o")


@pytest.fixture(scope="module")
def bandwidth_btf(lb_object):
    return Btf(lb_object.parent / "tc_bandwidth.bpf.o")


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.C_NAME)
def test_structure(btf, layout):
    same(btf, layout)


@pytest.mark.parametrize("layout", [layouts.FlowKey, *layouts.NODE_LAYOUTS], ids=lambda layout: layout.C_NAME)
def test_structure_of_node_programs(node_btf, layout):
    same(node_btf, layout)


@pytest.mark.parametrize("layout", [layouts.Counter, *layouts.BANDWIDTH_LAYOUTS], ids=lambda layout: layout.C_NAME)
def test_structure_of_bandwidth_programs(bandwidth_btf, layout):
    same(bandwidth_btf, layout)


def test_structure_of_the_program_of_bbr(lb_object):
    same(Btf(lb_object.parent / "sock_bbr.bpf.o"), layouts.BbrConfig)


def same(btf, layout):
    fields = [(name, getattr(layout, name).offset, getattr(layout, name).size) for name, *_ in layout._fields_]
    assert fields == btf.members(layout.C_NAME)
    assert ctypes.sizeof(layout) == btf.named("STRUCT", layout.C_NAME)["size"]


@pytest.mark.parametrize(
    "layout",
    [*layouts.LAYOUTS, *layouts.NODE_LAYOUTS, *layouts.BANDWIDTH_LAYOUTS, layouts.BbrConfig],
    ids=lambda layout: layout.C_NAME,
)
def test_no_hidden_padding(layout):
    """A hole in a key would carry whatever the stack held."""
    assert sum(getattr(layout, name).size for name, *_ in layout._fields_) == ctypes.sizeof(layout)


def names_used(prefix=""):
    """Names of maps whose constants begin so; "" for those of the load balancer."""
    names = {name: value for name, value in vars(layouts).items() if name.isupper() and isinstance(value, str)}
    others = ("NODE_", "BANDWIDTH_")
    return {
        value for name, value in names.items() if (name.startswith(prefix) if prefix else not name.startswith(others))
    }


def maps_declared(btf):
    return {btf.types[entry["type_id"]]["name"] for entry in btf.named("DATASEC", ".maps")["vars"]}


def test_maps_have_the_names_that_the_executor_uses(btf, node_btf, bandwidth_btf):
    assert names_used() <= maps_declared(btf)
    assert names_used("NODE_") == maps_declared(node_btf)
    assert names_used("BANDWIDTH_") == maps_declared(bandwidth_btf)


def test_header_of_outcomes_is_current():
    for path, text in generated.outputs().items():
        assert (REPOSITORY / path).read_text() == text
