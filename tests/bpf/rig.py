"""A node with the load balancer's program, to push frames through (BPF_PROG_TEST_RUN).

    clients                 node                      backends
    198.51.100.2, fd01::2 - in0  198.51.100.1, fd01::1
                            out0 10.0.1.1, fd02::1  - 10.0.1.11 ..., fd02::11 ...

The lookup of next hops asks the node's own namespace, so its routes and neighbours are real; all neighbours are
permanent entries, nobody answers.
"""

import errno
import functools
import ipaddress
import itertools
import os
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from datapath.compile import layouts
from datapath.compile.layouts import (
    BackendValue,
    ChoiceValue,
    Config,
    FlowKey,
    FlowValue,
    ServiceKey,
    ServiceValue,
    pack_address,
    unpack_address,
)
from datapath.compile.outcomes import OUTCOMES
from datapath.compile.peers import rings
from datapath.kernel import Kernel, abi, libbpf
from datapath.kernel.clock import jiffies_hz
from datapath.kernel.entries import read_entries
from datapath.kernel.errors import BpfError
from datapath.plan import operations as ops
from netns.topology import NetNS, veth

AT_EVERY_HOOK = pytest.mark.parametrize("hook", ["xdp", "tc"], indirect=True)
VERDICTS = {1: "drop", 2: "pass", 4: "redirect"}
"""Of XDP; those of tc are turned into them."""
TC_VERDICTS = {0: 2, 0xFFFFFFFF: 2, 2: 1, 7: 4}
TCP_NUMBER, UDP_NUMBER = 6, 17
PROTOCOLS = {"tcp": TCP_NUMBER, "udp": UDP_NUMBER}
TABLE_SIZE = 251
FLOW_MAPS = (layouts.FLOWS_TCP, layouts.FLOWS_ANY)
CHOICE_MAPS = (layouts.CHOICES_TCP, layouts.CHOICES_ANY)
LOOPBACK = 1
FRAGMENTS = "fragments_v1"
NEXTHOPS = "nexthops_v1"

MACS = {"in0": "02:00:00:00:00:01", "out0": "02:00:00:00:01:01"}
CLIENT_MAC = "02:00:00:00:00:02"
ROUTER_MAC = "02:00:00:00:00:fe"
BACKEND_MACS = {11: "02:00:00:00:01:0b", 12: "02:00:00:00:01:0c"}
OTHER = {4: 6, 6: 4}


@dataclass(frozen=True)
class Side:
    """Addresses of one family."""

    vip: str
    client: str
    far_client: str
    """Behind the router, whose MAC address is ROUTER_MAC."""
    lost_client: str
    """On link, without a neighbour entry."""
    snat: str
    own: str
    """The node's address on in0."""
    backend: str
    """Pattern of addresses on out0's link."""
    gateway: str
    """Pattern of addresses behind the backend .12."""
    small: str
    """Pattern of addresses behind the backend .11, on a route with an MTU of 1300."""
    tight: str
    """Likewise, with an MTU of 1400: a tunnel through it still has IPv6's 1280."""
    refused: dict = field(default_factory=dict)


SIDES = {
    4: Side(
        "192.0.2.10", "198.51.100.2", "203.0.113.7", "198.51.100.77", "10.0.1.1", "198.51.100.1", "10.0.1.{}",
        "10.0.4.{}", "10.0.3.{}", "10.0.5.{}",
        {"unreachable": "10.0.91.1", "blackhole": "10.0.92.1", "prohibit": "10.0.93.1"},
    ),
    6: Side(
        "2001:db8::10", "fd01::2", "fd03::7", "fd01::77", "fd02::1", "fd01::1", "fd02::{}",
        "fd04::{}", "fd05::{}", "fd06::{}",
        {"unreachable": "fd91::1", "blackhole": "fd92::1", "prohibit": "fd93::1"},
    ),
}  # fmt: skip
SMALL_MTU, TIGHT_MTU = 1300, 1400

# Ports of the VIPs and what is behind them; every one is a TCP and a UDP service.
WEB, EMPTY, LOST, UNREACHABLE, BLACKHOLE, PROHIBIT, LOCAL, SMALL, GATEWAY, WIDE, RANDOM = range(80, 91)
# Those with direct server return, where the program has it.
DSR, DSR_EMPTY, DSR_LOST, DSR_UNREACHABLE, DSR_TIGHT, DSR_CROSSED, DSR_CROSSED_TIGHT, DSR_RANDOM = range(91, 99)
AT_RANDOM = (RANDOM, DSR_RANDOM)


