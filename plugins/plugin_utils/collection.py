# SPDX-License-Identifier: Apache-2.0
"""What the control node reads of the collection itself: the roles' variables, and the executor's own parser."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The executor's specification is the only parser of desired state. Here it runs on the control node, from the checkout
# or from the artefact that travels to the nodes, in a process of its own: this one keeps its modules.
_CHECK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from datapath.compile import wants_load_balancer
from datapath.compile.drivers import outlook
from datapath.compile.path_mtu import Way, dsr_backends, judge
from datapath.sources.merge import merge as merge_health
from datapath.spec.later import LATER
from datapath.spec.document import merge
from datapath.spec.scalars import parse_address
from datapath.spec.errors import SpecErrors
from datapath.spec.options import effective
from datapath.state.model import DesiredState
asked = json.load(sys.stdin)
try:
    state = merge(DesiredState(), asked["document"])
except SpecErrors as refused:
    answer = {"errors": [error.as_dict() for error in refused.errors]}
else:
    options = effective(state.options)
    dsr = {name: list(map(str, found)) for name, found in dsr_backends(state.services, options).items()}
    answer = {"errors": [], "effective": dict(options), "dsr": dsr}
    answer["balances"] = wants_load_balancer(merge_health(state, {}))
    ways = {parse_address(address): Way(*way) for address, way in asked["ways"]["routes"].items()}
    receiving = [Way(*each) for each in asked["ways"]["receiving"].items()]
    found = judge(state.services, options, ways, receiving)
    answer["refusals"], answer["warnings"] = found.refusals, found.warnings
    answer["devices"] = [outlook(name, *device) for name, device in asked["ways"]["devices"].items()]
answer["later"] = {name: LATER[name] for name in asked["variables"] if name in LATER}
json.dump(answer, sys.stdout, default=str)
"""


@functools.lru_cache(maxsize=None)
def known_variables():
    """Names of all inventory variables: the options in the argument specification of every role."""
    names = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry_point in specs.values():
            names.update(entry_point.get("options") or {})
    return frozenset(names)


def parser_path():
    """Where the executor's package can be imported from: a checkout's sources, else the artefact."""
    candidates = [ROOT / "executor" / "datapath" / "spec", *sorted(ROOT.glob("roles/executor/files/datapath-*.pyz"))]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise ValueError("the collection is incomplete: no executor in roles/executor/files")
    return str(found if found.suffix else found.parents[1])


def check(document, variables, path, ways=None):
    """Have the executor's package at `path` parse `document` and look up names of `variables`.

    `ways` are what a node's routes and devices let through (`node.ways`).

    Returns {"errors": [...], "later": {name: why it is not implemented}} and, without errors, "effective": {key:
    value}, "balances", whether that takes a load balancer, "dsr": {service with direct server return: addresses of its
    backends}, "refusals" and "warnings", what is wrong with the ways, and "devices", what to expect of each.
    """
    ways = ways or {"routes": {}, "receiving": {}, "devices": {}}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CHECK, path],
        input=json.dumps({"document": document, "variables": variables, "ways": ways}),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise ValueError("the executor's parser failed: %s" % done.stderr.strip())
    return json.loads(done.stdout)


def plain(value):
    """`value` as plain dictionaries, lists and scalars, every template in it resolved."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)
