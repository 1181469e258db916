"""What a change of the datapath could leave on a node, as one JSON document.

Runs on the node itself (`python3 - < snapshot.py`) with its own python3 alone: the code under test has no part in it.
"""

import hashlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

# Written by whoever logs in or by the system's own clockwork, whatever the datapath does.
IGNORED_FILES = re.compile(
    r"^/(proc|sys|dev|run(?!/datapath)|var/log|var/lib/systemd|root/\.ansible|tmp/systemd-private|var/tmp/systemd-private)"
)
IGNORED_SYSCTLS = re.compile(r"fastopen_key|nf_conntrack_count|stable_secret|random")
# Contents are compared where configuration lives, sizes and times everywhere else.
HASHED = ("/etc", "/opt", "/usr/local", "/root", "/tmp")


def output(*command):
    """What a command prints; errors are part of the picture."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def describe(path):
    """What a file is, and its contents or size and time."""
    info = os.lstat(path)
    what = {"mode": oct(info.st_mode), "owner": f"{info.st_uid}:{info.st_gid}"}
    if stat.S_ISLNK(info.st_mode):
        what["to"] = str(Path(path).readlink())
    elif stat.S_ISREG(info.st_mode):
        what["size"] = info.st_size
        if path.startswith(HASHED):
            what["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        else:
            what["time"] = info.st_mtime_ns
    return what


def files():
    """Every file and directory of the node's own tree, and of /run/datapath."""
    found = {}
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if not IGNORED_FILES.match(f"{folder.rstrip('/')}/{name}")]
        for name in (*names, *folders):
            path = f"{folder.rstrip('/')}/{name}"
            if not IGNORED_FILES.match(path):
                found[path] = describe(path)
    return found


def bpffs():
    """Every pin."""
    return sorted(f"{folder.rstrip('/')}/{name}" for folder, _, names in os.walk("/sys/fs/bpf") for name in names)


def cgroups():
    """Programs on cgroups; without ids, which are new whenever systemd attaches its own again."""
    rows = json.loads(output("bpftool", "-j", "cgroup", "tree", "/sys/fs/cgroup") or "[]")
    return sorted(
        f"{row['cgroup']} {program['attach_type']} {program['name']}" for row in rows for program in row["programs"]
    )


def links():
    """Links with what is attached to them; without what the kernel counts."""
    return json.loads(output("ip", "-j", "-d", "link"))


def units():
    """Units and their state: services, sockets, mounts."""
    rows = output(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=service,socket,mount"
    ).splitlines()
    return {row.split()[0]: row.split()[1:3] for row in rows if "systemd-" not in row.split()[0]}


def sysctls():
    """Settings of the node's own network."""
    rows = output("sysctl", "-a", "--pattern", "^net").splitlines()
    return sorted(row for row in rows if not IGNORED_SYSCTLS.search(row))


print(
    json.dumps(
        {
            "bpffs": bpffs(),
            "links": links(),
            "attached": json.loads(output("bpftool", "-j", "net") or "[]"),
            "cgroups": cgroups(),
            "addresses": sorted(output("ip", "-o", "address").splitlines()),
            "routes": sorted(output("ip", "-o", "route", "show", "table", "all").splitlines()),
            "neighbours": sorted(output("ip", "neigh", "show", "nud", "permanent").splitlines()),
            "qdiscs": sorted(output("tc", "qdisc").splitlines()),
            "sysctls": sysctls(),
            "unit_files": sorted(output("systemctl", "list-unit-files", "--no-legend").splitlines()),
            "units": units(),
            "files": files(),
        }
    )
)
