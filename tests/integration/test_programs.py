"""Users' own programs through the agent."""

import pytest

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
        assert error["document"] == "kernel"
        assert "invalid" in error["log"]
    assert agent.xdp_program("client0") == before
    assert agent.desired.read_bytes() == stored


def test_a_program_survives_the_agent(agent, compiled):
    agent.apply(program(compiled("good", GOOD)))
    before = agent.xdp_program("client0")
    agent.stop()
    assert agent.xdp_program("client0") == before
    agent.start()
    assert agent.xdp_program("client0") == before
    assert agent.ask("status")["last_apply"] is None
