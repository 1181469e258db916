import ipaddress
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.spec.document import dump, load, located, merge
from datapath.spec.errors import SpecError, SpecErrors
from datapath.state.model import (
    Algorithm,
    AllFailed,
    Backend,
    BackendState,
    CheckType,
    DesiredState,
    Frontend,
    HealthCheck,
    Hook,
    Program,
    Protocol,
    Service,
)

NOTHING = DesiredState()


def service(name="web", **fields):
    return {"name": name, "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.1.11:8080"], **fields}


def services(*items, **section):
    return {"services": {"items": list(items), **section}}


def program(name="count", **fields):
    return {"name": name, "object": "/opt/count.o", **fields}


def compiled(source, name="count", **fields):
    return {"name": name, "source": source, "attach": {"type": "xdp", "device": "eth0"}, **fields}


def programs(*items, **section):
    return {"programs": {"items": list(items), **section}}


def values(**options):
    return {"options": {"values": options}}


def config(**options):
    return {"options": {"config": {name.replace("_", "-"): value for name, value in options.items()}}}


def errors(document, current=NOTHING):
    with pytest.raises(SpecErrors) as refused:
        merge(current, document)
    return refused.value.errors


def test_everything_that_a_service_can_say():
    state = merge(
        NOTHING,
        services(
            {
                "name": "web",
                "frontends": [
                    "192.0.2.10:80/tcp",
                    {"address": "192.0.2.10", "port": "443", "protocol": "TCP"},
                    "192.0.2.10:8080",
                    {"address": "192.0.2.10", "port": 53, "protocol": "udp"},
                ],
                "backends": [
                    {"address": "10.0.1.11:8080", "weight": "200", "state": "maintenance"},
                    {"address": "10.0.1.12", "port": 8080},
                    "10.0.1.13:8080",
                ],
                "algorithm": "Maglev",
                "health_check": {
                    "type": "https",
                    "path": "/healthz",
                    "interval": "1s",
                    "timeout": "500ms",
                    "rise": 3,
                    "fall": 4,
                    "port": 9000,
                    "host": "web.example",
                    "status": [200, 204],
                    "verify_tls": "false",
                    "all_failed": "open",
                },
            }
        ),
    )
    ip = ipaddress.ip_address
    assert state.services == (
        Service(
            "web",
            (
                Frontend(ip("192.0.2.10"), 80, Protocol.TCP),
                Frontend(ip("192.0.2.10"), 443, Protocol.TCP),
                Frontend(ip("192.0.2.10"), 8080, Protocol.TCP),
                Frontend(ip("192.0.2.10"), 53, Protocol.UDP),
            ),
            (
                Backend(ip("10.0.1.11"), 8080, 200, BackendState.MAINTENANCE),
                Backend(ip("10.0.1.12"), 8080),
                Backend(ip("10.0.1.13"), 8080),
            ),
            Algorithm.MAGLEV,
            HealthCheck(
                CheckType.HTTPS, 1.0, 0.5, 3, 4, 9000, "/healthz", "web.example", (200, 204), False, AllFailed.OPEN
            ),
        ),
    )


def test_everything_that_a_program_can_say():
    state = merge(
        NOTHING,
        programs(
            program("a", program="f", attach={"type": "xdp", "device": "eth0", "mode": "generic"}),
            program("b", attach={"type": "tc", "device": "eth0", "direction": "egress"}),
            program("c", attach={"type": "cgroup", "cgroup": "/sys/fs/cgroup"}, pin="/sys/fs/bpf/c"),
            program("d"),
        ),
    )
    path = "/opt/count.o"
    assert state.programs == (
        Program("a", path, "f", Hook.XDP, "eth0", "generic"),
        Program("b", path, None, Hook.TC, "eth0", direction="egress"),
        Program("c", path, None, Hook.CGROUP, cgroup="/sys/fs/cgroup", pin="/sys/fs/bpf/c"),
        Program("d", path),
    )


