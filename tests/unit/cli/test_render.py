"""What a person reads."""

from datapath.cli import render

REPORT = {
    "changed": True,
    "check": True,
    "operations": [
        {"action": "create", "summary": "create map m k: v"},
        {"action": "delete", "summary": "delete map m l: w"},
        {"action": "set", "summary": "set sysctl s: 0 -> 1"},
    ],
    "operation_count": 1203,
    "disruption": {"slots_moved": {"web/TCP": 0.315}, "flows_affected": {"web/TCP": 12}, "notes": ["a note"]},
    "warnings": ["device eth1 is down"],
    "map_writes": 0,
}


def test_a_plan():
    assert render.report(REPORT).splitlines() == [
        "+ create map m k: v",
        "- delete map m l: w",
        "~ set sysctl s: 0 -> 1",
        "  and 1,200 more",
        "",
        "1,203 changes would be made",
        "disruption: web/TCP: 31.5 % of the table moves, 12 established flows affected",
        "note: a note",
        "warning: device eth1 is down",
    ]


def test_an_apply():
    done = {**REPORT, "check": False, "map_writes": 4000, "disruption": {}, "warnings": []}
    assert render.report(done).splitlines()[-1] == "1,203 changes made, 4,000 map writes"


def test_nothing_to_do():
    nothing = {**REPORT, "changed": False, "operations": [], "operation_count": 0, "disruption": {}, "warnings": []}
    assert render.report(nothing) == "nothing to change"
    assert render.report({**nothing, "check": False}) == "nothing changed"


def test_drift():
    clean = {"drift": [], "drift_count": 0, "foreign": {}, "unusable": [], "problems": []}
    assert render.drift(clean) == "the kernel holds what is desired"
    drifted = {
        "drift": [{"action": "create", "summary": "create map m k: v"}],
        "drift_count": 3,
        "foreign": {"eth0": "carries another program"},
        "unusable": ["programs.count.object: /opt/count.o cannot be read; it stays as it is"],
        "problems": [],
    }
    assert render.drift(drifted).splitlines() == [
        "+ create map m k: v",
        "! eth0: carries another program",
        "! programs.count.object: /opt/count.o cannot be read; it stays as it is",
        "",
        "3 differences; an apply or a reload of the agent heals them",
    ]


STATUS = {
    "version": "1",
    "uptime": 5,
    "pid": 7,
    "mode": "snat",
    "algorithm": "random",
    "table_size": 251,
    "acceleration": "native",
    "devices": {},
    "dsr_backend": None,
    "bandwidth": None,
    "services": {"total": 0, "healthy": 0},
    "backends": {"total": 0, "healthy": 0},
    "endpoints": {"total": 0, "present": 0},
    "last_apply": None,
    "drift": 0,
    "last_error": None,
    "problems": [],
    "maps": [],
}


def test_a_backend_s_status():
    assert "DSR backend" not in render.status(STATUS)
    problems = {"eth1": "tc_node_egress not attached"}
    backend = {**STATUS, "dsr_backend": {"devices": ["eth0", "eth1"], "problems": problems}}
    (line,) = [line for line in render.status(backend).splitlines() if line.startswith("DSR backend")]
    assert line.endswith("answers clients itself on eth0, eth1 (tc_node_egress not attached)")
    counted = {"name": "reply_translated", "verdict": "pass", "packets": 3, "bytes": 9, "sentence": "Reply."}
    verbose = render.status({**backend, "outcomes": [], "node_outcomes": [counted], "bandwidth_outcomes": []})
    assert "reply_translated  pass" in verbose


def test_services():
    document = {
        "services": [
            {
                "name": "web",
                "frontends": ["192.0.2.10:80/TCP", "192.0.2.10:443/TCP"],
                "algorithm": "maglev",
                "mode": "dsr/snat",
                "health_check": "http",
                "traffic": {"TCP": {"packets": 12345, "bytes": 2048}},
                "backends": [
                    _backend("10.0.0.1:80", "healthy", "active", ""),
                    _backend("10.0.0.2:80", "unhealthy", "quarantined", "status 503"),
                ],
            }
        ]
    }
    assert render.services(document).splitlines() == [
        "web  192.0.2.10:80/TCP, 192.0.2.10:443/TCP",
        "  maglev; DSR/SNAT; health check http; TCP 12,345 packets 2.0 KiB",
        "  BACKEND      WEIGHT  STATE        HEALTH     PACKETS  BYTES",
        "  10.0.0.1:80     100  active       healthy         10    1 B",
        "  10.0.0.2:80     100  quarantined  unhealthy       10    1 B  status 503",
    ]
    assert render.services({"services": []}) == "no services"
    document["services"][0]["backends"].append(_backend("10.2.0.1:80", "published", "active", "", cluster="c2"))
    assert render.services(document).splitlines()[2:] == [
        "  BACKEND      CLUSTER  WEIGHT  STATE        HEALTH     PACKETS  BYTES",
        "  10.0.0.1:80  -           100  active       healthy         10    1 B",
        "  10.0.0.2:80  -           100  quarantined  unhealthy       10    1 B  status 503",
        "  10.2.0.1:80  c2          100  active       published       10    1 B",
    ]


