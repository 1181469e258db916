#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: lb_options
short_description: Set the options of the XDP load balancer
version_added: 0.1.0
description:
  - States the whole set of load-balancer options of a node. An option that is not given returns to its default.
  - Every option has an effect or is refused, with the nearest valid name. All violations are told at once.
extends_documentation_fragment:
  - ebpf.datapath.lb_options
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  values:
    description:
      - The module's own options as one dictionary, for callers that build it, such as the role
        R(ebpf.datapath.datapath, ansible_collections.ebpf.datapath.datapath_role).
      - An option that is given both ways is taken from here.
    type: dict
    default: {}
  config:
    description:
      - Options by the key of the Cilium agent, such as C(bpf-lb-algorithm). Applied last.
      - Scalars in any spelling. V(true) and V("true") are the same.
    type: dict
    default: {}
seealso:
  - module: ebpf.datapath.service
  - module: ebpf.datapath.bandwidth_manager
"""

EXAMPLES = r"""
- name: Balance by Maglev, in native XDP on one device
  ebpf.datapath.lb_options:
    algorithm: maglev
    acceleration: native
    devices: [eth0]

- name: The same by Cilium's own keys
  ebpf.datapath.lb_options:
    config:
      bpf-lb-algorithm: maglev
      bpf-lb-acceleration: native
      devices: eth0

- name: Return every option to its default
  ebpf.datapath.lb_options:
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
      target: map services_v1
      key: 192.0.2.10:80/TCP
      before:
      after: web
      summary: create frontend 192.0.2.10:80/TCP of service web
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
    slots_moved:
      web/TCP: 0.31
    flows_affected:
      web/TCP: 12
    notes: []
map_writes:
  description: Number of map updates and deletions that the kernel was asked for.
  returned: success
  type: int
  sample: 3
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
    - document: services
      path: services.items[0].frontends[0].port
      value: 70000
      message: not a port
      allowed: 1 to 65535
      nearest:
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor
from ansible_collections.ebpf.datapath.plugins.module_utils.lb_options_spec import ARGUMENT_SPEC


def document(params):
    """The section `options` of the desired state."""
    values = executor.given(params, ARGUMENT_SPEC)
    values.update(params["values"])
    return {"options": {"values": values, "config": params["config"]}}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            values={"type": "dict", "default": {}},
            config={"type": "dict", "default": {}},
            **ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