BAD_INPUT = [
    # (document, path, part of the message, allowed or None, nearest or None)
    ([], "document", "not a mapping", "options", None),
    ({"service": {}}, "document.service", "unknown key", "services", "services"),
    ({"services": []}, "services", "not a mapping", "items", None),
    ({"services": {"item": []}}, "services.item", "unknown key", "items", "items"),
    ({"services": {"items": {}}}, "services.items", "not a list", None, None),
    (services(7), "services.items[0]", "not a mapping", "name", None),
    (services({"frontends": []}), "services.items[0].name", "missing", None, None),
    (services(service(name="-x")), "services.items[0].name", "not a name", None, None),
    (services(service(backend=[])), "services.items[0].backend", "unknown key", None, "backends"),
    (services(service(frontends=[])), "services.items[0].frontends", "needs a frontend", "192.0.2.10:80/TCP", None),
    (services(service(frontends=None)), "services.items[0].frontends", "needs a frontend", None, None),
    (services(service(frontends="192.0.2.1:80")), "services.items[0].frontends", "not a list", None, None),
    (services(service(frontends=["192.0.2.10"])), "services.items[0].frontends[0]", "without a port", "PORT", None),
    (services(service(frontends=["2001:db8::1"])), "services.items[0].frontends[0]", "without a port", None, None),
    (
        services(service(frontends=[{"address": "192.0.2.10"}])),
        "services.items[0].frontends[0].port",
        "missing",
        "without a port",
        None,
    ),
    (services(service(frontends=["192.0.2.10:0/TCP"])), "services.items[0].frontends[0]", "range", "1 to 65535", None),
    (
        services(service(frontends=["192.0.2.1:80", {"address": "192.0.2.10", "port": 70000}])),
        "services.items[0].frontends[1].port",
        "out of range",
        "1 to 65535",
        None,
    ),
    (services(service(frontends=["192.0.2.10:80/SCTP"])), "services.items[0].frontends[0]", "SCTP", "TCP, UDP", None),
    (services(service(frontends=["192.0.2.10:80/TPC"])), "services.items[0].frontends[0]", "TPC", "TCP, UDP", "TCP"),
    (services(service(frontends=["127.0.0.1:80"])), "services.items[0].frontends[0]", "cannot be used", None, None),
    (services(service(frontends=["web.example:80"])), "services.items[0].frontends[0]", "not an IP", None, None),
    (
        services(service(frontends=["192.0.2.10:80", "192.0.2.10:80/TCP"])),
        "services.items[0].frontends[1]",
        "the same frontend",
        None,
        None,
    ),
    (
        services(service("a"), service("b")),
        "services.items[1].frontends[0]",
        "services a and b both have frontend 192.0.2.10:80/TCP",
        None,
        None,
    ),
    (services(service("a"), service("a")), "services.items[1].name", "services.items[0] has the same", None, None),
    (
        services(service(backends=["10.0.1.11:80", "[2001:db8::1]:80"])),
        "services.items[0].backends[1]",
        "mixed address families",
        "IPv4",
        None,
    ),
    (
        services(service(backends=["[2001:db8::1]:80", "[2001:db8::2]:80"])),
        "services.items[0].backends[1]",
        "mixed address families",
        None,
        None,
    ),
    (
        services(service(backends=["10.0.1.11:80", {"address": "10.0.1.11", "port": 80}])),
        "services.items[0].backends[1]",
        "the same backend",
        None,
        None,
    ),
    (services(service(backends=["10.0.1.11"])), "services.items[0].backends[0]", "needs a port", None, None),
    (services(service(backends=["10.0.1.11:0"])), "services.items[0].backends[0]", "range", "1 to 65535", None),
    (services(service(backends=[{"port": 80}])), "services.items[0].backends[0].address", "not an address", None, None),
    (services(service(backends=[5])), "services.items[0].backends[0]", "not a backend", None, None),
    (
        services(service(backends=[{"address": "10.0.1.11:80", "port": 81}])),
        "services.items[0].backends[0].port",
        "has a port already",
        None,
        None,
    ),
    (
        services(service(backends=[{"address": "10.0.1.11:80", "weight": 65536}])),
        "services.items[0].backends[0].weight",
        "out of range",
        "0 to 65535",
        None,
    ),
    (
        services(service(backends=[{"address": "10.0.1.11:80", "state": "activ"}])),
        "services.items[0].backends[0].state",
        "unknown value",
        "maintenance",
        "active",
    ),
    (services(service(algorithm="maglve")), "services.items[0].algorithm", "unknown value", "random", "maglev"),
    (services(service(health_check={})), "services.items[0].health_check.type", "missing", "http", None),
    (
        services(service(health_check={"type": "htttp"})),
        "services.items[0].health_check.type",
        "unknown value",
        "tcp",
        "http",
    ),
    (
        services(service(health_check={"type": "tcp", "path": "/"})),
        "services.items[0].health_check.path",
        "no effect",
        None,
        None,
    ),
    (
        services(service(health_check={"type": "http", "verify_tls": True})),
        "services.items[0].health_check.verify_tls",
        "no effect",
        None,
        None,
    ),
    (
        services(service(health_check={"type": "tcp", "interval": "1s", "timeout": "2s"})),
        "services.items[0].health_check.timeout",
        "longer than the interval",
        None,
        None,
    ),
    (
        services(service(health_check={"type": "http", "path": "healthz"})),
        "services.items[0].health_check.path",
        "not a path",
        None,
        None,
    ),
    (
        services(service(health_check={"type": "http", "status": [99]})),
        "services.items[0].health_check.status",
        "range",
        "100 to 599",
        None,
    ),
    (services(service(state="gone")), "services.items[0].state", "unknown value", "absent", None),
    (values(algoritm="maglev"), "options.values.algoritm", "unknown option", None, "algorithm"),
    (values(mode="nat"), "options.values.mode", "unknown value 'nat'", "snat, dsr, hybrid", "snat"),
    (values(maglev_table_size=1000), "options.values.maglev_table_size", "Invalid value for", "251", "1021"),
    (values(maglev_hash_seed="AAAA"), "options.values.maglev_hash_seed", "3 bytes (not 12", "12 bytes", None),
    (config(bpf_lb_algoritm="maglev"), "options.config.bpf-lb-algoritm", "unknown", None, "bpf-lb-algorithm"),
    (config(enable_sctp=True), "options.config.enable-sctp", "not implemented", None, None),
    (config(debug="perhaps"), "options.config.debug", "not a boolean", "true", None),
    (config(debug=None), "options.config.debug", "has no value", None, None),
    ({"options": {"values": []}}, "options.values", "not a mapping", None, None),
    ({"options": {"option": {}}}, "options.option", "unknown key", "config", None),
    ({"options": {"merge": "perhaps"}}, "options.merge", "not a boolean", "true", None),
    (values(enable_ipv4=False, enable_ipv6=False), "options", "both false", "at least one", None),
    (
        {**values(enable_ipv4="no"), **services(service())},
        "services.items[0].frontends[0]",
        "enable-ipv4 is false",
        None,
        None,
    ),
    (programs({"name": "x"}), "programs.items[0].object", "missing", "or source", None),
    (programs(program(source="int f;")), "programs.items[0].source", "both given", "one of them", None),
    (programs(compiled(7)), "programs.items[0].source", "not C source", "C text", None),
    (programs(compiled(" \n")), "programs.items[0].source", "not C source", "C text", None),
    (programs(compiled("int \0;")), "programs.items[0].source", "NUL", None, None),
    (programs(compiled("\ud800")), "programs.items[0].source", "not UTF-8", None, None),
    (programs(compiled("é" * 131073)), "programs.items[0].source", "262146 bytes are too long", "262144 bytes", None),
    (programs(compiled("int f;", attach=None)), "programs.items[0].attach", "XDP and tc only", "xdp, tc", None),
    (programs(compiled("int f;", attach={"type": "none"})), "programs.items[0].attach.type", "object", "xdp, tc", None),
    (
        programs(compiled("int f;", attach={"type": "cgroup", "cgroup": "/sys/fs/cgroup"})),
        "programs.items[0].attach.type",
        "bcc does not keep the name of a function's section",
        "xdp, tc",
        None,
    ),
    (
        programs(compiled('\nBPF_TABLE_PINNED("hash", u32, u64, counts, 16, "/sys/fs/bpf/counts");')),
        "programs.items[0].source",
        "line 2 pins a map (BPF_TABLE_PINNED)",
        "an object",
        None,
    ),
    (
        programs(compiled('BPF_XSKMAP(sockets, 4, "/sys/fs/bpf/sockets");')),
        "programs.items[0].source",
        "line 1 pins a map",
        None,
        None,
    ),
    (
        programs(compiled('__attribute__((section("maps/hash:/sys/fs/bpf/counts"))) struct counts_t counts;')),
        "programs.items[0].source",
        "line 1 pins a map",
        None,
        None,
    ),
    (programs(program("a.b")), "programs.items[0].name", "not a name", "bpffs", None),
    (programs(program(object="count.o")), "programs.items[0].object", "absolute path", None, None),
    (programs(program(pin="/sys/fs/bpf/a.b")), "programs.items[0].pin", "dot", None, None),
    (programs(program(attach={"type": "xpd"})), "programs.items[0].attach.type", "unknown", "cgroup", "xdp"),
    (programs(program(attach={"type": "xdp"})), "programs.items[0].attach.device", "missing", None, None),
    (
        programs(program(attach={"type": "tc", "device": "eth0", "mode": "native"})),
        "programs.items[0].attach.mode",
        "no effect with type tc",
        None,
        None,
    ),
    (
        programs(
            program("a", attach={"type": "xdp", "device": "eth0"}),
            program("b", attach={"type": "xdp", "device": "eth0"}),
        ),
        "programs.items[1]",
        "programs a and b both want XDP program of device eth0",
        None,
        None,
    ),
    (
        programs(program("a", pin="/sys/fs/bpf/x"), program("b", pin="/sys/fs/bpf/x")),
        "programs.items[1]",
        "both want pin /sys/fs/bpf/x",
        None,
        None,
    ),
]


