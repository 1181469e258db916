# SPDX-License-Identifier: Apache-2.0
"""What role preflight reads off a node before anything runs there, and what is missing for the datapath."""

from __future__ import annotations

_MACHINES = ("x86_64", "aarch64")
_PYTHON = (3, 9)
_CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}


def parse(text):
    """Lines `name value...` of the probe; names that occur more than once (mount, device) become lists."""
    node = {"mount": [], "device": [], "lower": [], "address": [], "default_route": [], "route": []}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *value = line.split(maxsplit=1)
        if isinstance(node.get(name), list):
            node[name].extend(value)
        else:
            node[name] = "".join(value)
    node["device"] = [dict(zip(("name", "driver", "state", "mtu"), device.split())) for device in node["device"]]
    return node


def ways(node, options):
    """What the node's devices and its routes towards backends let through.

    Returns {"routes": {address: [device, MTU]}, "receiving": {device: MTU}, "devices": {device: [driver, MTU, devices
    below]}}, the latter two of the devices that programs are for.
    """
    mtus = {device["name"]: int(device["mtu"]) for device in node["device"] if device.get("mtu", "").isdigit()}
    routes = {}
    for line in node["route"]:
        address, *words = line.split()
        device = _word(words, "dev")
        if device in mtus and device != "lo":
            own = _word([word for word in words if word != "lock"], "mtu")
            routes[address] = [device, min(int(own), mtus[device]) if own.isdigit() else mtus[device]]
    wanted = options.get("devices") or [_word(line.split(), "dev") for line in node["default_route"]]
    names = [name for name in mtus if any(_matches(name, pattern) for pattern in wanted)]
    drivers = {device["name"]: device["driver"].strip("-") for device in node["device"]}
    below = {name: [line.split()[1] for line in node["lower"] if line.split()[0] == name] for name in mtus}
    shown = dict.fromkeys(names + [each for name in names for each in below[name] if each in mtus])
    return {
        "routes": routes,
        "receiving": {name: mtus[name] for name in names},
        "devices": {name: [drivers[name], mtus[name], below[name]] for name in shown},
    }


def _word(words, key):
    """What follows `key`, or ""."""
    return words[words.index(key) + 1] if key in words[:-1] else ""


def violations(node, options, dry_run=False, balances=True):
    """Every reason why this node cannot do what is asked: the missing feature, the consequence, the remedy.

    `node` is what `parse` returned, `options` the effective options by Cilium's keys
    ({} when nothing is asked of the load balancer), `balances` whether there is a load balancer.
    A dry run installs nothing, so it needs what the real run would install.
    """
    found = []
    ports = (_ports,) if balances else ()
    for check in (_rights, _kernel, _bandwidth, _bbr, _software, _mounts, _devices, *ports):
        found.extend(check(node, options, dry_run))
    return ["%s. %s. %s." % violation for violation in found]


def mounted(node, kind):
    """Where file systems of this type are mounted."""
    return [mount.split()[1] for mount in node["mount"] if mount.split()[0] == kind]


def _rights(node, options, dry_run):
    if node.get("uid") != "0":
        yield (
            "not root on the node",
            "Nothing can be installed or loaded",
            "Set become: true (ansible_become) for this node",
        )
        return
    effective = int(node.get("capabilities", "0"), 16)
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        yield (
            "%s is missing" % " and ".join(missing),
            "The kernel refuses to load programs and to change devices",
            "A container needs these capabilities from whoever starts it; a machine has them",
        )


def _kernel(node, options, dry_run):
    if node.get("machine") not in _MACHINES:
        yield (
            "machine type %s" % node.get("machine"),
            "The programs are built for %s" % " and ".join(_MACHINES),
            "Use such a machine",
        )
    if node.get("btf") != "yes":
        yield (
            "the kernel (%s) has no BTF (/sys/kernel/btf/vmlinux)" % node.get("kernel"),
            "Programs that are built once cannot adapt to this kernel",
            "Boot a kernel with CONFIG_DEBUG_INFO_BTF=y, such as the distribution's own from 5.10 on",
        )
    if "confidentiality" in node.get("lockdown", ""):
        yield (
            "kernel lockdown is in mode confidentiality",
            "Programs may not read kernel memory and are rejected",
            "Boot with lockdown=integrity or none",
        )
    for kind, purpose in (
        ("bpf", "Programs and maps cannot outlive the process that loads them"),
        ("cgroup2", "Programs cannot be attached to cgroups"),
    ):
        if kind not in node.get("filesystems", "").split():
            yield ("the kernel has no file system %s" % kind, purpose, "Boot a kernel that has it")


