"""Users' programs from C source: compiled by a real agent, attached, and counting real packets.

    client 198.51.100.2 eth0 -- client0 198.51.100.1 lb

The agent has the rights that its unit gives it: the unit's capabilities, and a file system that cannot be written.
"""

import os
import re
import site
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.node import ROOT, Node
from integration.node import node as make_node

BUILD = Path("/lib/modules") / os.uname().release / "build"
UNIT = ROOT / "executor/systemd/datapathd.service"
PINGS = 5
# The headers are those that the kernel shares with user space: <linux/ip.h> brings so much along that an emulated
# guest compiles for a minute. bcc would load and attach a function of the last one's name, and fail at this one.
SOURCE = r"""
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>

#define ICMP 1

BPF_HASH(pings, u32, u64, 16);

static __always_inline void count_ping(void *data, void *end)
{
    struct ethhdr *eth = data;
    struct iphdr *ip = data + sizeof(*eth);
    u32 key;

    if ((void *)(ip + 1) > end || eth->h_proto != htons(ETH_P_IP) || ip->protocol != ICMP)
        return;
    key = ip->saddr;
    pings.increment(key);
}

int count_received(struct xdp_md *context)
{
    count_ping((void *)(long)context->data, (void *)(long)context->data_end);
    return XDP_PASS;
}

int count_sent(struct __sk_buff *skb)
{
    count_ping((void *)(long)skb->data, (void *)(long)skb->data_end);
    return 0; /* TC_ACT_OK */
}

int kprobe__no_such_function(void *context)
{
    return 0;
}
"""
BROKEN = SOURCE.replace("return XDP_PASS;", "return XDP_PAS;")
OUT_OF_BOUNDS = "int count_received(struct xdp_md *context)\n{\n    return *(int *)(long)context->data;\n}\n"


def capabilities():
    """As setpriv wants them."""
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    return ",".join(["-all", *("+" + name.removeprefix("CAP_").lower() for name in found[1].split())])


class Compiling(Node):
    """A node whose agent runs on the interpreter that has bcc, and may do what the unit lets it."""

    python = "/usr/bin/python3"
    timeout = 600.0

    @property
    def environment(self):
        # What the executor's artefact brings along is here in the tests' environment.
        paths = [str(ROOT / "executor"), *site.getsitepackages()]
        return {**super().environment, "PYTHONPATH": ":".join(paths)}

    @property
    def confinement(self):
        script = f'mount --rbind "{self.root}" "{self.root}" && mount -o remount,bind,ro / && exec "$@"'
        privileges = ("setpriv", f"--bounding-set={capabilities()}", "--no-new-privs")
        return ("unshare", "--mount", "sh", "-c", script, "sh", *privileges)

    def pings_by(self, program):
        """Address -> what the pinned program's map counted."""
        shown = self.bpftool("prog", "show", "pinned", str(self.pins / "programs" / program))
        (number,) = shown["map_ids"]
        rows = self.bpftool("map", "dump", "id", str(number))
        return {".".join(str(int(each, 16)) for each in row["key"]): little(row["value"]) for row in rows}

    def ping(self):
        self.client.run(f"ping -c {PINGS} -i 0.2 -W 5 -n 198.51.100.1")

    def link_of(self, program):
        shown = self.bpftool("link", "show", "pinned", str(self.pins / "links" / f"program_{program}"))
        return shown["id"], shown["prog_id"]

    def loaded(self):
        """Ids of the kernel's programs and maps that come from `SOURCE`."""
        names = ("count_received", "count_sent", "pings")
        rows = [(kind, row) for kind in ("prog", "map") for row in self.bpftool(kind, "show")]
        return {(kind, row["id"]) for kind, row in rows if row.get("name") in names}


def little(row):
    return int.from_bytes(bytes(int(each, 16) for each in row), "little")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with make_node(tmp_path_factory.mktemp("node"), Compiling) as made:
        made.start()
        yield made


@pytest.fixture
def agent(started):
    yield started
    started.apply({"programs": {"items": [], "purge": True}})


def received(source=SOURCE, **more):
    attach = {"type": "xdp", "device": "client0"}
    return {"name": "received", "source": source, "program": "count_received", "attach": attach, **more}


def sent(source=SOURCE):
    attach = {"type": "tc", "device": "client0", "direction": "egress"}
    return {"name": "sent", "source": source, "program": "count_sent", "attach": attach}


def programs(*items):
    return {"programs": {"items": list(items)}}


