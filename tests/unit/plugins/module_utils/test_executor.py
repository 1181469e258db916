from __future__ import annotations

import json

import pytest
from ansible_collections.ebpf.datapath.plugins.module_utils import executor


def refusal(**changes):
    return {
        "document": "services",
        "path": "services.items[0].frontends[1].port",
        "value": 70000,
        "message": "out of range",
        "allowed": "1 to 65535",
        "nearest": None,
        **changes,
    }


def test_an_answer_is_returned():
    assert executor.parse(0, '{"changed": false}', "") == {"changed": False}


def test_every_violation_is_in_the_message():
    errors = [refusal(), refusal(path="options.values.algoritm", value="maglev", allowed=None, nearest="algorithm")]
    with pytest.raises(executor.ExecutorError) as caught:
        executor.parse(2, json.dumps({"errors": errors}), "")
    assert caught.value.errors == errors
    assert caught.value.message.splitlines() == [
        "refused, nothing was changed (2 errors):",
        "- services.items[0].frontends[1].port = 70000: out of range (allowed: 1 to 65535)",
        '- options.values.algoritm = "maglev": out of range (did you mean algorithm?)',
    ]


def test_the_verifier_log_follows_the_errors():
    error = {
        "document": "kernel",
        "path": "load xdp_lb",
        "message": "permission denied",
        "log": "R1 invalid mem access",
    }
    with pytest.raises(executor.ExecutorError) as caught:
        executor.parse(1, json.dumps({"errors": [error]}), "")
    lines = caught.value.message.splitlines()
    assert lines[0] == "the kernel refused (1 error):"
    assert lines[-2:] == ["log of load xdp_lb:", "R1 invalid mem access"]


def test_no_agent_says_where_to_look():
    document = {"errors": [{"document": "agent", "path": "", "message": "no agent answers at /run/x"}]}
    with pytest.raises(executor.ExecutorError, match="systemctl status datapathd"):
        executor.parse(4, json.dumps(document), "")


@pytest.mark.parametrize(
    ("code", "out"), [(1, "Traceback"), (0, "not JSON"), (0, ""), (0, "[]"), (1, '{"changed": true}')]
)
def test_anything_else_is_a_failure_that_shows_what_was_said(code, out):
    with pytest.raises(executor.ExecutorError) as caught:
        executor.parse(code, out, "boom\n")
    assert f"exit code {code}: boom" in caught.value.message
    assert caught.value.details["stderr"] == "boom\n"
    assert caught.value.details.get("stdout", "") == out


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "= 0"), ("", '= ""'), (False, "= false"), ({"a": [1]}, '= {"a": [1]}'), ("é", '= "é"')]
)
def test_falsy_and_structured_values_are_shown(value, shown):
    assert shown in executor.describe(refusal(value=value))


def test_no_value_is_not_shown_as_null():
    assert "=" not in executor.describe(refusal(value=None))


def plan(operations, before, after, **more):
    return {
        "changed": bool(operations),
        "operations": operations,
        "operation_count": len(operations),
        "diff": {"before": before, "after": after},
        **more,
    }


ATTACH, CREATE = {"action": "attach", "key": "eth0"}, {"action": "create", "key": "192.0.2.10:80/TCP"}


def test_subtracting_a_plan_leaves_what_it_does_not_do():
    whole = plan([ATTACH, CREATE], "", "eth0\nweb\n", warnings=["slow", "new"])
    part = plan([ATTACH], "", "eth0\n", warnings=["slow"])
    left = executor.subtract(whole, part)
    assert left["operations"] == [CREATE]
    assert (left["operation_count"], left["changed"], left["warnings"]) == (1, True, ["new"])
    assert left["diff"] == {"before": "eth0\n", "after": "eth0\nweb\n"}


def test_subtracting_a_plan_from_itself_leaves_no_change():
    left = executor.subtract(plan([ATTACH], "", "eth0\n"), plan([ATTACH], "", "eth0\n"))
    assert (left["operations"], left["changed"], left["operation_count"]) == ([], False, 0)
    assert left["diff"]["before"] == left["diff"]["after"]


def test_options_that_state_the_whole_set_take_the_place_of_pending_ones():
    pending = {"options": {"values": {"mode": "dsr"}, "config": {}}, "services": {"items": []}}
    document = {"options": {"values": {"debug": True}, "config": {}}}
    assert executor.combine(pending, document) == {**document, "services": {"items": []}}


def test_options_that_merge_go_on_top_of_pending_ones():
    pending = {"options": {"merge": True, "values": {"debug": True, "mode": "dsr"}, "config": {"bpf-lb-mode": "snat"}}}
    document = {"options": {"merge": True, "values": {"mode": None}, "config": {"devices": "eth1"}}}
    assert executor.combine(pending, document) == {
        "options": {"merge": True, "values": {"debug": True, "mode": None}, "config": {"devices": "eth1"}}
    }


def test_options_that_merge_with_nothing_pending_are_as_they_are():
    document = {"options": {"merge": True, "values": {"debug": True}}}
    assert executor.combine({"services": {"items": []}}, document) == {**document, "services": {"items": []}}
