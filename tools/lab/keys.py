"""The lab's ssh keys: made for this lab, never the user's own. Host keys are checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tools.lab.system import run, write_if_changed
from tools.lab.topology import Layout, Node

_CONFIG = """Host *
    User root
    IdentityFile "{key}"
    IdentitiesOnly yes
    UserKnownHostsFile "{known_hosts}"
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 5
    LogLevel ERROR
"""


def ensure(layout: Layout, nodes: Iterable[Node]) -> list[str]:
    """Make the login key, every node's host key and what ssh needs to know exist; returns what was made."""
    layout.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    done = ["login key"] if _make(layout.login_key) else []
    config = _CONFIG.format(key=layout.login_key, known_hosts=layout.known_hosts)
    known_hosts = ""
    for node in nodes:
        if _make(host_key(layout, node)):
            done.append(f"host key of {node.name}")
        known_hosts += f"{node.management} {public(host_key(layout, node))}"
        config += f"Host {node.name}\n    HostName {node.management}\n    HostKeyAlias {node.management}\n"
    files = {
        layout.known_hosts: (known_hosts, 0o600),
        layout.ssh_config: (config, 0o600),
        layout.ssh: (f'#!/bin/sh\nexec ssh -F "{layout.ssh_config}" "$@"\n', 0o755),
    }
    return done + [f"{path}" for path, (content, mode) in files.items() if write_if_changed(path, content, mode)]


def host_key(layout: Layout, node: Node) -> Path:
    """Private host key of one node."""
    return layout.keys / f"host-{node.name}"


def public(private: Path) -> str:
    """The public half of a key, as one line."""
    return private.with_name(private.name + ".pub").read_text()


def _make(path: Path) -> bool:
    if path.exists():
        return False
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {path.name}", "-f", str(path))
    return True
