#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: clustermesh
short_description: Say which cluster a node is of, and where it publishes
version_added: 0.1.0
description:
  - Sets the options that a cluster is told apart from others by, and its own store, an etcd, where the node publishes
    what others may use. Module M(ebpf.datapath.clustermesh_peer) sets which other clusters the node follows.
  - An option that is not given stays as it is, and so do all other options of the node and its peers.
  - The executor on the node checks the values. All violations are told at once and nothing is changed then.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  state:
    description: V(present) sets what is given. V(absent) ends publishing, and returns the options of the mesh to their
      defaults, which takes that no peer is left.
    type: str
    choices: [present, absent]
    default: present
  cluster_name:
    description: This cluster's name, 1 to 32 of C(a-z), C(0-9) and C(-). Cilium's key is C(cluster-name).
    type: str
  cluster_id:
    description: This cluster's id, which no other one has. Cilium's key is C(cluster-id).
    type: int
  max_connected_clusters:
    description: How many clusters the mesh may have, the same in all of them. Cilium's key is
      C(max-connected-clusters).
    type: int
  cache_ttl:
    description: How long what a cluster has published is used while its store cannot be reached, such as V(10m); 0 is
      for ever. Cilium's key is C(clustermesh-cache-ttl).
    type: raw
  lease_ttl:
    description: How long what this node has published outlives it. Cilium's key is C(kvstore-lease-ttl).
    type: raw
  networks:
    description: Networks whose addresses only this cluster has.
    type: list
    elements: str
  store:
    description: This cluster's own store. V({}) ends publishing, and withdraws what this node has published.
    type: dict
    suboptions:
      endpoints:
        description: URLs of its members, as V(https://192.0.2.21:2379).
        type: list
        elements: str
      ca:
        description: File on the node with the CA of their certificates.
        type: path
      certificate:
        description: File on the node with a certificate that may write; its common name is the user.
        type: path
      key:
        description: File on the node with the certificate's key.
        type: path
      publisher:
        description: Whether the node may be the one that publishes the cluster's services.
        type: bool
      node:
        description: What is published of the node, a dictionary of C(name), C(addresses) and C(pod_cidrs).
        type: dict
seealso:
  - module: ebpf.datapath.clustermesh_peer
  - module: ebpf.datapath.desired_state
"""

EXAMPLES = r"""
- name: A node of cluster berlin
  ebpf.datapath.clustermesh:
    cluster_name: berlin
    cluster_id: 1
    networks: [10.1.0.0/16]
    store:
      endpoints: [https://192.0.2.21:2379]
      ca: /etc/datapath/clustermesh/ca.pem
      certificate: /etc/datapath/clustermesh/agent.pem
      key: /etc/datapath/clustermesh/agent.key
      publisher: true
      node:
        addresses: [192.0.2.11]

- name: It publishes no more
  ebpf.datapath.clustermesh:
    store: {}
"""

RETURN = r"""
changed:
  description: Whether the node was changed, or in check mode would be.
  returned: always
  type: bool
  sample: true
document:
  description: The desired state that was handed to the executor. Give it as O(pending) to a later task of the same
    dry run.
  returned: success
  type: dict
operations:
  description: What was done, or in check mode would be done, in order. At most 1000, RV(operation_count) counts all.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: One of V(create), V(update), V(delete), V(attach), V(replace), V(detach), V(set).
      type: str
    target:
      description: What it is done to.
      type: str
    key:
      description: Which one, where the target holds many.
      type: str
    before:
      description: Value before.
      type: raw
    after:
      description: Value after.
      type: raw
    summary:
      description: The operation in one line.
      type: str
  sample:
    - action: create
      target: clustermesh
      key: store
      before:
      after: '{"endpoints": ["https://192.0.2.21:2379"]}'
      summary: create clustermesh store
operation_count:
  description: Number of operations.
  returned: success
  type: int
  sample: 1
disruption:
  description: What the change means for traffic. C(slots_moved) is the share of Maglev slots of each service that
    lead to another backend,
    C(flows_affected) the number of established flows that lose theirs.
  returned: success
  type: dict
  sample:
    slots_moved: {}
    flows_affected: {}
    notes: []
map_writes:
  description: Number of map updates and deletions that the kernel was asked for.
  returned: success
  type: int
  sample: 0
errors:
  description: Every violation, when the executor or the kernel refused.
  returned: failure
  type: list
  elements: dict
  contains:
    document:
      description: Section of the desired state, or V(kernel).
      type: str
    path:
      description: Where in the document.
      type: str
    value:
      description: The value that was refused.
      type: raw
    message:
      description: Why.
      type: str
    allowed:
      description: What is allowed there.
      type: str
    nearest:
      description: The nearest valid name or value.
      type: str
    log:
      description: The verifier's log, when the kernel refused a program.
      type: str
  sample:
    - document: options
      path: options.values.cluster_id
      value: 0
      message: 'ClusterID 0 is reserved: a cluster that publishes itself needs an id'
      allowed: cluster-id 1 to 255, and a cluster-name
      nearest:
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor

_OPTIONS = {
    "cluster_name": "cluster_name",
    "cluster_id": "cluster_id",
    "max_connected_clusters": "max_connected_clusters",
    "cache_ttl": "clustermesh_cache_ttl",
    "lease_ttl": "kvstore_lease_ttl",
    "networks": "cluster_networks",
}
"""Parameter -> the option's name in documents."""


def document(params):
    """The options alone, and the store alone: peers are not in it."""
    absent = params["state"] == "absent"
    values = dict.fromkeys(_OPTIONS.values()) if absent else {}
    if not absent:
        values = {_OPTIONS[name]: value for name, value in executor.given(params, _OPTIONS).items()}
    parts = {"options": {"merge": True, "values": values}} if values else {}
    if absent or params["store"] is not None:
        store = {key: value for key, value in (params["store"] or {}).items() if value is not None}
        parts["clustermesh"] = {"items": [], "purge": False, "store": store or None}
    return parts


def main():
    store = {
        "endpoints": {"type": "list", "elements": "str"},
        "ca": {"type": "path"},
        "certificate": {"type": "path"},
        # The name of a file, no secret.
        "key": {"type": "path", "no_log": False},
        "publisher": {"type": "bool"},
        "node": {"type": "dict"},
    }
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            cluster_name={"type": "str"},
            cluster_id={"type": "int"},
            max_connected_clusters={"type": "int"},
            cache_ttl={"type": "raw"},
            lease_ttl={"type": "raw"},
            networks={"type": "list", "elements": "str"},
            store={"type": "dict", "options": store},
        ),
        required_if=[("state", "present", (*_OPTIONS, "store"), True)],
        supports_check_mode=True,
    )
    executor.refuse_with_absent(module, (*_OPTIONS, "store"))
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