def test_rates():
    row = {"passed_packets": 12345, "dropped_packets": 7, "dropped_bytes": 2048, "priority": None}
    document = {
        "rates": [
            {"endpoint": "db", "direction": "egress", "bits_per_second": 50_000_000, "measured": 49_871_000.0, **row},
            {**row, "endpoint": "host", "direction": "egress", "bits_per_second": None, "measured": 0.0, "priority": 7},
        ]
    }
    assert render.bandwidth(document).splitlines() == [
        "ENDPOINT  DIRECTION       RATE      MEASURED  PRIORITY  PACKETS  DROPPED    BYTES",
        "db        egress     50 Mbit/s  49.87 Mbit/s         -   12,345        7  2.0 KiB",
        "host      egress     unlimited       0 bit/s         7   12,345        7  2.0 KiB",
    ]
    assert render.bandwidth({"rates": []}) == "no rates"


def test_the_manager_in_the_status():
    assert "bandwidth" not in render.status(STATUS)
    manager = {"native": ["eth0"], "endpoints": ["ve-a", "ve-b"], "qdiscs": {}, "problems": {"ve-a": "not attached"}}
    (line,) = [each for each in render.status({**STATUS, "bandwidth": manager}).splitlines() if "bandwidth" in each]
    assert line.endswith("rates of 2 devices, leaving by eth0; ve-a: not attached")


def test_endpoints():
    rows = [
        {"name": "containers/ve-web", "state": "present", "interface": "ve-web", "labels": {"a": "b", "c": ""}},
        {"name": "db", "state": "pending", "interface": "ve-db", "labels": {}},
        {"name": "host", "state": "present", "interface": None, "labels": {}},
    ]
    addresses = ["10.0.2.11", "2001:db8:2::11"]
    rows = [
        {**row, "number": None, "identity": None, "addresses": addresses if row["name"] == "db" else []} for row in rows
    ]
    document = {"endpoints": [{**rows[0], "number": 4097}, *rows[1:]]}
    assert render.endpoints(document).splitlines() == [
        "ENDPOINT           INTERFACE  STATE    NUMBER  ADDRESSES                  LABELS",
        "containers/ve-web  ve-web     present    4097  -                          a=b, c=",
        "db                 ve-db      pending       -  10.0.2.11, 2001:db8:2::11  -",
        "host               host       present       -  -                          -",
    ]
    document["endpoints"][1]["identity"] = 65800
    lines = render.endpoints(document).splitlines()
    assert lines[0].split() == ["ENDPOINT", "INTERFACE", "STATE", "NUMBER", "IDENTITY", "ADDRESSES", "LABELS"]
    assert [line.split()[4] for line in lines[1:]] == ["-", "65800", "-"]
    assert render.endpoints({"endpoints": []}) == "no endpoints"


def test_endpoints_in_the_status():
    assert "endpoints" not in render.status(STATUS)
    assert "endpoints" not in render.status({**STATUS, "endpoints": None})
    assert "endpoints     1 of 2 present" in render.status({**STATUS, "endpoints": {"total": 2, "present": 1}})


def _backend(name, health, state, reason, cluster=None):
    row = {"backend": name, "cluster": cluster, "weight": 100, "state": state, "health": health, "reason": reason}
    return {**row, "packets": 10, "bytes": 1}


def test_maglev():
    shares = [{"backend": f"10.0.0.{i}:80", "weight": 100, "state": "active", "slots": 5} for i in (1, 2)]
    document = {"frontend": "f", "service": "web", "algorithm": "maglev", "table_size": 10, "shares": shares}
    assert render.maglev(document).splitlines() == [
        "f  service web, maglev, table size 10",
        "BACKEND      WEIGHT  STATE   SLOTS   SHARE",
        "10.0.0.1:80     100  active      5  50.0 %",
        "10.0.0.2:80     100  active      5  50.0 %",
    ]
    assert render.maglev({**document, "slots": ["a", "b"]}).splitlines()[-2:] == ["   0  a", "   1  b"]


def test_flows():
    flow = {
        "protocol": "TCP",
        "client": "c",
        "frontend": "f",
        "snat": "s",
        "backend": "b",
        "service": "web",
        "idle": 61.5,
    }
    assert render.flows({"flows": [flow], "truncated": True}).splitlines() == [
        "PROTO  CLIENT  FRONTEND  SNAT  BACKEND  SERVICE   IDLE",
        "TCP    c       f         s     b        web      1m 1s",
        "the first 1 flows; --limit 0 shows all",
    ]


def test_the_devices_of_the_status():
    """What is attached, what the driver could do, why not, and what to do about it."""
    ena = {"driver": "ena", "native_xdp": False, "native_xdp_reason": "MTU 9001 is above 3498"}
    devices = {
        "eth0": {"mode": "generic", "problem": None, **ena, "native_xdp_remedy": "ip link set dev eth0 mtu 3498"},
        "eth1": {"mode": "native", "problem": None, **ena, "native_xdp": True, "native_xdp_remedy": ""},
        "gone": {"mode": None, "problem": "the device is gone"},
    }
    assert render._attached(devices).splitlines() == [
        "DEVICE  DRIVER  ATTACHED  DRIVER'S XDP",
        "eth0    ena     generic   generic only: MTU 9001 is above 3498 -> ip link set dev eth0 mtu 3498",
        "eth1    ena     native    native",
    ]
