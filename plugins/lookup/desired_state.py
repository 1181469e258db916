# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
name: desired_state
short_description: The desired state that the inventory's variables ask for
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Collects the variables of a host into the document that the executor takes. Only what the inventory sets is in it.
  - Elements of C(datapath_service_manifests) that are text are files of manifests on the control node, as a whole path
    or relative to the inventory. Of a file with several documents, they are the items of a C(List).
options:
  _terms:
    description: Sections to return, of V(options), V(services), V(endpoints) and V(clustermesh). Without, all that the
      inventory asks for.
"""

EXAMPLES = r"""
- name: Show what the inventory asks of this host
  ansible.builtin.debug:
    msg: "{{ lookup('ebpf.datapath.desired_state') }}"
"""

RETURN = r"""
_raw:
  description: The document.
  type: list
  elements: dict
"""

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.ebpf.datapath.plugins.module_utils.lb_options_spec import VARIABLES
from ansible_collections.ebpf.datapath.plugins.plugin_utils import mesh
from ansible_collections.ebpf.datapath.plugins.plugin_utils.inventory import Inventory

_SECTIONS = ("options", "services", "endpoints", "clustermesh")


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        self._inventory = Inventory(variables or {}, self._templar)
        sections = terms or _SECTIONS
        for section in sections:
            if section not in _SECTIONS:
                raise AnsibleError("no section %s in the desired state, there are %s" % (section, ", ".join(_SECTIONS)))
        document = {section: getattr(self, "_collect_" + section)() for section in sections}
        return [{section: content for section, content in document.items() if content is not None}]

    def _collect_options(self):
        values = {parameter: self._inventory.value(variable) for parameter, variable in VARIABLES.items()}
        return {
            "values": {parameter: value for parameter, value in values.items() if value is not None},
            "config": self._inventory.value("cilium_config_extra_vars", {}),
        }

    def _collect_services(self):
        section = self._items("datapath_services")
        manifests = self._inventory.value("datapath_service_manifests")
        if manifests is None:
            return section
        if not isinstance(manifests, list):
            # The executor says what is wrong with it.
            read = manifests
        else:
            read = [self._manifest(each) if isinstance(each, str) else each for each in manifests]
        return dict(section or {"purge": self._inventory.value("datapath_services_purge", True)}, manifests=read)

    def _manifest(self, name):
        """What a file of manifests holds."""
        path = self._inventory.path(name)
        try:
            text = path.read_text(encoding="utf-8")
            documents = [each for each in yaml.safe_load_all(text) if each is not None]
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise AnsibleError("datapath_service_manifests: %s: %s" % (path, error)) from error
        return documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}

    def _collect_endpoints(self):
        return self._items("datapath_endpoints")

    def _collect_clustermesh(self):
        # Most inventories have one cluster without a name; nobody else's variables are looked at there.
        if self._inventory.value("cilium_cluster_name") is None:
            return None
        return mesh.of_inventory(self._inventory)[2]

    def _items(self, variable):
        """A section of items that a variable lists, all of them unless its `_purge` is false."""
        items = self._inventory.value(variable)
        return None if items is None else {"items": items, "purge": self._inventory.value(variable + "_purge", True)}
