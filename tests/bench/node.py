"""A load balancer with 100 backends, its state made by the executor as on any node.

    router                       node                           backends
    198.51.100.254, fd01::fe -- in0  198.51.100.1, fd01::1
                                out0 10.0.1.1, fd02::1  -- 10.0.1.101 to .200, fd02::65 to ::c8

Clients are behind the router. Neighbours are permanent entries: nobody is there, and nothing is asked for.
"""

import logging
import os
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import programs
from datapath.agent.core import Agent
from datapath.agent.paths import Paths
from datapath.compile.layouts import Config
from datapath.compile.outcomes import OUTCOMES
from datapath.kernel import Kernel, libbpf, load_balancer
from datapath.plan.operations import SwapLoadBalancer
from netns.topology import NetNS, bpffs, veth

VIP = {4: "192.0.2.10", 6: "2001:db8::10"}
PORT = 80
CLIENT = {4: "198.18.0.0", 6: "2001:db8:c::"}
SNAT = {4: "10.0.1.1", 6: "fd02::1"}
ROUTER = {4: "198.51.100.254", 6: "fd01::fe"}
ROUTER_MAC = "02:00:00:00:00:fe"
BACKEND_MAC = "02:00:00:00:02:{:02x}"
MACS = {"in0": "02:00:00:00:00:01", "out0": "02:00:00:00:01:01"}
BACKENDS = range(101, 201)
TABLE_SIZE = 65521
FLOWS = 1 << 19
"""Size of both tables of flows."""


def backend(version, number):
    return f"10.0.1.{number}" if version == 4 else f"fd02::{number:x}"


def bracket(address):
    return f"[{address}]" if ":" in address else address


@dataclass(frozen=True)
class Mode:
    """How packets reach backends, and how a table names it."""

    name: str
    options: dict
    dispatch: str = ""
    hook: str = "xdp"

    @property
    def port(self):
        """The backends' own: what goes through an IP tunnel keeps the frontend's."""
        return PORT if self.dispatch == "ipip" else 8080

    def at_tc(self):
        """The same without XDP."""
        return replace(self, options={**self.options, "acceleration": "disabled"}, hook="tc")


TRANSLATING = Mode("SNAT", {})
DIRECT = tuple(
    Mode(f"DSR {dispatch}", {"mode": "dsr", "dsr_dispatch": dispatch}, dispatch)
    for dispatch in ("ipip", "opt", "geneve")
)


def document(mode=TRANSLATING):
    """The whole desired state."""
    items = [
        {
            "name": f"web{version}",
            "frontends": [f"{bracket(VIP[version])}:{PORT}/{protocol}" for protocol in ("TCP", "UDP")],
            "backends": [f"{bracket(backend(version, number))}:{mode.port}" for number in BACKENDS],
        }
        for version in (4, 6)
    ]
    values = {
        "algorithm": "maglev",
        "maglev_table_size": TABLE_SIZE,
        "devices": list(MACS),
        "direct_routing_device": "out0",
        "ct_tcp_max": FLOWS,
        "ct_any_max": FLOWS,
        **mode.options,
    }
    return {"options": {"values": values}, "services": {"items": items, "purge": True}}


def make_namespaces():
    node, peer = NetNS(), NetNS()
    for device, mac in MACS.items():
        veth(node, device, peer, f"{device}-peer")
        node.run(f"ip link set {device} address {mac}")
    for device, addresses in (("in0", ("198.51.100.1/24", "fd01::1/64")), ("out0", ("10.0.1.1/24", "fd02::1/64"))):
        for address in addresses:
            node.run(f"ip address add {address} dev {device}" + (" nodad" if ":" in address else ""))
    resolve(node)
    for version, router in ROUTER.items():
        node.run(f"ip -{version} route add default via {router}")
    return node, peer


def resolve(node):
    """Make all neighbours permanent entries."""
    lines = [f"neighbour replace {router} lladdr {ROUTER_MAC} dev in0 nud permanent" for router in ROUTER.values()]
    for version in ROUTER:
        for number in BACKENDS:
            mac = BACKEND_MAC.format(number)
            lines.append(f"neighbour replace {backend(version, number)} lladdr {mac} dev out0 nud permanent")
    with node:
        subprocess.run(("ip", "-batch", "-"), input="\n".join(lines), text=True, check=True)


@contextmanager
def agent_in(namespace):
    """An executor's agent in this process, with files and pins of its own; removes all of it at the end."""
    logging.getLogger("datapath").setLevel(logging.WARNING)
    os.environ["DATAPATH_OBJECTS"] = str(programs.PRODUCT.parent)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, ExitStack() as stack:
        paths = Paths(Path(directory))
        paths.pins.parent.mkdir(parents=True)
        for each in (paths.state, paths.run):
            each.mkdir(parents=True)
        stack.enter_context(bpffs(paths.pins.parent))
        stack.enter_context(namespace)
        agent = Agent(Kernel(paths.pins), paths)
        try:
            yield agent
        finally:
            agent.reset()


class Node:
    """The node, converged; use inside its namespace. `peer` is the namespace at the other end of its devices."""

    def __init__(self, agent, mode, namespace, peer):
        self.mode = mode
        self.namespace = namespace
        self.peer = peer
        self.kernel = agent.kernel
        self.pins = agent.paths.pins
        self.devices = {device: socket.if_nametoindex(device) for device in MACS}
        self.program = libbpf.pinned(self.pins / f"{mode.hook}_lb")
        self.config = load_balancer.config_of(self.program)
        self.maps = {path.name: libbpf.pinned(path) for path in (self.pins / "maps").iterdir()}

        self.flow_entries = FLOWS

    def close(self):
        for fd in (self.program, *self.maps.values()):
            os.close(fd)

    def outcomes(self):
        """Name of outcome -> packets."""
        counted = self.kernel.counters("outcomes_v1")
        return {OUTCOMES[index].name: packets for index, (packets, _) in counted.items()}


def transmit(agent):
    """Have frames that leave by the device that they came by sent by XDP_TX, as on network cards; a veth's are not."""
    loaded = agent.kernel.read().load_balancer
    config = Config.from_buffer_copy(loaded.config)
    config.transmit = 1
    agent.kernel.execute([SwapLoadBalancer(bytes(config), loaded.attachments)])


@contextmanager
def converged(mode=TRANSLATING):
    """A `Node`, in whose namespace the block runs."""
    programs.build_product()
    namespace, peer = make_namespaces()
    try:
        with agent_in(namespace) as agent:
            agent.apply(document(mode))
            if mode.hook == "xdp":
                transmit(agent)
            # The executor has had the entries resolved again, by asking; make them permanent once more.
            resolve(namespace)
            node = Node(agent, mode, namespace, peer)
            try:
                yield node
            finally:
                node.close()
    finally:
        namespace.close()
        peer.close()
