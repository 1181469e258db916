# SPDX-License-Identifier: Apache-2.0
"""`make demo`: machines become a load balancer, which is then watched at work.

Every step checks what it shows: the exit code is 1, with the reason, where something is not as it should be.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.lab import access
from tools.lab.system import LabError, wait_until

REQUESTS = 2000
"""Of each kind: TCP and UDP, over IPv4 and IPv6."""
VICTIM = "be2"
LOG = access.ROOT / "build/logs/demo.log"
TERMINAL = sys.stdout.isatty()

ADDRESSES = {
    "be1": ("198.18.21.10", "[2001:db8:0:21::10]"),
    "be2": ("198.18.22.10", "[2001:db8:0:22::10]"),
    "be3": ("198.18.23.10", "[2001:db8:0:23::10]"),
}
PICTURE = """
                                   .--- lb1   XDP load balancers; the router spreads
    client ------- router --------+           traffic to the VIPs over both (ECMP)
                     |             '--- lb2
            .--------+--------.
           be1      be2      be3              plain web and UDP servers
"""
LOOK_AROUND = f"""
    build/lab/ssh lb1 datapath status -v               every way that a packet can end, counted
    build/lab/ssh lb1 datapath maglev {access.VIP4}:80    who gets which share of new flows
    build/lab/ssh lb1 datapath ct list                 flows
    build/lab/ssh lb1 datapath verify                  does the kernel hold what was asked for?
    build/lab/ssh client curl -s http://{access.VIP4}/
    .venv/bin/ansible-playbook -i inventories/lab playbooks/cluster.yml --check --diff
                                                       what a change of inventories/lab would do
    make demo-clean                                    remove all of it
"""


def style(text: str, code: str) -> str:
    """`text` in a colour or weight where there is a terminal."""
    return f"\x1b[{code}m{text}\x1b[0m" if TERMINAL else text


def heading(text: str) -> None:
    """The title of a step."""
    print(f"\n{style(text, '1;36')}", flush=True)


def require(condition: object, message: str) -> None:
    """Stop the demo where something is not as it should be."""
    if not condition:
        raise LabError(message)


@contextmanager
def timed(text: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    print(f"  {text} ... ", end="", flush=True)
    began = time.monotonic()
    yield
    print(style(f"{time.monotonic() - began:.1f} s", "32"), flush=True)


def playbook(name: str) -> str:
    """Run a playbook against the lab; returns its recap. Its whole output goes to the log."""
    command = ("ansible-playbook", "-i", "inventories/lab", f"playbooks/{name}.yml")
    result = subprocess.run(command, cwd=access.ROOT, capture_output=True, text=True, check=False)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n{result.stdout}{result.stderr}")
    tail = result.stdout[-3000:]
    require(result.returncode == 0, f"{' '.join(command)} failed (all of it: {LOG})\n{tail}{result.stderr}")
    return result.stdout.partition("PLAY RECAP")[2].partition("\n")[2]


def show_recap(recap: str) -> None:
    """The recap's lines of nodes that were worked on."""
    for line in recap.splitlines():
        if re.search(r"ok=[1-9]", line) and line.startswith("lb"):
            print(f"    {' '.join(line.split()[:7])}")


def predicted(frontend: str) -> dict[str, float]:
    """Backend node -> its share of the slots of the Maglev table."""
    shares = access.datapath("lb1", "maglev", frontend)["shares"]
    by_address = {row["backend"].rpartition(":")[0]: row["share"] for row in shares}
    return {node: sum(by_address.get(address, 0.0) for address in both) for node, both in ADDRESSES.items()}


def show_shares(rows: Mapping[str, tuple[Mapping[str, int], Mapping[str, float]]]) -> None:
    """A table of requests for each backend, beside what the tables predict."""
    print("\n  " + " " * 24 + "".join(f"{node:>22}" for node in access.BACKENDS))
    for title, (counts, shares) in rows.items():
        total = sum(counts.values())
        cells = (f"{counts.get(node, 0):>5} {counts.get(node, 0) / total:>6.1%}" for node in access.BACKENDS)
        print(
            f"  {title:<24}"
            + "".join(f"{style(cell, '1'):>{22 + len(style(cell, '1')) - len(cell)}}" for cell in cells)
        )
        print(f"  {'  Maglev table says':<24}" + "".join(f"{shares[node]:>22.1%}" for node in access.BACKENDS))


