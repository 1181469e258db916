"""Apply, dry run and idempotence of a real agent."""

import pytest

from integration.node import BACKENDS, BACKENDS6, VIP, VIP6, answers, document, get, service, web_servers
from netns.topology import wait_for


def test_a_dry_run_on_a_fresh_node_tells_and_changes_nothing(node):
    node.check(document(service()))  # whatever the first call loads or caches
    before = node.snapshot()
    report = node.check(document(service()))
    assert node.snapshot() == before
    assert report["changed"] is True
    assert report["map_writes"] == 0
    targets = {(row["action"], row["target"]) for row in report["operations"]}
    assert {("attach", "xdp"), ("create", "map services_v1"), ("create", "service")} <= targets


def test_what_a_dry_run_announces_is_what_is_done(agent):
    wanted = document(service())
    announced = agent.check(wanted)
    done = agent.apply(wanted)
    assert done["operations"] == announced["operations"]
    assert done["diff"] == announced["diff"]
    assert done["map_writes"] > 0
    assert agent.check(wanted)["operations"] == []


def test_a_second_apply_changes_nothing(agent):
    wanted = document(service())
    assert agent.apply(wanted)["changed"] is True
    before = agent.desired.stat().st_mtime_ns
    again = agent.apply(wanted)
    assert (again["changed"], again["operations"], again["map_writes"]) == (False, [], 0)
    assert agent.desired.stat().st_mtime_ns == before


def test_options_that_merge_leave_the_others(agent):
    agent.apply(document(service()))
    done = agent.apply({"options": {"merge": True, "values": {"debug": True}}})
    assert [(row["target"], row["key"], row["after"]) for row in done["operations"]] == [("option", "debug", "true")]
    assert (done["changed"], done["map_writes"]) == (True, 0)
    done = agent.apply({"options": {"merge": True, "values": {"debug": None}}})
    assert [(row["target"], row["key"]) for row in done["operations"]] == [("option", "debug")]
    assert not agent.apply(document(service()))["changed"]


def test_a_change_that_only_the_agent_sees_counts_as_a_change(agent):
    checked = {"type": "tcp", "interval": "5s", "timeout": "1s"}
    agent.apply(document(service(health_check=checked)))
    slower = document(service(health_check={**checked, "interval": "9s"}))
    report = agent.apply(slower)
    assert (report["changed"], report["operation_count"], report["map_writes"]) == (True, 1, 0)
    assert report["operations"][0]["summary"] == "update service web: health_check"
    assert agent.apply(slower)["changed"] is False


def test_traffic_of_both_families(agent):
    six = {
        "name": "web6",
        "frontends": [f"[{VIP6}]:80/TCP"],
        "backends": [f"[{each}]:8080" for each in BACKENDS6[:2]],
    }
    with web_servers(agent.backend, *BACKENDS[:2], *BACKENDS6[:2]):
        agent.apply(document(service(), six))
        wait_for(lambda: answers(agent.client, VIP, 1), what="a first answer")
        assert answers(agent.client, VIP, 40) == set(BACKENDS[:2])
        assert answers(agent.client, VIP6, 40) == set(BACKENDS6[:2])
    rows = agent.ask("service", "list")["services"]
    assert all(row["traffic"]["TCP"]["packets"] > 100 for row in rows)
    assert all(backend["packets"] > 0 for row in rows for backend in row["backends"])
    flows = agent.ask("ct", "list", "--frontend", VIP, "--limit", "5")
    assert len(flows["flows"]) == 5
    assert flows["truncated"] is True
    assert all(flow["client"].startswith("198.51.100.2:") for flow in flows["flows"])
    assert all(flow["frontend"] == f"{VIP}:80" and flow["service"] == "web" for flow in flows["flows"])
    assert all(0 <= flow["idle"] < 60 for flow in flows["flows"])


def test_a_service_that_moves_with_the_map_is_followed_at_once(agent):
    """Programs remember answers about frontends: not those of a map whose place another one took."""
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(document(service()))
        wait_for(lambda: answers(agent.client, VIP, 1), what="a first answer")
        for size, backend in ((2048, 0), (1024, 1), (4096, 0)):
            agent.apply(document(service(f"web{size}", backends=BACKENDS[backend : backend + 1]), service_map_max=size))
            assert answers(agent.client, VIP, 20) == {BACKENDS[backend]}


def test_services_merge_by_name_and_purge_removes_the_rest(agent):
    agent.apply(document(service()))
    other = {"name": "other", "frontends": [f"{VIP}:81/TCP"], "backends": [f"{BACKENDS[2]}:80"]}
    agent.apply({"services": {"items": [other]}})
    assert [row["name"] for row in agent.ask("service", "list")["services"]] == ["other", "web"]
    agent.apply({"services": {"items": [{"name": "web", "state": "absent"}]}})
    assert [row["name"] for row in agent.ask("service", "list")["services"]] == ["other"]
    agent.apply({"services": {"items": [], "purge": True}})
    assert agent.ask("service", "list") == {"services": []}
    assert agent.dump("services_v1") == {}


