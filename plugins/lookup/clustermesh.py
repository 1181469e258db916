# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
name: clustermesh
short_description: The clusters of the inventory, and what connecting them takes
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Every host of group C(etcd) is a member of the store of the cluster that its C(cilium_cluster_name) names.
  - Of what a host needs it tells the part that is for the host whose variables are looked up.
options:
  _terms:
    description: Nothing.
"""

EXAMPLES = r"""
- name: Show which clusters this one follows
  ebpf.datapath.clustermesh_peer:
    peers: "{{ lookup('ebpf.datapath.clustermesh').section.items }}"
"""

RETURN = r"""
_raw:
  description: One dictionary.
  type: list
  elements: dict
  contains:
    section:
      description: Section C(clustermesh) of the host's desired state, null where its cluster takes no part in a mesh.
      type: dict
    files:
      description: Certificates and keys of the node, as module M(ebpf.datapath.certificate_files) takes them.
      type: list
    sources:
      description: The files on the control node that they are.
      type: list
    peers:
      description: Names of the clusters that the node follows.
      type: list
    store:
      description: C(members) of the store of the host's cluster, C(files) and C(sources) for the host as a member,
        C(access) of users.
      type: dict
    certificates:
      description: What all clusters' CAs issue.
      type: list
    clusters:
      description: Names of the clusters that have a store.
      type: list
    directory:
      description: Where the control node keeps CAs and certificates.
      type: str
    view:
      description: What is compared between the clusters before they are connected.
      type: dict
    targets:
      description: The endpoints that the host has to reach.
      type: list
    present:
      description: Whether the cluster is connected to others.
      type: bool
"""

from ansible.plugins.lookup import LookupBase

from ansible_collections.ebpf.datapath.plugins.plugin_utils import mesh
from ansible_collections.ebpf.datapath.plugins.plugin_utils.inventory import Inventory


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        inventory = Inventory(variables or {}, self._templar)
        own, found, section = mesh.of_inventory(inventory)
        cluster = found.get(own.get("cilium_cluster_name"))
        answer = {
            "section": section,
            **mesh.without_sources(mesh.node_files(own, found)),
            "peers": [each["name"] for each in section["items"]] if section else [],
            "store": self._store(inventory.host, cluster, found),
            "certificates": [mesh.certificates(each, found) for each in found.values()],
            "clusters": sorted(found),
            "directory": mesh.pki_directory(own),
            "view": mesh.view(inventory.host, own, inventory.is_in("etcd"), any(map(inventory.is_in, mesh.NODES))),
            "targets": mesh.targets(inventory.host, own, found),
            "present": mesh.present(own),
        }
        return [answer]

    def _store(self, host, cluster, found):
        if cluster is None:
            return None
        return {
            "members": cluster["members"],
            "initial_cluster": ",".join("%s=%s" % (each["host"], each["peer"]) for each in cluster["members"]),
            **mesh.without_sources(mesh.member_files(host, cluster)),
            "access": mesh.access(cluster, found),
        }