@pytest.mark.parametrize(
    ("document", "path", "message", "allowed", "nearest"), BAD_INPUT, ids=[f"{row[1]}: {row[2]}" for row in BAD_INPUT]
)
def test_bad_input_is_refused_with_its_place(document, path, message, allowed, nearest):
    found = [error for error in errors(document) if error.path == path]
    assert len(found) == 1, errors(document)
    (error,) = found
    assert message in error.message
    assert error.document == path.split(".")[0].split("[")[0]
    assert allowed is None or allowed in error.allowed
    assert error.nearest == nearest


def test_all_violations_are_told_at_once():
    document = {
        **values(mode="nat", maglev_table_size=1000, colour="red"),
        **services(
            service("a", frontends=["192.0.2.10:0"], backends=["10.0.1.1:70000", "10.0.1.2"]),
            service("b", algorithm="x", health_check={"type": "tcp", "rise": 0}),
        ),
        **programs({"name": "p"}),
        "extra": 1,
    }
    assert [error.path for error in errors(document)] == [
        "document.extra",
        "options.values.mode",
        "options.values.maglev_table_size",
        "options.values.colour",
        "services.items[0].frontends[0]",
        "services.items[0].backends[0]",
        "services.items[0].backends[1]",
        "services.items[1].algorithm",
        "services.items[1].health_check.rise",
        "programs.items[0].object",
    ]