@pytest.mark.parametrize(
    ("wanted", "path", "value"),
    [
        ({"services": {"items": [service(backends=BACKENDS, port=70000)]}}, "services.items[0].backends[0]", None),
        ({"servces": {}}, "document.servces", None),
        ({"options": {"values": {"maglev_table_size": 1000}}}, "options.values.maglev_table_size", 1000),
        ({"options": {"values": {"devices": ["nothere0"]}}}, "options.values.devices[0]", "nothere0"),
    ],
)
def test_bad_input_is_refused_and_leaves_everything_as_it_was(agent, wanted, path, value):
    agent.apply(document(service()))
    maps = ("services_v1", "backends_v1", "addresses_v1")
    before = ({name: agent.dump(name) for name in maps}, agent.xdp_program("client0"), agent.desired.read_bytes())
    for how in (agent.check, agent.apply):
        errors = how(wanted, code=2)["errors"]
        assert any(error["path"].startswith(path) for error in errors), errors
        assert value is None or any(error["value"] == value for error in errors)
    after = ({name: agent.dump(name) for name in maps}, agent.xdp_program("client0"), agent.desired.read_bytes())
    assert after == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"services": {}, "services": {}}', "given twice"),
        ("[" * 100000, "nested too deeply"),
        ("[]", "not a mapping"),
    ],
)
def test_a_document_that_is_none(agent, text, message):
    errors = agent.ask("apply", "-", document=text, code=2)["errors"]
    assert any(message in error["message"] for error in errors), errors


def test_a_kernel_that_refuses_is_brought_back_to_what_it_had(agent):
    """A foreign XDP program on the second device: the first has its services again, and nothing is stored."""
    agent.apply(document(service(), devices=["client0"]))
    agent.lb.run("ip link set dev backend0 xdpdrv pinned " + str(_pass_program(agent)))
    foreign = agent.xdp_program("backend0")
    before = (agent.dump("services_v1"), agent.xdp_program("client0"), agent.desired.read_bytes())
    other = {"name": "other", "frontends": [f"{VIP}:81/TCP"], "backends": [f"{BACKENDS[2]}:80"]}
    errors = agent.apply(document(service(), other), code=1)["errors"]
    assert errors[0]["document"] == "kernel"
    assert "backend0" in errors[0]["message"]
    assert (agent.dump("services_v1"), agent.xdp_program("client0"), agent.desired.read_bytes()) == before
    assert agent.xdp_program("backend0") == foreign
    assert agent.ask("verify")["drift_count"] == 0
    status = agent.ask("status")
    assert status["last_error"]["what"] == "apply"
    assert [row["name"] for row in agent.ask("service", "list")["services"]] == ["web"]


def _pass_program(node):
    """A pinned XDP program of somebody else's."""
    from netns.topology import compile_object

    source = node.root / "pass.c"
    source.write_text(
        "#include <linux/bpf.h>\n"
        '__attribute__((section("xdp"), used)) int pass_all(struct xdp_md *context) { return XDP_PASS; }\n'
        'char license_text[] __attribute__((section("license"), used)) = "GPL";\n'
    )
    pin = node.root / "sys/fs/bpf/foreign"
    node.bpftool("prog", "load", str(compile_object(source, node.root)), str(pin), "type", "xdp")
    return pin


def test_a_failed_first_apply_leaves_nothing(agent):
    agent.lb.run("ip link set dev backend0 xdpdrv pinned " + str(_pass_program(agent)))
    forwarding = agent.lb.run("sysctl net.ipv4.conf.client0.forwarding")
    agent.apply(document(service()), code=1)
    assert not agent.desired.exists()
    assert agent.xdp_program("client0") is None
    assert agent.lb.run("sysctl net.ipv4.conf.client0.forwarding") == forwarding
    assert agent.ask("verify")["drift_count"] == 0


def test_maglev_tells_what_the_kernel_holds(agent):
    weighted = service()
    weighted["backends"] = [{"address": f"{BACKENDS[0]}:8080", "weight": 50}, f"{BACKENDS[1]}:8080"]
    agent.apply(document(weighted, maglev_table_size=1021))
    told = agent.ask("maglev", f"{VIP}:80", "-v")
    assert told["table_size"] == 1021
    assert sum(share["slots"] for share in told["shares"]) == len(told["slots"]) == 1021
    assert [share["backend"] for share in told["shares"]] == [f"{each}:8080" for each in BACKENDS[:2]]
    assert 0.32 < told["shares"][0]["share"] < 0.35
    for share in told["shares"]:
        assert told["slots"].count(share["backend"]) == share["slots"]
    error = agent.ask("maglev", f"{VIP}:8", code=2)["errors"][0]
    assert error["allowed"] == f"{VIP}:80/TCP"
    for wrong, message in (
        ("nonsense", "not an IP address"),
        (VIP, "a VIP without a port is no frontend"),
        (f"{VIP}:0", "out of range"),
        (f"{VIP}:80/SCTP", "unknown value 'SCTP'"),
    ):
        error = agent.ask("maglev", wrong, code=2)["errors"][0]
        assert (error["value"], error["message"]) == (wrong, message)


def test_a_web_service_answers_while_it_is_changed(agent):
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(document(service()))
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
        report = agent.apply(document(service(backends=BACKENDS[:1])))
        assert report["disruption"]["slots_moved"]["web/TCP"] > 0.3
        assert answers(agent.client, VIP) == {BACKENDS[0]}