def error_of(agent, document, code=2):
    """The one error with which a dry run and an apply alike refuse `document`; neither leaves anything."""
    before, loaded, stored = agent.snapshot(), agent.loaded(), agent.desired.read_bytes()
    (error,) = agent.check(document, code=code)["errors"]
    assert agent.apply(document, code=code)["errors"] == [error]
    assert (agent.snapshot(), agent.loaded(), agent.desired.read_bytes()) == (before, loaded, stored)
    return error


def test_a_dry_run_leaves_nothing_and_what_is_attached_counts(agent):
    wanted = programs(received(), sent())
    before, loaded = agent.snapshot(), agent.loaded()
    planned = agent.check(wanted)
    assert planned["changed"] is True
    assert "int count_received(struct xdp_md *context)\n" in planned["diff"]["after"]
    assert (agent.snapshot(), agent.loaded()) == (before, loaded)
    done = agent.apply(wanted)
    assert done["operations"] == planned["operations"]
    agent.ping()
    assert agent.pings_by("received")["198.51.100.2"] == PINGS
    assert agent.pings_by("sent")["198.51.100.1"] == PINGS
    loaded = agent.loaded()
    assert agent.apply(wanted)["changed"] is False
    assert agent.loaded() == loaded
    assert agent.ask("verify")["drift"] == []
    info = agent.ask("info")["programs"]
    assert [(row["function"], row["source"]) for row in info] == [("count_received", SOURCE), ("count_sent", SOURCE)]


@pytest.mark.parametrize(
    "change",
    [("return XDP_PASS;", "return context->rx_queue_index > 9 ? XDP_DROP : XDP_PASS;"), ("u64, 16", "u64, 32")],
)
def test_a_changed_source_is_replaced_in_place(agent, change):
    agent.apply(programs(received()))
    link, program = agent.link_of("received")
    other = programs(received(SOURCE.replace(*change)))
    assert agent.check(other)["changed"] is True
    assert agent.link_of("received") == (link, program)
    assert agent.apply(other)["changed"] is True
    assert agent.link_of("received")[0] == link
    assert agent.link_of("received")[1] != program
    assert agent.apply(other)["changed"] is False
    agent.ping()
    assert agent.pings_by("received")["198.51.100.2"] == PINGS


def test_a_source_that_does_not_compile_is_refused_and_the_old_one_runs(agent):
    agent.apply(programs(received()))
    error = error_of(agent, programs(received(BROKEN)))
    assert (error["document"], error["path"], error["value"]) == ("programs", "programs.items[0].source", None)
    line = BROKEN.splitlines().index("    return XDP_PAS;") + 1
    assert f"does not compile: line {line}, column 12: use of undeclared identifier 'XDP_PAS'" in error["message"]
    agent.ping()
    assert agent.pings_by("received")["198.51.100.2"] == PINGS


def test_a_program_that_the_verifier_rejects_leaves_the_old_one_running(agent):
    agent.apply(programs(received()))
    error = error_of(agent, programs(received(OUT_OF_BOUNDS)), code=1)
    assert (error["document"], error["path"]) == ("kernel", "programs.received")
    assert "the kernel refused the eBPF program" in error["message"]
    assert "invalid access to packet" in error["log"]
    agent.ping()
    assert agent.pings_by("received")["198.51.100.2"] == PINGS


def test_a_function_that_is_not_there_is_refused_with_those_that_are(agent):
    (error,) = agent.check(programs(received(program="count_recieved")), code=2)["errors"]
    assert (error["value"], error["nearest"]) == ("count_recieved", "count_received")
    assert "the source holds no program count_recieved; it holds: count_received, " in error["message"]


@contextmanager
def hidden(path):
    aside = path.with_name(f"{path.name}-hidden")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def test_without_headers_it_is_refused_with_the_remedy(agent):
    agent.apply(programs(received()))
    with hidden(BUILD):
        error = error_of(agent, programs(received(SOURCE.replace("u64, 16", "u64, 64"))))
        assert error["path"] == "programs.items[0].source"
        message = f"the headers of the running kernel are not in {BUILD}; role ebpf.datapath.tracing installs"
        assert message in error["message"]
    agent.ping()
    assert agent.pings_by("received")["198.51.100.2"] == PINGS


@pytest.mark.parametrize("with_headers", [True, False])
def test_after_a_reboot_the_node_compiles_by_itself(agent, with_headers):
    agent.apply(programs(received()))
    stored = agent.desired.read_bytes()
    agent.ask("reset", "--yes")
    agent.stop()
    assert agent.xdp_program("client0") is None
    agent.desired.write_bytes(stored)
    if with_headers:
        agent.start()
        agent.ping()
        assert agent.pings_by("received")["198.51.100.2"] == PINGS
        return
    with hidden(BUILD):
        agent.start()
        assert [each for each in agent.ask("status")["problems"] if "programs.received.source" in each]