def backends_of(version):
    """Port of the VIP -> backends."""
    side, other = SIDES[version], SIDES[OTHER[version]]
    return {
        WEB: [(side.backend.format(11), 8080), (side.backend.format(12), 8080)],
        EMPTY: [],
        LOST: [(side.backend.format(99), 8080)],
        UNREACHABLE: [(side.refused["unreachable"], 8080)],
        BLACKHOLE: [(side.refused["blackhole"], 8080)],
        PROHIBIT: [(side.refused["prohibit"], 8080)],
        LOCAL: [(side.own, 8080)],
        SMALL: [(side.small.format(1), 8080)],
        GATEWAY: [(side.gateway.format(1), 8080)],
        # As many as the table has slots: the backend tells the slot.
        WIDE: [(side.gateway.format(number + 1), 8080) for number in range(TABLE_SIZE)],
        RANDOM: [(side.backend.format(11), 8080), (side.backend.format(12), 8080)],
        DSR: [(side.backend.format(11), 8080), (side.backend.format(12), 8080)],
        DSR_EMPTY: [],
        DSR_LOST: [(side.backend.format(99), 8080)],
        DSR_UNREACHABLE: [(side.refused["unreachable"], 8080)],
        DSR_TIGHT: [(side.tight.format(1), 8080)],
        # Only a tunnel crosses families.
        DSR_CROSSED: [(other.backend.format(11), 8080), (other.backend.format(12), 8080)],
        DSR_CROSSED_TIGHT: [(other.tight.format(1), 8080)],
        DSR_RANDOM: [(side.backend.format(11), 8080), (side.backend.format(12), 8080)],
    }


@dataclass(frozen=True)
class Result:
    """What became of a frame."""

    outcome: str
    verdict: str
    frame: bytes

    def __getattr__(self, name):
        packet = Ether(self.frame)
        ip = packet[IP] if IP in packet else packet[IPv6]
        l4 = packet[TCP] if TCP in packet else packet[UDP]
        return {"source": (ip.src, l4.sport), "destination": (ip.dst, l4.dport)}[name]


def set_forwarding(node, on):
    """Of both families; of the loopback device too, as kernels before 5.15 take it for the receiving one."""
    for device, version in itertools.product(("lo", *MACS), SIDES):
        node.run(f"sysctl -qw net.ipv{version}.conf.{device}.forwarding={int(on)}")


def make_node():
    """The node's namespace with its links, routes and neighbours."""
    node, peer = NetNS(), NetNS()
    # Or its solicitations would be counted among the frames of tests.
    peer.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    for device, mac in MACS.items():
        veth(node, device, peer, f"{device}-peer")
        node.run(f"ip link set {device} address {mac}")
    set_forwarding(node, True)
    for device, addresses in (("in0", ("198.51.100.1/24", "fd01::1/64")), ("out0", ("10.0.1.1/24", "fd02::1/64"))):
        for address in addresses:
            node.run(f"ip address add {address} dev {device}" + (" nodad" if ":" in address else ""))
    for version, side in SIDES.items():
        router = {4: "198.51.100.254", 6: "fd01::fe"}[version]
        neighbours = {("in0", side.client): CLIENT_MAC, ("in0", router): ROUTER_MAC}
        neighbours.update({("out0", side.backend.format(host)): mac for host, mac in BACKEND_MACS.items()})
        for (device, address), mac in neighbours.items():
            node.run(f"ip neighbour add {address} lladdr {mac} dev {device} nud permanent")
        prefix = {4: 24, 6: 64}[version]
        small, tight = f"mtu lock {SMALL_MTU}", f"mtu lock {TIGHT_MTU}"
        for pattern, host, more in ((side.gateway, 12, ""), (side.small, 11, small), (side.tight, 11, tight)):
            node.run(f"ip route add {pattern.format(0)}/{prefix} via {side.backend.format(host)} {more}")
        node.run(f"ip route add {ipaddress.ip_network((side.far_client, prefix), strict=False)} via {router}")
        for kind, address in side.refused.items():
            node.run(f"ip -{version} route add {kind} {address}")
    return node, peer


