# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.ebpf.datapath.plugins.module_utils import executor, lb_options_spec
from ansible_collections.ebpf.datapath.plugins.plugin_utils import collection, node, variables


def check_inventory(document, names, foreign=()):
    """All that is wrong with the inventory, a line each, and the effective options when nothing is."""
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
    return {"errors": lines, "effective": answer.get("effective", {})}


def parse_probe(text):
    """The probe's output as facts."""
    return node.parse(collection.plain(text))


def node_violations(facts, options, dry_run=False):
    """Why this node cannot do what is asked, a line each."""
    return node.violations(collection.plain(facts), collection.plain(options), bool(dry_run))


class FilterModule:
    def filters(self):
        return {
            "check_inventory": check_inventory,
            "parse_probe": parse_probe,
            "node_violations": node_violations,
        }
