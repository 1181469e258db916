#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: clustermesh_peer
short_description: Manage the other clusters that a node follows
version_added: 0.1.0
description:
  - A peer is another cluster, whose store the node follows. What that cluster shares serves global services of this
    one.
  - Manages one peer by its own options, or several by O(peers). The others stay as they are, unless O(purge) is true.
  - A peer that is removed is drained at once.
  - The executor on the node checks the values. All violations are told at once and nothing is changed then. Whether the
    store can be reached is no part of that; C(datapath clustermesh status --wait) on the node tells it.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  name:
    description: The cluster's own name for itself.
    type: str
  state:
    description: V(present) replaces the peer as a whole, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  endpoints:
    description: URLs of its store, as V(https://192.0.2.31:2379).
    type: list
    elements: str
  ca:
    description: File on the node with the CA of the store's certificates.
    type: path
  certificate:
    description: File on the node with a certificate that may read the store; its common name is the user.
    type: path
  key:
    description: File on the node with the certificate's key, which nobody else may read.
    type: path
  peers:
    description: Several peers, each a dictionary of O(name), O(state), O(endpoints), O(ca), O(certificate) and O(key).
    type: list
    elements: dict
  purge:
    description: Remove the peers that O(peers) does not list.
    type: bool
seealso:
  - module: ebpf.datapath.clustermesh
  - module: ebpf.datapath.desired_state
"""

EXAMPLES = r"""
- name: Follow cluster paris
  ebpf.datapath.clustermesh_peer:
    name: paris
    endpoints: [https://192.0.2.31:2379, https://192.0.2.32:2379, https://192.0.2.33:2379]
    ca: /etc/datapath/clustermesh/paris/ca.pem
    certificate: /etc/datapath/clustermesh/paris/remote.pem
    key: /etc/datapath/clustermesh/paris/remote.key

- name: Let go of it
  ebpf.datapath.clustermesh_peer:
    name: paris
    state: absent
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
      key: paris
      before:
      after: '{"endpoints": ["https://192.0.2.31:2379"], "name": "paris"}'
      summary: create clustermesh paris
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
    - document: clustermesh
      path: clustermesh.items[0].name
      value: Paris
      message: must consist of lower case alphanumeric characters and '-', and start and end with such a character
      allowed: 1 to 32 of a-z, 0-9 and -, neither first nor last a -
      nearest: paris
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor

_PEER = ("name", "state", "endpoints", "ca", "certificate", "key")


def document(params):
    """The peers in section `clustermesh` of the desired state."""
    return {"clustermesh": executor.section(params, "peers", _PEER)}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            name={"type": "str"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            endpoints={"type": "list", "elements": "str"},
            ca={"type": "path"},
            certificate={"type": "path"},
            # The name of a file, no secret.
            key={"type": "path", "no_log": False},
            peers={"type": "list", "elements": "dict"},
            purge={"type": "bool"},
        ),
        mutually_exclusive=[["peers", key] for key in _PEER if key != "state"],
        required_one_of=[["name", "peers"]],
        required_by={"purge": ["peers"]},
        supports_check_mode=True,
    )
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
