"""The kernel's own VLAN devices, with the load balancer at XDP on the devices below them.

VLAN 7 between client and node, VLAN 9 between node and backend; or 7 in a provider's 100, 9 in a provider's 200 (QinQ).
This machine's kernel may have no VLAN devices: then that is shown on the kernels of tools/kernels.
"""

import json

import pytest

from datapath.compile.config import read_config
from netns.balanced import BACKEND, VIPS, Balanced, datagram, document, echo, services_of, transfer
from netns.topology import bpffs

VLANS = {8: 7, 9: 9}
"""Network -> VLAN."""
PROVIDERS = {7: 100, 9: 200}


def add_vlan(namespace, device, vlan, qinq):
    """The VLAN device; tags are in the frames, as wires have them."""
    namespace.run(f"ethtool -K {device} txvlan off tx-vlan-stag-hw-insert off", check=False)
    if qinq:
        outer = PROVIDERS[vlan]
        # An MTU has room for one tag.
        namespace.run(f"ip link set {device} mtu 1504")
        namespace.run(f"ip link add link {device} name {device}.{outer} type vlan id {outer} protocol 802.1ad")
        namespace.run(f"ip link set {device}.{outer} up")
        namespace.run(f"ethtool -K {device}.{outer} txvlan off", check=False)
        namespace.run(f"ip link add link {device}.{outer} name {device}.{vlan} type vlan id {vlan}")
    else:
        namespace.run(f"ip link add link {device} name {device}.{vlan} type vlan id {vlan}")
    namespace.run(f"ip link set {device}.{vlan} mtu 1500 up")


@pytest.fixture(params=["tagged", "qinq"])
def balanced(request, tmp_path):
    def tagged(namespace, device, net):
        try:
            add_vlan(namespace, device, VLANS[net], request.param == "qinq")
        except AssertionError as refused:
            if "Unknown device type" not in str(refused):
                raise
            pytest.skip("this kernel has no VLAN devices")
        return f"{device}.{VLANS[net]}"

    with bpffs(tmp_path / "bpf") as mounted:
        made = Balanced(mounted)
        try:
            made.address(tagged)
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", ["snat", "geneve"])
def test_vlans_below_and_above(balanced, version, mode):
    options = {"devices": "eth0.7,eth1.9"}
    if mode == "geneve":
        options.update(bpf_lb_mode="dsr", bpf_lb_dsr_dispatch="geneve")
        balanced.apply(document([], datapath_dsr_backend=True, devices="eth0.9"), "backend")
    have = balanced.apply(document(services_of(version), **options))
    assert dict(have.load_balancer.attachments) == {"eth0": "native", "eth1": "native"}
    assert read_config(have).vlans == 1
    links = json.loads(balanced.node.run("ip -j -d link show"))
    carrying = {link["ifname"] for link in links if link.get("xdp")}
    assert carrying == {"eth0", "eth1"}
    with echo(balanced.backend, BACKEND[version]):
        transfer(balanced.client, VIPS[version], 80, bytes(range(256)) * 500)
        datagram(balanced.client, VIPS[version], 80, 1000)
        # What is for the node itself passes.
        assert "1 received" in balanced.client.run("ping -c 1 -W 5 10.8.0.1")
