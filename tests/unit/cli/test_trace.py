"""`datapath trace` as text."""

from datapath.cli.trace import render

PACKET = {
    "source_mac": "02:00:00:00:00:02",
    "destination_mac": "02:00:00:00:00:01",
    "source": "198.51.100.2",
    "destination": "192.0.2.10",
    "ttl": 64,
    "length": 40,
    "protocol": "TCP",
    "source_port": 40000,
    "destination_port": 80,
    "tcp_flags": "SYN",
    "checksums": "right",
}
FORWARDED = {
    "verdict": "forward",
    "action": "XDP_REDIRECT",
    "outcome": "request_new_flow",
    "sentence": "First packet of a flow.",
    "direction": "request",
    "device": {"name": "eth0", "attached": "native"},
    "service": {"name": "web", "frontend": "192.0.2.10:80/TCP", "algorithm": "maglev", "backends": 3, "lut_id": 1},
    "slot": {"number": 7, "table_size": 251, "backend": "10.0.1.11:8080", "backend_id": 5},
    "backend": {"backend": "10.0.1.11:8080", "id": 5, "state": "active"},
    "why": ["no flow record: a new flow begins", "slot 7 of the table holds this backend"],
    "snat": {"source": "10.0.1.1:5601", "how": "allocated", "reason": "the client's port is outside 1024-29999"},
    "next_hop": {"device": "eth1", "address": "10.0.1.11", "mac": "02:00:00:00:01:0b"},
    "before": PACKET,
    "after": {**PACKET, "source": "10.0.1.1", "source_port": 5601, "destination": "10.0.1.11", "ttl": 63},
    "disagreements": [],
    "notes": [],
}
DROPPED = {
    **FORWARDED,
    "verdict": "drop",
    "outcome": "unknown_port_dropped",
    "service": None,
    "slot": None,
    "backend": None,
    "snat": None,
    "next_hop": None,
    "why": [],
    "after": None,
}


def line(text, start):
    return next(each for each in text.splitlines() if each.startswith(start))


def test_forwarded():
    text = render(FORWARDED)
    assert text.splitlines()[:2] == ["FORWARD  request_new_flow (XDP_REDIRECT)", "First packet of a flow."]
    assert line(text, "service") == "service    web  192.0.2.10:80/TCP, maglev, 3 backends"
    assert line(text, "slot") == "slot       7 of 251 in LUT 1: 10.0.1.11:8080"
    assert line(text, "SNAT").endswith("10.0.1.1:5601, port allocated: the client's port is outside 1024-29999")
    assert line(text, "next hop") == "next hop   10.0.1.11 on eth1, MAC 02:00:00:00:01:0b"
    assert line(text, "source port").split() == ["source", "port", "40000", "5601", "changed"]
    assert line(text, "length").split() == ["length", "40", "40"]
    assert "DISAGREEMENT" not in text


def test_dropped():
    text = render(DROPPED)
    assert text.startswith("DROP  unknown_port_dropped")
    assert "AFTER" not in text
    assert line(text, "TTL").split() == ["TTL", "64"]


def test_answered():
    text = render({**DROPPED, "verdict": "answer", "after": {"protocol": "ICMP", "message": "time exceeded"}})
    assert line(text, "message").split() == ["message", "-", "time", "exceeded", "changed"]


def test_disagreements_and_notes():
    text = render({**FORWARDED, "disagreements": ["it lies"], "notes": ["beware"]})
    assert text.index("DISAGREEMENT: it lies") < text.index("service")
    assert text.endswith("note: beware")


def test_unresolved_next_hop_and_device_without_program():
    hop = {"device": "eth1", "address": "10.0.1.99", "mac": None}
    text = render({**DROPPED, "next_hop": hop, "device": {"name": "eth9", "attached": None}})
    assert line(text, "next hop") == "next hop   10.0.1.99 on eth1, MAC not resolved"
    assert line(text, "device") == "device     eth9 (not attached)"