def test_two_services_with_one_frontend_are_told_beside_other_violations():
    found = errors(services(service("a", algorithm="x"), service("b", backends=["x"])))
    assert any("services a and b both have frontend" in error.message for error in found)


def test_a_frontend_of_a_service_that_stays_is_taken():
    current = merge(NOTHING, services(service("a")))
    (error,) = errors(services(service("b")), current)
    assert "services a and b both have frontend 192.0.2.10:80/TCP" in error.message
    assert error.path == "services.items[0].frontends[0]"


def test_a_frontend_may_move_within_one_document():
    current = merge(NOTHING, services(service("a")))
    state = merge(current, services({"name": "a", "state": "absent"}, service("b")))
    assert [each.name for each in state.services] == ["b"]


def test_switching_a_family_off_under_its_services_is_refused():
    current = merge(NOTHING, services(service("a")))
    (error,) = errors(config(enable_ipv4="False"), current)
    assert "enable-ipv4 is false" in error.message
    assert "a" in error.path


def test_services_merge_by_name():
    current = merge(NOTHING, services(service("a"), service("b", frontends=["192.0.2.11:80"])))
    state = merge(current, services({"name": "a", "state": "absent"}, service("c", frontends=["192.0.2.12:80"])))
    assert [each.name for each in state.services] == ["b", "c"]


