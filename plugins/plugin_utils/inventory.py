# SPDX-License-Identifier: Apache-2.0
"""Variables of the inventory as plain data, for lookups."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.ebpf.datapath.plugins.plugin_utils.collection import plain


class Inventory:
    """What a lookup is given of a host's variables, and of those of other hosts."""

    def __init__(self, variables, templar):
        self._variables, self._templar = variables, templar
        self.host = str(variables.get("inventory_hostname", ""))

    def value(self, name, default=None):
        """The host's own variable; what is not set, or set to nothing (YAML's null), has the default."""
        if name not in self._variables:
            return default
        found = plain(self._templar.template(self._variables[name]))
        return default if found is None else found

    def own(self, names):
        """These variables of the host, where they are set."""
        found = {name: self.value(name) for name in names}
        return dict(_set(found), inventory_hostname=self.host)

    def path(self, name):
        """A file of the control node: a whole path, or one relative to the inventory."""
        return Path(str(self._variables.get("inventory_dir") or ""), name)

    def is_in(self, group):
        """Whether the host is in a group."""
        return self.host in self._members(group)

    def group(self, group, names):
        """These variables of all hosts of a group, {host: {name: value}}."""
        return {host: self._of(host, names) for host in self._members(group)}

    def _members(self, group):
        return [str(each) for each in (self._variables.get("groups") or {}).get(group, ())]

    def _of(self, host, names):
        # Looked up at the other host, so templates there see that host's variables.
        theirs = self._variables["hostvars"][host]
        found = {name: plain(theirs[name]) for name in names if name in theirs}
        return dict(_set(found), inventory_hostname=host)


def _set(found):
    return {name: value for name, value in found.items() if value is not None}
