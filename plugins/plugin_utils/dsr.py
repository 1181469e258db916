# SPDX-License-Identifier: Apache-2.0
"""Whether the backends of direct server return are nodes of this inventory."""

from __future__ import annotations

import ipaddress

_GATHERED = ("ansible_all_ipv4_addresses", "ansible_all_ipv6_addresses")
_BY_INVENTORY = ("ansible_host", "inventory_hostname")


def addresses(variables, probe=None):
    """Every address that a host is known to have: as role preflight saw it, as facts tell, as the inventory names it.

    `probe` is the probe's answer where it was asked on its own.
    """
    found = set((variables.get("preflight_node") or {}).get("address", ())) | set((probe or {}).get("address", ()))
    for name in _GATHERED:
        found.update(variables.get(name) or ())
    found.update(str(variables.get(name, "")) for name in _BY_INVENTORY)
    return {_canonical(each) for each in found} - {None}


def unmanaged(services, hosts, unseen=()):
    """A line for each backend address that none of the hosts has.

    `services` is {service: addresses of its backends}, `hosts` {host: its addresses}; `unseen` are hosts that could not
    be asked.
    """
    owned = set().union(*hosts.values()) if hosts else set()
    return [
        _line(service, address, hosts, unseen)
        for service in sorted(services)
        for address in services[service]
        if _canonical(address) not in owned
    ]


def _line(service, address, hosts, unseen):
    looked = "it is no address of %s" % ", ".join(sorted(hosts)) if hosts else "the group is empty"
    if unseen:
        looked += " (not asked, because unreachable: %s)" % ", ".join(sorted(unseen))
    return (
        "service %s: backend %s is not a node of group dsr_backend_node: %s. Nothing there would unpack its packets and"
        " answer clients as the service. Add its host to the group; or set datapath_dsr_unmanaged_backends: true where"
        " somebody else sees to that." % (service, address, looked)
    )


def _canonical(text):
    try:
        return str(ipaddress.ip_address(str(text).partition("%")[0]))
    except ValueError:
        return None
