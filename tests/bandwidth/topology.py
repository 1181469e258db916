"""A node with a real agent between containers, which are endpoints, and peers behind the one device that leads out.

    db  eth0 10.8.1.2 -- 10.8.1.1 ve-db                                    eth0 10.9.0.11 peer of db
                                         node  eth0 10.9.0.1 -- eth0 wire
    web eth0 10.8.2.2 -- 10.8.2.1 ve-web                                   eth0 10.9.0.12 peer of web

Each endpoint has a peer of its own, on the same wire (macvlan), so that devices' counters tell whose traffic arrived.
"""

import json
from contextlib import contextmanager
from pathlib import Path

from bandwidth.traffic import Received
from datapath.cli import client
from integration.node import Node
from integration.node import node as make_node
from netns.topology import NetNS, veth, wait_for

ENDPOINTS = ("db", "web")
_PEERS = {"db": "10.9.0.11", "web": "10.9.0.12"}
_CONTAINERS = {"db": "10.8.1", "web": "10.8.2"}


class BandwidthNode(Node):
    """What Node calls `lb` is the node here."""

    addresses = _PEERS

    def _set_up_links(self):
        wire = self.backend
        veth(self.lb, "eth0", wire, "eth0", offloads=True)
        self.lb.run("ip address add 10.9.0.1/24 dev eth0")
        self.lb.run("sysctl -qw net.ipv4.ip_forward=1")
        self.containers = {"db": self.client, "web": NetNS()}
        self.peers = {name: NetNS() for name in ENDPOINTS}
        for name, prefix in _CONTAINERS.items():
            veth(self.lb, f"ve-{name}", self.containers[name], "eth0", offloads=True)
            self.lb.run(f"ip address add {prefix}.1/24 dev ve-{name}")
            self.containers[name].run(f"ip address add {prefix}.2/24 dev eth0")
            self.containers[name].run(f"ip route add default via {prefix}.1")
            self._macvlan(wire, self.peers[name], _PEERS[name])
        self.received = {name: Received(peer) for name, peer in self.peers.items()}

    def _macvlan(self, wire, peer, address):
        holder = peer.start("sleep", "60")
        try:
            wire.run("ip link add macvlan0 link eth0 type macvlan mode bridge")
            wire.run(f"ip link set macvlan0 netns {holder.pid} name eth0")
        finally:
            holder.kill()
            holder.wait()
        peer.run("ip link set eth0 up")
        peer.run(f"ip address add {address}/24 dev eth0")
        peer.run("ip route add default via 10.9.0.1")

    def close(self):
        super().close()
        for each in self.received.values():
            each.close()
        for namespace in (self.containers["web"], *self.peers.values()):
            namespace.close()

    def request(self, method, target, document=None):
        """Ask the agent as the command does, without the seconds that a command takes to start in a guest."""
        path = self.root / "run/datapath/datapathd.sock"
        code, answer = client.call(path, method, target, None if document is None else json.dumps(document).encode())
        assert code == 200, answer
        return answer

    def serve(self, rates, **values):
        """Have these egress rates, of endpoints, and no others."""
        options = {"devices": ["eth0"], "enable_bandwidth_manager": True, **values}
        items = [{"name": name, "interface": f"ve-{name}", "egress_bandwidth": rate} for name, rate in rates.items()]
        return self.request(
            "POST", "/v1/apply", {"options": {"values": options}, "endpoints": {"items": items, "purge": True}}
        )

    def settle(self):
        """Wait until nothing of the traffic before is on its way."""
        for each in self.received.values():
            wait_for(each.idle, 15, "an idle peer")

    def htb(self, rates):
        """Shape by HTB alone what these endpoints send: a class each, with the queue that classes have by default."""
        self.request("POST", "/v1/reset")
        self.lb.run("tc qdisc add dev eth0 root handle 1: htb")
        for number, (name, rate) in enumerate(rates.items(), 1):
            self.lb.run(f"tc class add dev eth0 parent 1: classid 1:{number} htb rate {rate}bit")
            match = f"u32 match ip src {_CONTAINERS[name]}.2/32 flowid 1:{number}"
            self.lb.run(f"tc filter add dev eth0 parent 1: protocol ip {match}")

    def no_htb(self):
        self.lb.run("tc qdisc del dev eth0 root")


@contextmanager
def bandwidth_node(directory: Path):
    """With a running agent."""
    with make_node(directory, BandwidthNode) as made:
        made.start()
        yield made
