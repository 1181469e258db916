#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint
short_description: Manage endpoints of a node
version_added: 0.1.0
description:
  - An endpoint is the host itself, or what is behind one of its devices (a container's veth, a virtual machine's
    tap), with a name, labels and addresses.
  - Manages one endpoint by its own options, or several by O(endpoints). The others stay as they are, unless O(purge)
    is true.
  - An endpoint whose device is not there is kept as pending. C(datapath endpoint list) and C(datapath status) on the
    node tell which ones are.
  - The executor on the node checks the values. All violations are told at once and nothing is changed then.
extends_documentation_fragment:
  - ebpf.datapath.executor
  - ebpf.datapath.executor.apply
  - ebpf.datapath.executor.attributes
  - ebpf.datapath.executor.diff
options:
  name:
    description: Name of the endpoint, letters, digits and C(. _ -) between them. That of the O(manifest) unless given.
    type: str
  state:
    description: V(present) replaces the endpoint as a whole, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  manifest:
    description:
      - The manifest of a Pod, as C(podman kube play) takes it, as a dictionary.
      - What counts are C(metadata.name), C(metadata.labels), and of C(metadata.annotations)
        C(kubernetes.io/egress-bandwidth), C(kubernetes.io/ingress-bandwidth) and C(bandwidth.cilium.io/priority).
        They stand for O(egress_bandwidth), O(ingress_bandwidth) and O(priority).
      - O(name) and O(labels) go before those of the manifest. Rates and priority that are given both ways must be the
        same.
      - An annotation that looks like one about bandwidth and is not known is refused, as it would have no effect.
    type: dict
  interface:
    description: The device on the host's side. No two endpoints have the same one.
    type: str
  interfaces:
    description:
      - A pattern of device names, such as V(ve-*). Each device that it matches is an endpoint C(NAME/DEVICE) of its
        own, unless another endpoint has it as O(interface).
      - A device that comes later is an endpoint as well.
    type: str
  host:
    description: Whether this is the host itself, which is one endpoint at most.
    type: bool
  labels:
    description: Labels and their values, by the rules of Kubernetes.
    type: dict
  addresses:
    description: IP addresses of the endpoint; not with O(interfaces). No two endpoints have the same.
    type: list
    elements: str
  egress_bandwidth:
    description:
      - Bits a second that the endpoint may send, of whole frames, in a quantity of Kubernetes such as V(50M) or V(1Gi).
      - With O(interfaces), each endpoint that is found has this rate.
      - This, O(ingress_bandwidth) and O(priority) need option C(enable-bandwidth-manager), see module
        M(ebpf.datapath.bandwidth_manager).
    type: raw
  ingress_bandwidth:
    description: Bits a second that it may receive, with bursts of 100 ms (at least 128 KiB); what is more is dropped.
      Not with O(host).
    type: raw
  priority:
    description: Priority of the packets that it sends, V(guaranteed), V(burstable), V(besteffort), or 1 to 15.
    type: raw
  endpoints:
    description: Several endpoints, each a dictionary of O(name), O(state), O(manifest), O(interface), O(interfaces),
      O(host), O(labels), O(addresses), O(egress_bandwidth), O(ingress_bandwidth) and O(priority).
    type: list
    elements: dict
  purge:
    description: Remove the endpoints that O(endpoints) does not list.
    type: bool
seealso:
  - module: ebpf.datapath.bandwidth_manager
  - module: ebpf.datapath.desired_state
"""

EXAMPLES = r"""
- name: The container db
  ebpf.datapath.endpoint:
    name: db
    interface: ve-db
    labels: {app: db, tier: backend}
    addresses: [10.0.2.11]

- name: The same, which sends at most 50 Mbit/s
  ebpf.datapath.endpoint:
    name: db
    interface: ve-db
    egress_bandwidth: 50M

- name: A Pod that podman runs, with name, labels and rates of its manifest
  ebpf.datapath.endpoint:
    interface: veth0
    manifest: "{{ lookup('ansible.builtin.file', 'web.yml') | from_yaml }}"

- name: The host, and every container that systemd-nspawn starts
  ebpf.datapath.endpoint:
    endpoints:
      - name: host
        host: true
      - name: containers
        interfaces: ve-*
    purge: true

- name: Remove an endpoint
  ebpf.datapath.endpoint:
    name: db
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
      target: endpoint
      key: db
      before:
      after: '{"interface": "ve-db", "name": "db"}'
      summary: create endpoint db
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
    - document: endpoints
      path: endpoints.items[0].interface
      value: lo
      message: there is nothing behind lo but the host itself
      allowed: 'another device, or host: true'
      nearest:
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import executor

_PLACES = ("interface", "interfaces", "host")
_RATES = ("egress_bandwidth", "ingress_bandwidth", "priority")
_ENDPOINT = ("name", "state", "manifest", *_PLACES, "labels", "addresses", *_RATES)


def document(params):
    """The section `endpoints` of the desired state."""
    return {"endpoints": executor.section(params, "endpoints", _ENDPOINT)}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            executor.apply_arguments(),
            name={"type": "str"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            manifest={"type": "dict"},
            interface={"type": "str"},
            interfaces={"type": "str"},
            host={"type": "bool"},
            labels={"type": "dict"},
            addresses={"type": "list", "elements": "str"},
            egress_bandwidth={"type": "raw"},
            ingress_bandwidth={"type": "raw"},
            priority={"type": "raw"},
            endpoints={"type": "list", "elements": "dict"},
            purge={"type": "bool"},
        ),
        mutually_exclusive=[_PLACES, *(["endpoints", key] for key in _ENDPOINT if key != "state")],
        required_one_of=[["name", "manifest", "endpoints"]],
        required_by={"purge": ["endpoints"]},
        supports_check_mode=True,
    )
    executor.apply(module, document(module.params))


if __name__ == "__main__":
    main()
