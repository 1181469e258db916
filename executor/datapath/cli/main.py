"""`datapath`: parse the command line, run one command, answer with its exit code.

Exit codes: 0 done, 1 failed, 2 refused, 3 `verify` found drift, 4 no agent answers.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from datapath import __version__
from datapath.cli import commands
from datapath.cli.client import NoAgentError
from datapath.cli.errors import NO_AGENT, Failure, report

EPILOG = """\
exit codes: 0 done; 1 failed (the kernel refused); 2 refused (bad input); 3 drift found; 4 no agent answers
"""


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    options = parser().parse_args(words)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except Failure as failure:
        return report(failure, options.output)
    except NoAgentError as error:
        return report(Failure(NO_AGENT, [{"document": "agent", "path": "", "message": str(error)}]), options.output)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="datapath",
        description="Show and change the eBPF datapath of this node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"datapath {__version__}")
    subcommands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_reading(subcommands)
    _add_writing(subcommands)
    return top


if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def _command(subcommands: Subcommands, name: str, text: str, run_: commands.Command) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = subcommands.add_parser(name, help=text, description=text)
    command.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to answer")
    command.set_defaults(run=run_)
    return command


def _nested(subcommands: Subcommands, name: str, text: str) -> Subcommands:
    """A command that is only a name for those below it."""
    command = subcommands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return command.add_subparsers(metavar="COMMAND", required=True)


def _add_reading(subcommands: Subcommands) -> None:
    status = _command(subcommands, "status", "health of the datapath and of the agent", commands.status)
    status.add_argument("-v", "--verbose", action="store_true", help="every packet outcome with its counter")

    service = _nested(subcommands, "service", "load-balancer services")
    listing = _command(service, "list", "frontends, backends, health and traffic", commands.service_list)
    listing.add_argument("name", nargs="?", help="only this service")

    endpoint = _nested(subcommands, "endpoint", "the host, and what is behind its devices, such as containers")
    listing = _command(endpoint, "list", "where each endpoint is, labels and addresses", commands.endpoint_list)
    listing.add_argument("name", nargs="?", help="only this endpoint; of a pattern, those that it found")

    bandwidth = _nested(subcommands, "bandwidth", "rates of endpoints")
    listing = _command(bandwidth, "list", "rates configured and measured, and drops", commands.bandwidth_list)
    listing.add_argument("--seconds", type=float, default=1.0, metavar="N", help="how long to measure (default 1)")

    _add_clustermesh(subcommands)

    maglev = _command(subcommands, "maglev", "the lookup table of a frontend and each backend's share", commands.maglev)
    maglev.add_argument("frontend", metavar="VIP:PORT[/PROTO]", help="192.0.2.10:80, [2001:db8::10]:53/UDP")
    maglev.add_argument("-v", "--verbose", action="store_true", help="every slot")

    ct = _nested(subcommands, "ct", "connection tracking")
    flows = _command(ct, "list", "tracked flows, both directions", commands.ct_list)
    flows.add_argument("--client", metavar="ADDR", help="only flows of this client")
    flows.add_argument("--frontend", metavar="VIP[:PORT]", help="only flows to this frontend")
    flows.add_argument("--backend", metavar="ADDR[:PORT]", help="only flows to this backend")
    flows.add_argument("--protocol", choices=("tcp", "udp"), help="only this protocol")
    flows.add_argument("--limit", type=int, default=100, metavar="N", help="at most N flows (default 100, 0: all)")

    _add_trace(subcommands)
    _add_capture(subcommands)
    _add_drops(subcommands)

    plan = _command(subcommands, "plan", "what would change, without changing it", commands.plan)
    plan.add_argument("file", nargs="?", metavar="FILE", help="document (- for stdin); default: the stored state")
    _command(subcommands, "verify", "compare the kernel with the desired state; exit code 3 on drift", commands.verify)
    _command(subcommands, "info", "facts of this node: kernel features, devices, programs, maps", commands.info)


def _add_clustermesh(subcommands: Subcommands) -> None:
    mesh = _nested(subcommands, "clustermesh", "other clusters whose services are shared")
    status = _command(mesh, "status", "connections to other clusters, and what is known of each", commands.mesh_status)
    status.add_argument("--wait", action="store_true", help="until all are ready; exit code 1 where one is not")
    status.add_argument("--timeout", type=float, default=300.0, metavar="N", help="seconds to wait (default 300)")
    text = "try a connection step by step: DNS, TCP, TLS, authorisation, data; exit code 1 where one fails"
    trouble = _command(mesh, "troubleshoot", text, commands.mesh_troubleshoot)
    trouble.add_argument("name", nargs="?", help="only this cluster")


def _add_trace(subcommands: Subcommands) -> None:
    text = "what the loaded program does with a packet, and why; leaves no trace in flows or counters"
    trace = _command(subcommands, "trace", text, commands.trace)
    trace.add_argument("source", metavar="SRC:PORT", help="198.51.100.7:40000, [2001:db8::7]:40000")
    trace.add_argument("destination", metavar="DST:PORT/PROTO", help="192.0.2.10:80/TCP, [2001:db8::10]:53/UDP")
    trace.add_argument("--tcp-flags", metavar="FLAGS", help="S, SA, FA, R... or syn,ack (default: S)")
    trace.add_argument("--device", metavar="DEVICE", help="received there (default: on the way back to SRC)")
    trace.add_argument("--ttl", metavar="N", help="TTL or hop limit on arrival (default: 64)")
    trace.add_argument("--length", metavar="N", help="bytes of the IP packet (default: no payload)")


def _add_capture(subcommands: Subcommands) -> None:
    text = "what XDP sees and decides, before and after rewriting, into a pcapng file"
    capture = _command(subcommands, "capture", text, commands.capture)
    capture.add_argument("-w", "--write", metavar="FILE", required=True, help="file to write, - for standard output")
    capture.add_argument("--host", metavar="ADDR[/N]", help="source or destination is this address or network")
    capture.add_argument("--port", metavar="N", help="source or destination port")
    capture.add_argument("--protocol", metavar="PROTO", help="tcp, udp, icmp, icmpv6")
    capture.add_argument("--device", metavar="DEVICE", help="received there (default: any)")
    capture.add_argument("--count", type=int, default=0, metavar="N", help="end after N frames (default 0: never)")
    capture.add_argument("--seconds", metavar="N", help="end after N seconds (default 60)")
    capture.add_argument("--snaplen", metavar="N", help="bytes of a frame that are kept (default: all)")


def _add_drops(subcommands: Subcommands) -> None:
    text = "why the kernel dropped packets, TCP retransmits and round-trip times per service"
    drops = _command(subcommands, "drops", text, commands.drops)
    drops.add_argument("--watch", action="store_true", help="print again after each interval, until interrupted")
    drops.add_argument("--seconds", type=float, metavar="N", help="how long to count (default 10, with --watch 2)")


def _add_writing(subcommands: Subcommands) -> None:
    apply = _command(subcommands, "apply", "make a desired-state document true", commands.apply)
    apply.add_argument("file", metavar="FILE", help="JSON document, - for stdin")
    apply.add_argument("--check", action="store_true", help="only say what would change")
    reset = _command(subcommands, "reset", "remove everything that the executor put on this node", commands.reset)
    reset.add_argument("--yes", action="store_true", help="do not ask")
    agent = _command(subcommands, "agent", "run the agent in the foreground (as datapathd does)", commands.agent)
    agent.add_argument("--debug", action="store_true", help="log more")
