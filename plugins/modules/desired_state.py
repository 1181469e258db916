#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: desired_state
short_description: Bring a node to a whole document of desired state
version_added: 0.1.0
description:
  - Hands several sections of the desired state to the executor at once, as one change that is made whole or refused
    whole.
  - Needed where one section is only valid with the new state of another, such as services whose backends are of another
    address family with the dispatch that allows it.
  - A section that is not in the document is left as it is.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  document:
    description:
      - Sections by name. C(options) holds C(values) and C(config) as module M(ebpf.datapath.lb_options) takes them, and
        C(merge), with which options that it does not name stay as they are (and null is an option's default);
        C(services) and C(endpoints) hold C(items) and C(purge), which modules M(ebpf.datapath.service) and
        M(ebpf.datapath.endpoint) take as C(services) or C(endpoints), and C(purge).
      - Lookup P(ebpf.datapath.desired_state#lookup) makes it of the inventory's variables.
    type: dict
    required: true
seealso:
  - module: ebpf.datapath.lb_options
  - module: ebpf.datapath.service
  - module: ebpf.datapath.endpoint
  - plugin: ebpf.datapath.desired_state
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Bring the node to all that the inventory asks for
  ebpf.datapath.desired_state:
    document: "{{ lookup('ebpf.datapath.desired_state') }}"

- name: Change dispatch and services in one step
  ebpf.datapath.desired_state:
    document:
      options:
        config: {devices: eth0, bpf-lb-mode: dsr, bpf-lb-dsr-dispatch: ipip}
      services:
        purge: true
        items:
          - name: web
            frontends: ["192.0.2.10:80/TCP"]
            backends: ["[2001:db8:1::11]:80"]
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


def main():
    module = AnsibleModule(
        argument_spec=dict(executor.apply_arguments(), document={"type": "dict", "required": True}),
        supports_check_mode=True,
    )
    executor.apply(module, module.params["document"])


if __name__ == "__main__":
    main()
