# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.ebpf.datapath.plugins.module_utils import executor, lb_options_spec
from ansible_collections.ebpf.datapath.plugins.plugin_utils import collection, dsr, node, variables


def check_inventory(document, names, foreign=()):
    """All that is wrong with the inventory, a line each; when nothing is, effective options and backends with DSR."""
    parameters = lb_options_spec.VARIABLES
    known = collection.known_variables() | set(parameters.values())
    unknown = variables.unknown(collection.plain(names), known, set(collection.plain(foreign)))
    try:
        answer = collection.check(collection.plain(document), unknown, collection.parser_path())
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    lines = [variables.refuse(name, known, answer["later"]) for name in unknown]
    lines += [
        executor.describe(dict(error, path=variables.behind(error["path"], parameters))) for error in answer["errors"]
    ]
    return {
        "errors": lines,
        "effective": answer.get("effective", {}),
        "balances": answer.get("balances", False),
        "dsr": answer.get("dsr", {}),
    }


def parse_probe(text):
    """The probe's output as facts."""
    return node.parse(collection.plain(text))


def node_violations(facts, options, dry_run=False, balances=True):
    """Why this node cannot do what is asked, a line each."""
    return node.violations(collection.plain(facts), collection.plain(options), bool(dry_run), bool(balances))


def path_findings(facts, document, options):
    """What to expect of the devices ("devices"), and what is wrong with ways to backends ("refusals", "warnings")."""
    ways = node.ways(collection.plain(facts), collection.plain(options))
    try:
        answer = collection.check(collection.plain(document), [], collection.parser_path(), ways)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    return {name: answer.get(name, []) for name in ("devices", "refusals", "warnings")}


def unmanaged_backends(services, hosts, hostvars, probes=()):
    """Backends of direct server return that are no nodes of the group `hosts`, a line each."""
    asked = {str(each["item"]): each for each in probes}
    seen = {name: node.parse(collection.plain(each.get("stdout", ""))) for name, each in asked.items()}
    known = {str(host): dsr.addresses(hostvars[host], seen.get(str(host))) for host in hosts}
    unseen = [name for name, each in asked.items() if each.get("unreachable")]
    return dsr.unmanaged(collection.plain(services), known, unseen)


class FilterModule:
    def filters(self):
        return {
            "check_inventory": check_inventory,
            "parse_probe": parse_probe,
            "node_violations": node_violations,
            "path_findings": path_findings,
            "unmanaged_backends": unmanaged_backends,
        }