def test_present_replaces_the_whole_service():
    current = merge(NOTHING, services(service(algorithm="maglev", health_check={"type": "tcp"})))
    (state,) = merge(current, services(service())).services
    assert state.algorithm is None
    assert state.health_check is None


def test_purge_removes_what_is_not_listed():
    current = merge(NOTHING, services(service("a"), service("b", frontends=["192.0.2.11:80"])))
    assert [each.name for each in merge(current, services(service("a"), purge=True)).services] == ["a"]
    assert merge(current, services(purge="yes")).services == ()


def test_programs_merge_by_name():
    current = merge(NOTHING, programs(program("a"), program("b")))
    assert [each.name for each in merge(current, programs({"name": "a", "state": "absent"})).programs] == ["b"]
    assert merge(current, programs(purge=True)).programs == ()


def test_a_source_is_kept_as_it_is():
    text = '\n// BPF_XSKMAP(sockets, 4) has no pin; "BPF_HASH"\tint f(void) { return 0; }\n\n'
    state = merge(NOTHING, programs(compiled(text)))
    (parsed,) = state.programs
    assert (parsed.source, parsed.object_path, parsed.hook) == (text, "", Hook.XDP)
    assert dump(state)["programs"]["items"][0] == {
        "name": "count",
        "source": text,
        "attach": {"type": "xdp", "device": "eth0", "mode": "native"},
    }
    assert merge(state, programs(program())).programs[0].source is None


def test_an_absent_program_needs_no_origin():
    current = merge(NOTHING, programs(compiled("int f;")))
    assert merge(current, programs(compiled("int f;", state="absent"))).programs == ()
    assert merge(current, programs({"name": "count", "state": "absent"})).programs == ()


def test_a_section_that_is_not_given_stays():
    current = merge(NOTHING, {**values(debug=True), **services(service()), **programs(program())})
    assert merge(current, {}) == current
    assert merge(current, values()).services == current.services


def test_options_that_merge_leave_those_that_they_do_not_name():
    current = merge(NOTHING, values(algorithm="maglev", debug=True, devices=["eth0"]))
    document = {"options": {"merge": True, "values": {"debug": None, "mode": "dsr"}, "config": {"devices": "eth1"}}}
    expected = {"bpf-lb-mode": "dsr", "bpf-lb-algorithm": "maglev", "devices": ("eth1",)}
    assert dict(merge(current, document).options) == expected
    assert dict(merge(current, {"options": {"merge": "yes"}}).options) == dict(current.options)
    assert dict(merge(current, {"options": {"merge": False}}).options) == {}


def test_rules_across_options_hold_for_options_that_merge():
    current = merge(NOTHING, values(enable_ipv4=False))
    (error,) = errors({"options": {"merge": True, "values": {"enable_ipv6": False}}}, current)
    assert "both false" in error.message


def test_options_state_the_whole_set():
    current = merge(NOTHING, values(algorithm="maglev", debug=True))
    assert dict(merge(current, values(debug=True)).options) == {"debug": True}
    assert dict(merge(current, {"options": {}}).options) == {}


def test_config_is_applied_after_values():
    document = {"options": {"values": {"algorithm": "random"}, "config": {"bpf-lb-algorithm": "maglev"}}}
    assert merge(NOTHING, document).options["bpf-lb-algorithm"] == "maglev"


@pytest.mark.parametrize("spelling", [True, "true", "True", "yes", 1, "1"])
def test_config_takes_every_spelling_of_a_boolean(spelling):
    assert merge(NOTHING, config(debug=spelling)) == merge(NOTHING, values(debug=True))