class Rig:
    """The program on its maps, attached to the node's devices."""

    def __init__(self, pins, hook="xdp"):
        self.kernel = Kernel(pins)
        self.hook = hook
        self.devices = {}
        self._pins = pins
        self._config = None
        self._program = -1
        self._changed = False
        self._tables = set()
        self.backend_ids = {}
        sizes = {layouts.SERVICES: 1024, layouts.ADDRESSES: 1024, layouts.BACKENDS: 4096, layouts.BACKEND_STATS: 4096}
        sizes.update(dict.fromkeys((layouts.LUTS, layouts.HISTORIES, layouts.SERVICE_STATS), 128))
        sizes.update(dict.fromkeys((*FLOW_MAPS, *CHOICE_MAPS), 4096))
        self.kernel.execute([ops.PrepareMaps(sizes, TABLE_SIZE), *self._services(), self._swap(self.config())])

    def _swap(self, config):
        return ops.SwapLoadBalancer(bytes(config), dict.fromkeys(MACS, {"xdp": "native"}.get(self.hook, self.hook)))

    def config(self, *, encap=None, **changes):
        """The usual configuration, with changes; `encap` is the source of outer packets by IP version."""
        hz = jiffies_hz()
        values = {
            "snat_port_min": 1024,
            "snat_port_max": 29999,
            "maglev_table_size": TABLE_SIZE,
            "hash_seed4": 0x71DCDA46,
            "hash_seed6": 0x92505688,
            "tcp_established_timeout": 8000 * hz,
            "tcp_closing_timeout": 10 * hz,
            "any_timeout": 60 * hz,
            "enable_ipv4": 1,
            "enable_ipv6": 1,
            "wildcard_entries": 1,
            "reject_without_backend": 1,
            "history_window_tcp": 600,
            "history_window_any": 60,
            "nexthop_age": 0,
            "forwarding_modes": layouts.MODE_SNAT,
            **changes,
        }
        config = Config(**values)
        config.build_id[:] = self.kernel.build_id()
        for version, snat, outer in (
            (4, config.snat_address4, config.encap_source4),
            (6, config.snat_address6, config.encap_source6),
        ):
            snat[:] = pack_address(ipaddress.ip_address(SIDES[version].snat))
            outer[:] = pack_address(ipaddress.ip_address(encap[version] if encap else SIDES[version].snat))
        return config

    def configure(self, **changes):
        """Load the program with changes to the usual configuration."""
        config = bytes(self.config(**changes))
        if config != self._config:
            self.kernel.execute([self._swap(config)])
            self._open(config)

    def _open(self, config):
        if self._program >= 0:
            os.close(self._program)
        self._config = config
        self._program = libbpf.pinned(self._pins / f"{self.hook}_lb")
        if self.hook == "xdp":
            # Asked once, before anything is counted.
            self._takes_context  # noqa: B018

    # --- state ---

    def _services(self):
        for version, side in SIDES.items():
            vip = pack_address(ipaddress.ip_address(side.vip))
            yield ops.PutEntry(layouts.ADDRESSES, vip, layouts.ADDRESS_VIP.to_bytes(4, "little"))
            for port, backends in backends_of(version).items():
                for protocol in PROTOCOLS.values():
                    algorithm = 1 if port in AT_RANDOM else 2
                    flags = layouts.SERVICE_DSR if port >= DSR else 0
                    yield from self.service((version, port, protocol), backends, algorithm, flags)

    def service(self, key, backends, algorithm=2, flags=0):
        """Operations that make a service; `key` is (IP version, port, protocol)."""
        version, port, protocol = key
        lut_id = self.lut_id(key)
        ids = []
        for address, backend_port in backends:
            number = self.backend_ids.setdefault((key, address), len(self.backend_ids) + 1)
            ids.append(number)
            yield self.backend(number, address, backend_port, protocol, lut_id=lut_id)
        if ids:
            table = [ids[slot % len(ids)] for slot in range(TABLE_SIZE)]
            yield ops.PutLut(lut_id, words(table))
        frontend = ServiceKey(port=port, protocol=protocol)
        frontend.address[:] = pack_address(ipaddress.ip_address(SIDES[version].vip))
        yield ops.PutEntry(layouts.SERVICES, bytes(frontend), bytes(ServiceValue(lut_id, len(ids), algorithm, flags)))

    def backend_id(self, key, host):
        """Id of a service's backend on out0's link."""
        return self.backend_ids[key, SIDES[key[0]].backend.format(host)]

    def put_table(self, key, hosts, keep_history=True):
        """Have a service's slots owned by `hosts` in turn, with what the executor keeps of the owners before."""
        table = [self.backend_id(key, hosts[slot % len(hosts)]) for slot in range(TABLE_SIZE)]
        self.execute(ops.PutLut(self.lut_id(key), words(table), keep_history))

    def lut_id(self, key):
        version, port, protocol = key
        return (port - WEB) * 4 + {4: 0, 6: 1}[version] + {TCP_NUMBER: 0, UDP_NUMBER: 2}[protocol] + 1

    def backend(self, number, address, port, protocol, *, lut_id, state=0):
        """Operation that writes a backend."""
        value = BackendValue(port=port, protocol=protocol, state=state, lut_id=lut_id)
        value.address[:] = pack_address(ipaddress.ip_address(address))
        return ops.PutEntry(layouts.BACKENDS, number.to_bytes(4, "little"), bytes(value))

    def execute(self, *operations):
        """Change services; undone by `restore`."""
        self._changed = True
        self._tables |= {each.lut_id for each in operations if isinstance(each, ops.PutLut)}
        self.kernel.execute(operations)

    def restore(self):
        """The state that every test begins with."""
        self.configure()
        if self._changed:
            # Tables take a grace period each: those that nobody changed are left alone.
            again = (
                each for each in self._services() if not isinstance(each, ops.PutLut) or each.lut_id in self._tables
            )
            self.kernel.execute(list(again))
            self._changed = False
            self._tables.clear()
        self.forget_flows()

    def forget_flows(self):
        """Everything that packets left behind."""
        for name in (*FLOW_MAPS, *CHOICE_MAPS, FRAGMENTS):
            keys = [key for key, _ in self.entries(name)]
            self.kernel.execute([ops.DeleteEntry(name, key) for key in keys])

    def put_peers(self, version, *addresses):
        """Have these load balancers, the node among them, be all of a family."""
        mine = [key for key, _ in self.entries(layouts.PEERS) if unpack_address(key).version == version]
        found = rings([ipaddress.ip_address(each) for each in addresses])
        deletes = [ops.DeleteEntry(layouts.PEERS, key) for key in mine if key not in found]
        self.kernel.execute([*deletes, *(ops.PutEntry(layouts.PEERS, key, value) for key, value in found.items())])

    def entries(self, name):
        """Everything in a map."""
        with libbpf.closing(libbpf.pinned(self._pins / "maps" / name)) as fd:
            return list(read_entries(fd))

    def forget_nexthops(self):
        found = [(key, value) for key, value in self.entries(NEXTHOPS) if any(value)]
        self.kernel.execute([ops.PutEntry(NEXTHOPS, key, bytes(len(value))) for key, value in found])

    def most_entries(self, name):
        """As many as a map has room for."""
        with libbpf.closing(libbpf.pinned(self._pins / "maps" / name)) as fd:
            return libbpf.map_info(fd).max_entries

    @property
    def program(self):
        """File descriptor of the loaded program."""
        return self._program

    def choices(self, name=None):
        """[(FlowKey, ChoiceValue)] of one map or of both."""
        found = [pair for each in ((name,) if name else CHOICE_MAPS) for pair in self.entries(each)]
        return [(FlowKey.from_buffer_copy(key), ChoiceValue.from_buffer_copy(value)) for key, value in found]

    def age_choices(self, seconds):
        """Make all records of flows with direct server return older."""
        for name in CHOICE_MAPS:
            for key, value in self.choices(name):
                value.last_seen = (value.last_seen - round(seconds * jiffies_hz())) & 0xFFFFFFFF
                self.kernel.execute([ops.PutEntry(name, bytes(key), bytes(value))])

    def records(self):
        """Map -> entries, of every map that holds anything that a packet left behind."""
        found = {name: len(self.entries(name)) for name in (*FLOW_MAPS, *CHOICE_MAPS, FRAGMENTS)}
        return {name: count for name, count in found.items() if count}

    @staticmethod
    def flow_map(key):
        return layouts.FLOWS_TCP if key.protocol == TCP_NUMBER else layouts.FLOWS_ANY

    def flows(self, protocol=None):
        """(requests, replies): lists of (FlowKey, FlowValue)."""
        found = [pair for pair in self.kernel.flows() if protocol in (None, pair[0].protocol)]
        return [pair for pair in found if pair[0].direction == 0], [pair for pair in found if pair[0].direction == 1]

    def put_flow(self, key, value):
        self.kernel.execute([ops.PutEntry(self.flow_map(key), bytes(key), bytes(value))])

    def delete_flow(self, key):
        self.kernel.execute([ops.DeleteEntry(self.flow_map(key), bytes(key))])

    def age(self, seconds):
        """Make all flows older."""
        for key, value in list(self.kernel.flows()):
            value.last_seen = (value.last_seen - round(seconds * jiffies_hz())) & 0xFFFFFFFF
            self.put_flow(key, value)

    # --- packets ---

    def outcomes(self):
        return {OUTCOMES[index].name: count for index, count in self.kernel.counters(layouts.OUTCOMES).items()}

    def run(self, frame, device="in0", meta=0):
        """Push a frame through the program; it has to be counted once, with its length, and to be judged as counted."""
        if meta and not self._takes_metadata(meta):
            pytest.skip("this kernel runs no program behind so much metadata")
        before = self.outcomes()
        verdict, output = self.push(frame, device, meta)
        changed = {
            name: (packets - before.get(name, (0, 0))[0], size - before.get(name, (0, 0))[1])
            for name, (packets, size) in self.outcomes().items()
            if (packets, size) != before.get(name)
        }
        assert len(changed) == 1, f"counted as {changed}"
        ((name, count),) = changed.items()
        assert count == (1, len(frame) - meta), f"{name} counted {count}"
        expected = next(each.verdict.value for each in OUTCOMES if each.name == name)
        assert VERDICTS[verdict] == {"forward": "redirect", "answer": "redirect"}.get(expected, expected)
        return Result(name, VERDICTS[verdict], output)

    def push(self, frame, device="in0", meta=0):
        """(XDP verdict, frame) and nothing more; the first `meta` bytes of `frame` are metadata in front of it."""
        if self.hook == "tc":
            context = abi.SkBuff(ifindex=self.devices[device])
            verdict, output, _ = libbpf.run_program(self._program, bytes(frame), context)
            return TC_VERDICTS[verdict], output
        context = abi.XdpMd(data=meta, ingress_ifindex=self.devices[device]) if self._takes_context else None
        verdict, output, _ = libbpf.run_program(self._program, bytes(frame), context)
        return verdict, output[meta:] if meta else output

    def receiving(self, device):
        """Index of the device that frames run as if they came in by."""
        return self.devices[device] if self._takes_context else LOOPBACK

    def _takes_metadata(self, meta):
        try:
            self.push(bytes(meta + 60), "in0", meta)
        except BpfError:
            return False
        return self._takes_context

    @functools.cached_property
    def _takes_context(self):
        """Kernels before 5.15 run a program only as if the frame had come in by the loopback device."""
        try:
            context = abi.XdpMd(ingress_ifindex=self.devices["in0"])
            libbpf.run_program(self._program, bytes(60), context)
        except BpfError as e:
            if e.errno != errno.EINVAL:
                raise
            return False
        return True


