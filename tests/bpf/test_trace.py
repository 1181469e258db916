"""`datapath trace` on the real program: what it tells is what packets then meet, and nobody notices."""

import re

import pytest
from scapy.layers.l2 import Ether

from bpf.oracle import slot_hash
from bpf.rig import (
    AT_EVERY_HOOK,
    CLIENT_MAC,
    DSR,
    GATEWAY,
    LOST,
    PROTOCOLS,
    SIDES,
    TABLE_SIZE,
    UNREACHABLE,
    WEB,
    WIDE,
    end,
    reply,
    request,
)
from datapath.agent import trace as tracing
from datapath.agent.core import Agent
from datapath.agent.paths import Paths
from datapath.compile import layouts
from datapath.kernel import trace as kernel_trace

EACH = pytest.mark.parametrize(("version", "protocol"), [(4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")])
BOTH = pytest.mark.parametrize("version", [4, 6])
SENT = {"xdp": ("XDP_REDIRECT", "native"), "tc": ("TC_ACT_REDIRECT", "tc")}
"""What sends a frame at a hook, and how that is called."""


def test_every_map_is_shared_or_private(lb_object):
    from datapath.kernel.bpf_object import BpfObject
    from datapath.kernel.maps import map_names

    with BpfObject(lb_object.read_bytes(), "xdp_lb") as obj:
        own = {
            *kernel_trace.RECORDS,
            layouts.NEXTHOPS,
            layouts.LOOKUPS,
            layouts.CAPTURE_EVENTS,
            "fragments_v1",
            "scratch_v1",
            layouts.OUTCOMES,
            layouts.SERVICE_STATS,
            layouts.BACKEND_STATS,
            "answer_budget_v1",
            "relay_budget_v1",
        }
        assert {*map_names(obj)} == own | {*kernel_trace.SHARED}, "is the new map a table, or does it remember?"


@AT_EVERY_HOOK
@EACH
def test_new_flow(rig, trace, version, protocol):
    told = trace(version, protocol)
    action, mode = SENT[rig.hook]
    assert (told["verdict"], told["action"], told["outcome"]) == ("forward", action, "request_new_flow")
    assert told["flow"]["before"] is None
    assert told["why"][0] == "no flow record: a new flow begins"
    assert told["snat"] == {"source": end(SIDES[version].snat, 20000), "how": "kept", "reason": ""}
    assert told["slot"]["number"] == slot_hash(SIDES[version].client, 20000, WEB, PROTOCOLS[protocol]) % TABLE_SIZE
    assert told["device"] == {"name": "in0", "attached": mode}
    met = rig.run(request(version, protocol))
    assert told["backend"]["backend"] == end(*met.destination)
    hop = {"device": "out0", "address": met.destination[0], "mac": Ether(met.frame).dst}
    assert told["next_hop"] == hop


@AT_EVERY_HOOK
@EACH
def test_known_flow(rig, trace, version, protocol):
    met = rig.run(request(version, protocol))
    rig.age(30)
    told = trace(version, protocol, **({"tcp_flags": "A"} if protocol == "tcp" else {}))
    assert told["outcome"] == "request_forwarded"
    assert told["backend"]["backend"] == end(*met.destination)
    assert re.fullmatch(r"flow record \(new, idle (29|3\d) s\) leads to this backend", told["why"][0])
    assert told["snat"]["how"] == "record"
    assert told["flow"]["after"]["state"] == ("established" if protocol == "tcp" else "new")


@EACH
def test_source_port_that_is_taken(rig, trace, version, protocol):
    """Another client's flow to the same backend has it: the live flow maps decide, not the empty private ones."""
    side, port = SIDES[version], GATEWAY
    rig.run(request(version, protocol, port=port, source=side.far_client))
    told = trace(version, protocol, port=port)
    assert told["snat"]["how"] == "allocated"
    assert told["snat"]["reason"].endswith(f"is taken towards this backend by {end(side.far_client, 20000)}")
    assert told["snat"]["source"] == end(*rig.run(request(version, protocol, port=port)).source)


@AT_EVERY_HOOK
@EACH
def test_reply(rig, trace, version, protocol):
    side = SIDES[version]
    met = rig.run(request(version, protocol))
    more = {"tcp_flags": "SA"} if protocol == "tcp" else {}
    (backend, port), (snat, snat_port) = met.destination, met.source
    told = trace(version, protocol, source=backend, sport=port, destination=snat, port=snat_port, **more)
    assert (told["outcome"], told["direction"], told["device"]["name"]) == ("reply_forwarded", "reply", "out0")
    assert told["service"]["frontend"] == f"{end(side.vip, WEB)}/{protocol.upper()}"
    assert told["backend"]["backend"] == end(backend, port)
    assert re.fullmatch(r"flow record \(new, idle \d s\) leads to the client", told["why"][0])
    after = told["after"]
    assert (after["source"], after["source_port"]) == (side.vip, WEB)
    assert (after["destination"], after["destination_port"]) == (side.client, 20000)
    assert told["next_hop"] == {"device": "in0", "address": side.client, "mac": CLIENT_MAC}
    assert rig.run(reply(version, met, protocol), "out0").outcome == "reply_forwarded"


@AT_EVERY_HOOK
@BOTH
def test_next_hop_that_cannot_be_reached(trace, version):
    told = trace(version, port=LOST)
    assert told["outcome"] == "no_neighbour_dropped"
    lost = SIDES[version].backend.format(99)
    assert told["backend"]["backend"] == end(lost, 8080)
    assert told["next_hop"] == {"device": "out0", "address": lost, "mac": None}
    told = trace(version, port=UNREACHABLE)
    assert (told["outcome"], told["next_hop"]) == ("no_route_dropped", None)


def test_a_lie_is_told_loudly(rig, snapshot, tmp_path, monkeypatch):
    """The executor's hash against the program's: spoil one, and the answer says that they differ."""
    from datapath.agent import evidence

    agent = Agent(rig.kernel, Paths(tmp_path))
    right = evidence.slot_for
    monkeypatch.setattr(evidence, "slot_for", lambda *arguments: (right(*arguments) + 1) % TABLE_SIZE)
    words = {"source": end(SIDES[4].client, 20000), "destination": f"{end(SIDES[4].vip, WIDE)}/TCP"}
    (lie,) = tracing.trace(agent, words)["disagreements"]
    assert "the program chose" in lie
    assert "which the packet's hash gives, holds" in lie


# --- direct server return ---

DISPATCH = pytest.mark.parametrize("dispatch", [1, 2, 3], ids=["opt", "ipip", "geneve"])


@AT_EVERY_HOOK
@EACH
@DISPATCH
def test_direct_server_return(rig, trace, version, protocol, dispatch):
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=dispatch)
    told = trace(version, protocol, port=DSR)
    name = {1: "opt", 2: "ipip", 3: "geneve"}[dispatch]
    assert (told["verdict"], told["dispatch"], told["snat"]) == ("forward", name, None)
    slot = slot_hash(SIDES[version].client, 20000, DSR, PROTOCOLS[protocol]) % TABLE_SIZE
    backend = SIDES[version].backend.format(11 + slot % 2)
    assert told["slot"]["number"] == slot
    assert told["backend"] == {"backend": end(backend, 8080), "id": told["slot"]["backend_id"], "state": "active"}
    (why,) = told["why"]
    assert why == f"slot {slot} of the table holds this backend and has not changed owner: no record is needed"
    assert told["flow"] == {"before": None, "after": None}
    assert told["after"]["to"] == told["next_hop"]["address"] == backend
    if dispatch == 2:
        assert told["after"]["destination"] == SIDES[version].vip
        assert told["after"]["tunnel"] == f"IP in IP, {SIDES[version].snat} > {backend}"
    else:
        assert told["after"]["destination"] == backend
        assert told["after"]["dsr"] == end(SIDES[version].vip, DSR)


@BOTH
def test_direct_server_return_after_a_change(rig, trace, version):
    rig.configure(forwarding_modes=layouts.MODE_SNAT | layouts.MODE_DSR, dsr_dispatch=1)
    key = (version, DSR, PROTOCOLS["tcp"])
    rig.put_table(key, [12, 11])
    slot = slot_hash(SIDES[version].client, 20000, DSR, PROTOCOLS["tcp"]) % TABLE_SIZE
    before, after = (end(SIDES[version].backend.format(11 + (slot + step) % 2), 8080) for step in (0, 1))
    told = trace(version, port=DSR, tcp_flags="A")
    assert told["backend"]["backend"] == before
    assert told["why"][0] == f"slot {slot} changed owner, and a flow that is older keeps the previous one"
    told = trace(version, port=DSR, tcp_flags="S")
    assert told["backend"]["backend"] == after
    rig.run(request(version, "tcp", port=DSR, flags="A"))
    told = trace(version, port=DSR, tcp_flags="A")
    assert (told["backend"]["backend"], told["flow"]["before"]["state"]) == (before, "established")
    assert told["why"] == ["record of the flow (choices_tcp_v1, idle 0 s) leads to this backend"]