def test_fields_that_are_null_are_not_given():
    item = service(algorithm=None, health_check={"type": "tcp", "path": None, "verify_tls": None}, state=None)
    assert merge(NOTHING, services(item)) == merge(NOTHING, services(service(health_check={"type": "tcp"})))
    assert dict(merge(NOTHING, values(mode=None)).options) == {}


def test_an_absent_service_needs_its_name_only():
    assert merge(NOTHING, services({"name": "x", "state": "absent"})) == NOTHING


def test_a_violation_reads_well():
    (error,) = errors(services(service(frontends=["192.0.2.10:70000"])))
    assert str(error) == (
        "services.items[0].frontends[0]: out of range (value: '192.0.2.10:70000'; allowed: 1 to 65535)"
    )


# --- properties ---------------------------------------------------------------------------------------------------

PORTS = st.integers(1, 65535)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
SOURCES = st.sampled_from([(), ("int f;",), ("\n\tint f; // é\r\n\n",)])


def hosts(version):
    if version == 4:
        return st.integers(0x0A000001, 0x0AFFFFFF).map(lambda number: str(ipaddress.IPv4Address(number)))
    return st.integers(1, 1 << 32).map(lambda number: str(ipaddress.IPv6Address((0x20010DB8 << 96) + number)))


def endpoint(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@st.composite
def backend_items(draw, version):
    address = endpoint(draw(hosts(version)), draw(PORTS))
    item = {"address": address, "weight": draw(st.integers(0, 65535))}
    item["state"] = draw(st.sampled_from(["active", "terminating", "quarantined", "maintenance"]))
    return draw(st.sampled_from([address, item]))


@st.composite
def health_checks(draw):
    check = {"type": draw(st.sampled_from(["tcp", "http", "https"])), "interval": draw(st.integers(1, 60))}
    if check["type"] != "tcp" and draw(st.booleans()):
        check.update(path="/" + draw(NAMES), status=draw(st.lists(st.integers(100, 599), min_size=1, max_size=3)))
    if check["type"] == "https" and draw(st.booleans()):
        check["verify_tls"] = draw(st.booleans())
    if draw(st.booleans()):
        all_failed = draw(st.sampled_from(["open", "closed"]))
        check.update(rise=draw(st.integers(1, 100)), port=draw(PORTS), all_failed=all_failed)
    return check


@st.composite
def endpoints(draw):
    """Items that may stand beside each other: each has what its number says."""
    items = []
    for number in draw(st.lists(st.integers(0, 9), unique=True, max_size=4)):
        place = {"host": True} if number == 0 else {"interface": f"ve-{number}"}
        place = {"interfaces": f"tap{number}*"} if number > 6 else place
        item = {"name": f"endpoint{number}", **place}
        item["labels"] = draw(st.dictionaries(st.sampled_from(["app", "k8s.io/app"]), st.sampled_from(["", "db", 7])))
        if number <= 6:
            item["addresses"] = [f"10.0.2.{number + 1}"]
        items.append(item)
    return items


STORE_FILES = {"ca": "/etc/c1/ca.pem", "certificate": "/etc/c1/agent.pem", "key": "/etc/c1/agent.key"}


@st.composite
def stores(draw):
    addresses = draw(st.lists(hosts(4) | hosts(6), unique=True, min_size=1, max_size=3))
    node = {"addresses": addresses, **draw(st.sampled_from([{}, {"name": "lb1"}, {"pod_cidrs": ["10.1.0.0/24"]}]))}
    return {"endpoints": ["https://192.0.2.21:2379"], **STORE_FILES, "publisher": draw(st.booleans()), "node": node}


@st.composite
def documents(draw):
    shared = draw(st.booleans())
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    ports = draw(st.lists(PORTS, unique=True, min_size=len(names), max_size=len(names)))
    items = []
    for name, port in zip(names, ports):
        version = draw(st.sampled_from([4, 6]))
        vip = endpoint(draw(hosts(version)), port)
        backends = draw(
            st.lists(
                backend_items(version),
                unique_by=lambda item: item if isinstance(item, str) else item["address"],
                max_size=4,
            )
        )
        item = {"name": name, "frontends": [f"{vip}/{draw(st.sampled_from(['TCP', 'UDP']))}"], "backends": backends}
        if draw(st.booleans()):
            item["algorithm"] = draw(st.sampled_from(["random", "maglev"]))
        if draw(st.booleans()):
            item["health_check"] = draw(health_checks())
        if draw(st.booleans()):
            item.update({"global": True, "shared": shared, "mesh_name": "shop/web", "port_name": f"port{len(items)}"})
        items.append(item)
    chosen = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "algorithm": st.sampled_from(["random", "maglev"]),
                "maglev_table_size": st.sampled_from([251, 16381, "65521"]),
                "devices": st.sampled_from(["eth0", ["eth0", "ens+"], "eth0,eth1"]),
                "arping_refresh_period": st.sampled_from(["10s", 90, "1m30s"]),
                "snat_port_range": st.sampled_from(["1024-29999", [2000, 30000]]),
                "debug": st.sampled_from([True, "no"]),
            },
        )
    )
    attach = st.sampled_from(
        [None, {"type": "none"}, {"type": "tc", "device": "eth0"}, {"type": "cgroup", "cgroup": "/sys/fs/cgroup"}]
    )
    extra = [program(name, attach=draw(attach)) for name in draw(st.lists(NAMES, unique=True, max_size=3))]
    extra += [compiled(text, name="from_source") for text in draw(SOURCES)]
    return {
        "options": {"values": {**chosen, "cluster_name": "c1", "cluster_id": 1}},
        "services": {"items": items},
        "programs": {"items": extra},
        "endpoints": {"items": draw(endpoints())},
        "clustermesh": draw(st.sampled_from([{}, {"store": None}])) or {"store": draw(stores())},
    }