def pack(number):
    return number.to_bytes(4, "little")


def words(numbers):
    """A table's bytes."""
    return b"".join(map(pack, numbers))


def end(address, port):
    """ADDR:PORT."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def flow_ends(key):
    """((source, port), (destination, port)) of a FlowKey; of a FlowValue what they become."""
    if isinstance(key, FlowKey):
        ends = ((key.source, key.source_port), (key.destination, key.destination_port))
    else:
        assert isinstance(key, FlowValue)
        ends = ((key.new_source, key.new_source_port), (key.new_destination, key.new_destination_port))
    return tuple((str(unpack_address(bytes(address))), port) for address, port in ends)


def ether(source=CLIENT_MAC, destination=MACS["in0"]):
    return Ether(src=source, dst=destination)


def ip(version, source, destination, *, ttl=63, **fields):
    """An IP header."""
    if version == 4:
        return IP(src=source, dst=destination, ttl=ttl, **fields)
    return IPv6(src=source, dst=destination, hlim=ttl, **fields)


def l4(protocol, sport, dport, flags="A", **fields):
    """A TCP or UDP header."""
    if protocol == "tcp":
        return TCP(sport=sport, dport=dport, flags=flags, seq=1000, ack=2000, **fields)
    return UDP(sport=sport, dport=dport, **fields)


def request(
    version,
    protocol="tcp",
    *,
    port=WEB,
    sport=20000,
    flags="S",
    source=None,
    ttl=63,
    payload=b"GET",
    dont_fragment=False,
    **fields,
):
    """A client's packet to the VIP."""
    side = SIDES[version]
    if dont_fragment and version == 4:
        fields["flags"] = "DF"
    packet = (
        ether() / ip(version, source or side.client, side.vip, ttl=ttl, **fields) / l4(protocol, sport, port, flags)
    )
    return bytes(packet / Raw(payload)) if payload else bytes(packet)


def reply(version, result, protocol="tcp", *, flags="SA", ttl=63, payload=b"200", **fields):
    """A backend's answer to a request that came out of the program as `result`."""
    (client, client_port), (backend, backend_port) = result.source, result.destination
    mac = Ether(result.frame).dst
    head = ether(mac, MACS["out0"]) / ip(version, backend, client, ttl=ttl, **fields)
    packet = head / l4(protocol, backend_port, client_port, flags)
    return bytes(packet / Raw(payload)) if payload else bytes(packet)
