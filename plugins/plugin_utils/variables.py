# SPDX-License-Identifier: Apache-2.0
"""Names of inventory variables: the unknown ones, and the variable behind a place in the desired state."""

from __future__ import annotations

import difflib
import re

OURS = re.compile(r"(?:cilium|datapath)_")


def unknown(names, known, foreign=()):
    """Those of `names` that look like ours, are not, and are not told to belong to something else."""
    return sorted(name for name in set(names) if OURS.match(name) and name not in known and name not in foreign)


def refuse(name, known, later):
    """One line: why `name` has no effect, or the nearest name that has one.

    `later` tells of names that are no typos and have no effect in this version.
    """
    if name in later:
        return "variable %s: %s" % (name, later[name])
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    hint = " (did you mean %s?)" % nearest[0] if nearest else ""
    return "variable %s: there is no such variable, it would have no effect%s" % (name, hint)


def behind(path, parameters):
    """The inventory's own name for a path of the desired state: `options.values.mode` is cilium_loadbalancer_mode."""
    section, dot, rest = path.partition(".")
    if section == "options":
        kind, dot, name = rest.partition(".")
        if kind == "config":
            return "cilium_config_extra_vars" + dot + name
        parameter = re.match(r"\w*", name).group()
        return parameters[parameter] + name[len(parameter) :] if parameter in parameters else path
    if section in ("services", "endpoints") and rest.startswith("items"):
        return "datapath_" + section + rest[len("items") :]
    if section == "services" and rest.startswith("manifests"):
        return "datapath_service_manifests" + rest[len("manifests") :]
    return path