def requests() -> None:
    """Requests of all four kinds, counted by who answered."""
    rows = {}
    with timed(f"{2 * REQUESTS} HTTP requests with curl, each on a connection of its own"):
        for title, host in (("TCP over IPv4", access.VIP4), ("TCP over IPv6", f"[{access.VIP6}]")):
            rows[title] = (access.curl(host, REQUESTS), predicted(f"{host}:80/TCP"))
    with timed(f"{2 * REQUESTS} datagrams with a small UDP client, each from a port of its own"):
        report = access.load("--count", REQUESTS, access.UDP4, access.UDP6)
        rows["UDP over IPv4"] = (report[access.UDP4]["backends"], predicted(f"{access.VIP4}:53/UDP"))
        rows["UDP over IPv6"] = (report[access.UDP6]["backends"], predicted(f"[{access.VIP6}]:53/UDP"))
    show_shares(rows)
    answered = sum(sum(counts.values()) for counts, _ in rows.values())
    print(f"\n  {style(f'{answered} of {4 * REQUESTS} requests answered', '1;32')}", flush=True)
    require(answered == 4 * REQUESTS, "requests were lost")


def wait_for_health(*, some_down: bool) -> bool:
    """Wait until every load balancer finds that a backend is down, or that none is; False when that takes too long."""

    def agree() -> bool:
        return all(bool(access.unhealthy(node)) == some_down for node in access.LOAD_BALANCERS)

    return wait_until(agree, 20)


def kill_a_backend() -> None:
    """Kill a backend's web server under load; show when that was noticed and what it cost."""
    with (
        timed(f"killing {VICTIM}'s web server while requests go on"),
        access.Load("--keep", "6", *access.TARGETS) as load,
    ):
        time.sleep(2)
        access.shell(VICTIM, "systemctl kill --signal=KILL --kill-whom=all lab-http; systemctl stop lab-http")
        noticed = wait_for_health(some_down=True)
        time.sleep(2)
    access.shell(VICTIM, "systemctl start lab-http")
    require(noticed, f"nobody noticed that {VICTIM} is dead")
    failures = [row for counts in load.report.values() for row in counts["failures"]]
    others = [row for row in failures if row["flow"] not in ("new", VICTIM) or "Timeout" in row["why"]]
    times = sorted(row["at"] for row in failures)
    total = sum(counts["requests"] for counts in load.report.values())
    print(f"  {total} requests meanwhile")
    print(f"  failed because {VICTIM} itself refused or broke them: {len(failures) - len(others)}")
    print(f"  {style(f'failed at the other backends: {len(others)}', '1;32' if not others else '1;31')}")
    if times:
        print(f"  {style(f'out of every table {times[-1] - times[0]:.2f} s after its first failure', '1;32')}", end="")
        print(" (checked every 0.5 s, down after 2 failures)")
    require(not others, f"requests to other backends failed: {others[:3]}")
    with timed(f"{VICTIM} is started again and comes back"):
        require(wait_for_health(some_down=False), f"{VICTIM} does not come back")


def show(node: str, command: str) -> None:
    """A command of the product, as an operator types and sees it."""
    print(f"\n  {style(f'{node}# {command}', '1;33')}")
    for line in access.shell(node, command).splitlines():
        print(f"  {line}")


def demo() -> None:
    """All steps."""
    heading("1. Seven machines on this one: systemd, sshd, a network of their own each")
    with timed("ansible-playbook -i inventories/lab playbooks/lab.yml (the first time also builds their image)"):
        playbook("lab")
    print(PICTURE)
    heading("2. Two of them become load balancers")
    with timed("ansible-playbook -i inventories/lab playbooks/cluster.yml"):
        recap = playbook("cluster")
    show_recap(recap)
    require(wait_for_health(some_down=False), "backends are not healthy")
    heading("3. Requests from the client")
    requests()
    heading("4. A backend dies")
    kill_a_backend()
    heading("5. What an operator sees")
    show("lb1", "datapath status")
    show("lb1", "datapath service list")
    heading("6. The playbook again")
    with timed("ansible-playbook -i inventories/lab playbooks/cluster.yml"):
        recap = playbook("cluster")
    show_recap(recap)
    require(set(re.findall(r"changed=(\d+)", recap)) == {"0"}, "the second run changed something")
    print(f"  {style('nothing changed', '1;32')}")
    heading("The lab is still there. Look around:")
    print(LOOK_AROUND)


def main() -> int:
    """Entry point."""
    LOG.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        demo()
    except LabError as error:
        print(f"\n{style('demo failed:', '1;31')} {error}", file=sys.stderr)
        return 1
    print(f"demo: ok in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
