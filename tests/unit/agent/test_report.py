"""Changes of the desired state as rows."""

from datapath.agent.report import SHOWN_OPERATIONS, Report, desired_changes
from datapath.spec.document import dump, merge
from datapath.state.model import DesiredState

WEB = {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.0.1:80"]}


def state(document, base=None):
    return merge(base or DesiredState(), document)


def changes(before, after):
    return desired_changes(dump(before), dump(after))


def test_nothing_changes():
    one = state({"options": {"values": {"algorithm": "maglev"}}, "services": {"items": [WEB]}})
    assert changes(one, one) == []


def test_created_changed_deleted():
    empty, one = DesiredState(), state({"services": {"items": [WEB]}})
    other = state({"services": {"items": [{**WEB, "backends": ["10.0.0.2:80"]}]}}, one)
    (created,) = changes(empty, one)
    assert (created["action"], created["target"], created["key"]) == ("create", "service", "web")
    assert created["before"] is None
    (updated,) = changes(one, other)
    assert updated["summary"] == "update service web: backends"
    assert "10.0.0.1" in updated["before"]
    assert "10.0.0.2" in updated["after"]
    (deleted,) = changes(other, empty)
    assert (deleted["action"], deleted["after"]) == ("delete", None)


def test_an_option_that_returns_to_its_default():
    one = state({"options": {"values": {"algorithm": "maglev"}}})
    (row,) = changes(one, state({"options": {"values": {}}}, one))
    assert row["summary"] == 'option bpf-lb-algorithm: "maglev" -> default'
    assert row["action"] == "set"


SOURCE = "int f(struct xdp_md *context)\n{\n    return XDP_PASS;\n}\n"


def test_a_diff_shows_the_lines_of_a_source():
    item = {"name": "count", "source": SOURCE, "attach": {"type": "xdp", "device": "eth0"}}
    one = state({"programs": {"items": [item]}})
    rows = changes(one, state({"programs": {"items": [{**item, "source": SOURCE.replace("PASS", "DROP")}]}}, one))
    assert [row["summary"] for row in rows] == ["update program count: source"]
    before, after = (report(rows)["diff"][side].splitlines() for side in ("before", "after"))
    assert [line for line in before if line not in after] == ["    return XDP_PASS;"]
    assert [line for line in after if line not in before] == ["    return XDP_DROP;"]
    assert before[0].startswith('program count: {"attach": {"device": "eth0"')
    (row,) = changes(one, DesiredState())
    assert (row["action"], row["after"]) == ("delete", None)
    assert row["before"].endswith(SOURCE.rstrip())


def report(rows):
    return Report(check=True, rows=rows, disruption={}, warnings=(), map_writes=0).as_dict()


def test_a_long_report_is_cut_but_counts_all():
    row = {"action": "create", "target": "map m", "key": "k", "before": None, "after": "x", "summary": "create"}
    told = report([row] * (SHOWN_OPERATIONS + 7))
    assert len(told["operations"]) == SHOWN_OPERATIONS
    assert told["operation_count"] == SHOWN_OPERATIONS + 7
    assert told["changed"] is True


def test_an_empty_report():
    told = report([])
    assert (told["changed"], told["operations"], told["diff"]) == (False, [], {"before": "", "after": ""})
