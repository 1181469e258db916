#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: bandwidth_manager
short_description: Set the options of the bandwidth manager
version_added: 0.1.0
description:
  - The bandwidth manager holds endpoints to their rates, which module M(ebpf.datapath.endpoint) sets.
  - An option that is not given stays as it is, and so do all other options of the node.
  - While an endpoint has a rate, the manager cannot be taken away; all such endpoints are told. Module
    M(ebpf.datapath.desired_state) changes both in one step. Nor can it be disabled alone while other options need it;
    V(absent) of O(state) returns all of them to their defaults.
  - A kernel without qdisc fq is refused, and nothing is changed then. All violations are told at once.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  state:
    description: V(present) sets the options that are given. V(absent) returns O(enabled), O(bbr), O(bbr_hostns_only)
      and O(host_legacy_routing) to their defaults, which takes programs, qdiscs and sysctls of the manager away.
      O(devices) stays as it is.
    type: str
    choices: [present, absent]
    default: present
  enabled:
    description: Whether endpoints have rates. Cilium's key is C(enable-bandwidth-manager).
    type: bool
  bbr:
    description: Whether TCP uses BBR. Cilium's key is C(enable-bbr).
    type: bool
  bbr_hostns_only:
    description: Whether BBR is for the host's own connections alone. Cilium's key is C(enable-bbr-hostns-only).
    type: bool
  host_legacy_routing:
    description: Whether the host's network stack routes what endpoints send. Cilium's key is
      C(enable-host-legacy-routing).
    type: bool
  devices:
    description:
      - Devices that endpoints send by, C(eth+) is every device whose name starts with C(eth). An empty list means
        those of the default routes.
      - A load balancer on the same node has the same ones. Cilium's key is C(devices).
    type: list
    elements: str
seealso:
  - module: ebpf.datapath.endpoint
  - module: ebpf.datapath.desired_state
"""

EXAMPLES = r"""
- name: Hold endpoints to their rates where they leave by eth0
  ebpf.datapath.bandwidth_manager:
    enabled: true
    devices: [eth0]
  register: manager

- name: The container db sends at most 50 Mbit/s
  ebpf.datapath.endpoint:
    name: db
    interface: ve-db
    egress_bandwidth: 50M
    pending: "{{ manager.document }}"

- name: Take it away, once no endpoint has a rate
  ebpf.datapath.bandwidth_manager:
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
    - action: set
      target: sysctl net.core.somaxconn
      key:
      before: "128"
      after: "4096"
      summary: "set sysctl net.core.somaxconn: 128 -> 4096"
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
      path: options.values.enable_bandwidth_manager
      value: true
      message: the kernel has no qdisc fq (feature sch_fq)
      allowed: a kernel with CONFIG_NET_SCH_FQ, or false
      nearest:
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor

_OWN = {
    "enabled": "enable_bandwidth_manager",
    "bbr": "enable_bbr",
    "bbr_hostns_only": "enable_bbr_hostns_only",
    "host_legacy_routing": "enable_host_legacy_routing",
}
"""Parameter -> the option's name in documents."""
_OPTIONS = dict(_OWN, devices="devices")


def document(params):
    """The section `options` of the desired state, with these options alone."""
    if params["state"] == "absent":
        values = dict.fromkeys(_OWN.values())
    else:
        values = {_OPTIONS[name]: value for name, value in executor.given(params, _OPTIONS).items()}
    return {"options": {"merge": True, "values": values}}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            devices={"type": "list", "elements": "str"},
            **{name: {"type": "bool"} for name in _OWN},
        ),
        required_if=[("state", "present", tuple(_OPTIONS), True)],
        supports_check_mode=True,
    )
    executor.refuse_with_absent(module, _OPTIONS)
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
