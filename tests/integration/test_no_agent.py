"""The command line where no agent answers, and what all commands have in common."""

import json
import os

import pytest

from datapath.kernel import features
from integration.node import VIP, document, service


@pytest.mark.parametrize("command", [("apply", "-"), ("status",)])
def test_what_needs_the_agent_exits_with_4(node, command):
    error = node.ask(*command, document=document(service()), code=4)["errors"][0]
    assert "no agent answers" in error["message"]
    done = node.run(*command, document=document(service()))
    assert (done.returncode, done.stdout) == (4, "")
    assert "no agent answers" in done.stderr


def test_what_only_reads_works_without(agent):
    wanted = document(service())
    agent.apply(wanted)
    with_agent = [agent.ask(*command) for command in _reading()]
    agent.stop()
    without = [agent.ask(*command) for command in _reading()]
    assert without == with_agent
    assert agent.check(wanted)["changed"] is False
    assert not (agent.root / "run/datapath/datapathd.sock").exists()


def _reading():
    commands = (("plan",), ("verify",), ("service", "list"), ("maglev", f"{VIP}:80", "-v"), ("ct", "list"))
    return [*commands, ("info",)]


def test_info(node):
    told = node.ask("info")
    assert told["devices"]["client0"]["driver"] == "veth"
    assert told["devices"]["client0"]["native_xdp"] is True
    assert "198.51.100.1/24" in told["devices"]["client0"]["addresses"]
    assert told["features"] == features.probe()
    assert told["kernel"] == os.uname().release
    assert told["load_balancer"] is None
    assert told["programs"] == []


@pytest.mark.parametrize("command", [("status",), *_reading()])
def test_every_command_speaks_text_and_json(agent, command):
    agent.apply(document(service()))
    text = agent.run(*command)
    assert text.returncode == 0, text.stderr
    assert text.stdout.strip()
    assert "\033" not in text.stdout
    assert isinstance(agent.ask(*command), dict)


def test_a_file_that_cannot_be_read(agent):
    error = agent.ask("apply", "/nonexistent", code=2)["errors"][0]
    assert error["path"] == "/nonexistent"
    assert "No such file" in error["message"]


def test_apply_takes_a_file(agent, tmp_path):
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document(service())))
    assert agent.ask("apply", str(path))["changed"] is True
    assert agent.ask("plan", str(path))["changed"] is False
