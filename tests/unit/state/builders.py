"""Small worlds to compile in: a load balancer with two devices, and documents in one line."""

import ipaddress
from collections.abc import Mapping
from dataclasses import replace

from datapath.compile import compile_state
from datapath.sources.merge import Known
from datapath.sources.merge import merge as merge_health
from datapath.spec.document import merge
from datapath.state.facts import Device, NextHop, NodeFacts
from datapath.state.kernel_state import KernelState
from datapath.state.model import DesiredState

BUILD = b"build-identifier"
GATEWAY4 = ipaddress.ip_address("10.0.0.1")
GATEWAY6 = ipaddress.ip_address("fe80::1")


def device(name, *addresses, native=True, driver="virtio_net", reason="", up=True, peer_xdp=None):
    interfaces = tuple(ipaddress.ip_interface(address) for address in addresses)
    return Device(name, 2, driver, "02:00:00:00:00:01", 1500, up, interfaces, native, reason, peer_xdp)


class Routed(Mapping):
    """Next hops of any address: all behind one gateway a family, but for those in `without`."""

    def __init__(self, without=()):
        self.without = {ipaddress.ip_address(each) for each in without}

    def __getitem__(self, address):
        if address in self.without:
            raise KeyError(address)
        return NextHop("eth0", GATEWAY4 if address.version == 4 else GATEWAY6)

    def __iter__(self):
        raise TypeError("there are too many")

    def __len__(self):
        raise TypeError("there are too many")


def facts(*devices, without_route=(), **fields):
    devices = devices or (
        device("eth0", "10.0.0.2/24", "2001:db8::2/64", "fe80::2/64"),
        device("eth1", "10.9.0.2/24"),
        device("lo", "127.0.0.1/8", "::1/128", driver="", native=False),
    )
    values = {
        "kernel": "6.1.0",
        "cpus": 2,
        "jiffies_hz": 250,
        "features": {},
        "devices": {each.name: each for each in devices},
        "default_devices": ("eth0",),
        "gateways": (NextHop("eth0", GATEWAY4), NextHop("eth0", GATEWAY6)),
        "next_hops": Routed(without_route),
        "sysctls": {"net.ipv4.ip_local_port_range": "32768 60999", "net.ipv6.conf.eth0.accept_ra": "1"},
    }
    return NodeFacts(**{**values, **fields})


def service(name="web", vip="192.0.2.10:80/TCP", backends=3, **fields):
    """A service of IPv4 backends 10.0.1.1, .2, ... on port 8080, or of those in a list."""
    if isinstance(backends, int):
        backends = [f"10.0.1.{number}:8080" for number in range(1, backends + 1)]
    return {"name": name, "frontends": vip if isinstance(vip, list) else [vip], "backends": backends, **fields}


def desired(*services, current=None, programs=(), **config):
    """Desired state of these services, with options by Cilium key (underscores for hyphens)."""
    options = {"bpf-lb-maglev-table-size": 251, **{key.replace("_", "-"): value for key, value in config.items()}}
    document = {
        "options": {"config": options},
        "services": {"items": list(services), "purge": True},
        "programs": {"items": list(programs), "purge": True},
    }
    return merge(current or DesiredState(), document)


def compiled(*services, node=None, have=None, health=None, previous=None, programs=(), inspected=(), **config):
    """`compile_state` of these services."""
    merged = merge_health(desired(*services, programs=programs, **config), Known(health or {}))
    node, have = node or facts(), have or KernelState()
    return compile_state(merged, node, have, BUILD, programs=inspected, previous=previous)


def loaded(state):
    """What the kernel stage would read back after `state` was written."""
    return replace(state, load_balancer=state.load_balancer and replace(state.load_balancer, program_tag="0" * 16))