@given(documents())
def test_what_is_dumped_is_loaded_as_it_was(document):
    state = merge(NOTHING, document)
    assert load(json.loads(json.dumps(dump(state)))) == state


@given(documents(), documents())
def test_a_dump_is_a_full_document(document, other):
    state = merge(NOTHING, document)
    assert merge(merge(NOTHING, other), dump(state)) == state


@given(documents())
def test_merging_again_changes_nothing(document):
    state = merge(NOTHING, document)
    assert merge(state, document) == state


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


def parses_or_refuses(document):
    refused = None
    try:
        merge(NOTHING, document)
    except SpecErrors as error:
        refused = error
    if refused is None:
        return
    assert refused.errors
    for violation in refused.errors:
        assert violation.message
        json.dumps(violation.as_dict())
        assert str(violation).startswith(violation.path)


@given(JSON)
def test_any_json_is_parsed_or_refused(document):
    parses_or_refuses(document)


@given(st.fixed_dictionaries({"options": JSON, "services": JSON, "programs": JSON, "endpoints": JSON}))
def test_any_json_in_the_sections_is_parsed_or_refused(document):
    parses_or_refuses(document)


def places(node, path=()):
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(node, path, value):
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


@settings(max_examples=300)
@given(st.data())
def test_a_document_with_anything_in_any_place_is_parsed_or_refused(data):
    document = data.draw(documents())
    place = data.draw(st.sampled_from(list(places(document))))
    parses_or_refuses(replaced(document, place, data.draw(JSON)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("services.web.backends", "services.items[1].backends"),
        ("services.web.eu.backends", "services.items[0].backends"),
        ("programs.web.object", "programs.items[0].object"),
        ("programs.web", "programs.items[0]"),
        ("endpoints.web.rate", "endpoints.items[0].rate"),
        ("services.other.backends", "services.other.backends"),
        ("services", "services"),
        ("options.values.devices[0]", "options.values.devices[0]"),
    ],
)
def test_errors_of_later_stages_tell_the_place_in_the_document(path, expected):
    named = {
        "services": {"items": [{"name": "web.eu"}, {"name": "web"}]},
        "programs": {"items": [{"name": "web"}]},
        "endpoints": {"items": [{"name": "web"}]},
    }
    assert [error.path for error in located([SpecError("services", path, None, "wrong")], named)] == [expected]
    for nothing in ({}, {"services": None}, {"services": {"purge": True}}):
        assert [error.path for error in located([SpecError("services", path, None, "wrong")], nothing)] == [path]
