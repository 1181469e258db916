"""Users' own programs through the agent."""

from pathlib import Path

import pytest

from integration.node import document, service
from netns.topology import compile_object

SOURCE = """
#include <linux/bpf.h>
__attribute__((section("xdp"), used)) int program(struct xdp_md *context) {{ {body} }}
char license_text[] __attribute__((section("license"), used)) = "GPL";
"""
GOOD, OTHER = "return XDP_PASS;", "return context->ingress_ifindex ? XDP_PASS : XDP_DROP;"
BAD = "return *(int *)(long)context->data;"


@pytest.fixture
def compiled(tmp_path):
    def compile_(name, body):
        source = tmp_path / f"{name}.bpf.c"
        source.write_text(SOURCE.format(body=body))
        return str(compile_object(source, tmp_path))

    return compile_


def program(path, **attach):
    item = {"name": "mine", "object": path, "attach": {"type": "xdp", "device": "client0", **attach}}
    return {"programs": {"items": [item]}}


def test_attached_replaced_and_removed(agent, compiled):
    wanted = program(compiled("good", GOOD))
    assert agent.check(wanted)["changed"] is True
    assert agent.xdp_program("client0") is None
    assert agent.apply(wanted)["changed"] is True
    first = agent.xdp_program("client0")
    assert first is not None
    assert agent.apply(wanted)["changed"] is False
    assert [row["name"] for row in agent.ask("info")["programs"]] == ["mine"]
    assert agent.apply(program(compiled("other", OTHER)))["changed"] is True
    assert agent.xdp_program("client0") not in (None, first)
    assert agent.apply({"programs": {"items": [{"name": "mine", "state": "absent"}]}})["changed"] is True
    assert agent.xdp_program("client0") is None


def test_a_program_that_the_verifier_rejects_leaves_the_old_one_running(agent, compiled):
    agent.apply(program(compiled("good", GOOD)))
    before, stored = agent.xdp_program("client0"), agent.desired.read_bytes()
    for how in (agent.check, agent.apply):
        error = how(program(compiled("bad", BAD)), code=1)["errors"][0]
        assert (error["document"], error["path"]) == ("kernel", "programs.mine")
        assert "invalid" in error["log"]
    assert agent.xdp_program("client0") == before
    assert agent.desired.read_bytes() == stored


WRONG = ("0].program", "2].object", "3].attach.type", "3].attach.device")


def test_what_an_object_does_not_hold_is_refused(agent, compiled):
    good = program(compiled("good", GOOD))["programs"]["items"][0]
    items = [
        {**good, "program": "progarm"},
        {"name": "other", "state": "absent"},
        {"name": "gone", "object": "/nonsense.o"},
        {**good, "name": "hooked", "attach": {"type": "tc", "device": "client7"}},
    ]
    for how in (agent.check, agent.apply):
        errors = {error["path"]: error for error in how({"programs": {"items": items}}, code=2)["errors"]}
        assert set(errors) == {f"programs.items[{where}" for where in WRONG}
        wrong = errors["programs.items[0].program"]
        assert (wrong["document"], wrong["value"]) == ("programs", "progarm")
        assert (wrong["allowed"], wrong["nearest"]) == ("program", "program")
        assert errors["programs.items[3].attach.device"]["nearest"] == "client0"
    assert not agent.desired.exists()


@pytest.mark.parametrize("rebooted", [True, False])
def test_an_object_that_went_stands_in_nobodys_way(agent, compiled, rebooted):
    """A node that restarts without the file serves; a program that runs goes on, and what is wrong is told."""
    path = compiled("good", GOOD)
    agent.lb.run("ip link add spare0 type veth peer name spare1")
    agent.apply({**document(service()), **program(path, device="spare0")})
    running, stored = agent.xdp_program("spare0"), agent.desired.read_bytes()
    if rebooted:
        agent.ask("reset", "--yes")
    agent.stop()
    agent.desired.write_bytes(stored)
    Path(path).unlink()
    agent.start()
    assert len(agent.dump("services_v1")) == 1
    assert agent.xdp_program("client0") is not None
    assert agent.xdp_program("spare0") == (None if rebooted else running)
    status = agent.ask("status")
    assert status["converged"] is False
    assert [problem for problem in status["problems"] if "programs.mine.object" in problem]
    drift = agent.ask("verify", code=3)
    assert (drift["drift"], drift["drift_count"], len(drift["unusable"])) == ([], 1, 1)
    assert drift["unusable"][0] in agent.run("verify").stdout
    assert agent.apply({"services": {"items": [service("other", port=9090)], "purge": True}})["changed"] is True
    wanted = document(service("other", port=9090), algorithm="random")
    assert agent.apply(wanted, code=2)["errors"][0]["path"] == "programs.mine.object"
    assert agent.apply({"programs": {"items": [{"name": "mine", "state": "absent"}]}})["changed"] is True
    assert agent.ask("status")["converged"] is True


def test_a_program_survives_the_agent(agent, compiled):
    agent.apply(program(compiled("good", GOOD)))
    before = agent.xdp_program("client0")
    agent.stop()
    assert agent.xdp_program("client0") == before
    agent.start()
    assert agent.xdp_program("client0") == before
    assert agent.ask("status")["last_apply"] is None