def _bandwidth(node, options, dry_run):
    if options.get("enable-bandwidth-manager") and node.get("sch_fq") != "yes":
        yield (
            "the kernel (%s) has no qdisc fq (feature sch_fq)" % node.get("kernel"),
            "Nothing would hold packets back until they may leave, so endpoints would have no rates",
            "Boot a kernel with CONFIG_NET_SCH_FQ, or set cilium_enable_bandwidth_manager: false",
        )


def _bbr(node, options, dry_run):
    if not options.get("enable-bbr"):
        return
    kernel, off = node.get("kernel"), "cilium_enable_bandwidth_manager_bbr: false"
    if node.get("tcp_bbr") != "yes":
        yield (
            "the kernel (%s) has no BBR (feature tcp_bbr)" % kernel,
            "TCP could not use it",
            "Boot a kernel with CONFIG_TCP_CONG_BBR, or set %s" % off,
        )
    host_only = options.get("enable-bbr-hostns-only")
    if host_only and node.get("sock_ops_netns") != "yes":
        yield (
            "the kernel (%s) does not tell programs whose network namespace a socket is in (feature sock_ops_netns)"
            % kernel,
            "The host's sockets could not have BBR without those of endpoints",
            "Boot a kernel from 5.15 on, or set %s" % off,
        )
    if not host_only and node.get("delivery_time") != "yes":
        yield (
            "the kernel (%s) forgets departure times on the way from an endpoint to fq (feature delivery_time)"
            % kernel,
            "BBR of endpoints would not be paced",
            "Boot a kernel from 5.18 on, or set datapath_enable_bbr_hostns_only: true or %s" % off,
        )


def _software(node, options, dry_run):
    if node.get("systemd") != "yes":
        yield (
            "systemd does not run as the system manager",
            "The executor cannot be kept running",
            "Boot the node with systemd",
        )
    version = tuple(int(part) for part in node.get("python", "").split(".")[:2] if part.isdigit())
    if version and version < _PYTHON:
        yield (
            "python3 is %s" % node["python"],
            "The executor needs 3.9 or newer",
            "Use a distribution release that has it",
        )
    for name, have, package in (("python3", version, "python3"), ("libbpf.so.1", node.get("libbpf"), "libbpf1")):
        if have:
            continue
        if not node.get("package_manager"):
            yield (
                "%s is missing" % name,
                "The executor cannot run, and this node has no package manager that the role knows",
                "Install it (Debian: package %s)" % package,
            )
        elif dry_run:
            yield (
                "%s is missing" % name,
                "A dry run installs nothing, and cannot plan without it",
                "Install it (Debian: package %s) or run without --check" % package,
            )


def _mounts(node, options, dry_run):
    if "/sys/fs/bpf" not in mounted(node, "bpf") and node.get("bpffs_directory") != "yes":
        yield ("/sys/fs/bpf does not exist", "bpffs cannot be mounted, so pins have no place", "Mount sysfs at /sys")
    if not mounted(node, "cgroup2"):
        yield (
            "no cgroup2 is mounted",
            "Programs cannot be attached to cgroups",
            "Boot with systemd.unified_cgroup_hierarchy=1 or mount -t cgroup2 none /sys/fs/cgroup/unified",
        )


def _devices(node, options, dry_run):
    names = [device["name"] for device in node["device"]]
    wanted = list(options.get("devices") or ())
    if options.get("direct-routing-device"):
        wanted.append(options["direct-routing-device"])
    for device in wanted:
        if not any(_matches(name, device) for name in names):
            yield (
                "device %s does not exist" % device,
                "Programs have nothing to attach to there",
                "Devices of this node: %s" % ", ".join(name for name in names if name != "lo"),
            )


def _matches(name, pattern):
    """Cilium's wildcard: `eth+` is every device whose name begins with eth."""
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _ports(node, options, dry_run):
    snat = options.get("datapath-snat-port-range")
    if not snat or not node.get("local_ports"):
        return
    first, last = (int(port) for port in (snat if isinstance(snat, (list, tuple)) else str(snat).split("-")))
    low, high = (int(port) for port in node["local_ports"].split())
    if first <= high and low <= last:
        yield (
            "net.ipv4.ip_local_port_range (%d to %d) overlaps the ports for source NAT (%d to %d)"
            % (low, high, first, last),
            "The node's own connections to backends would be taken for clients' replies",
            "Set datapath_snat_port_range to ports outside, or the sysctl to %d %d"
            % (last + 1, high if high > last else 65535),
        )
