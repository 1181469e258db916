#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: clustermesh_certificates
short_description: Keep the CAs and certificates of a cluster mesh
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Creates what is missing in a directory of the control node, and issues anew what is of another CA, has other names,
    or ends soon. Role P(ebpf.datapath.cluster_mesh#role) copies to the nodes what each of them needs.
  - The directory holds keys. It is made for its owner alone, and belongs into no repository.
  - Needs Python's package cryptography, which ansible-core brings along.
extends_documentation_fragment:
  - ebpf.datapath.executor.attributes
attributes:
  diff_mode:
    description: Serial numbers and ends of validity, never keys.
    support: full
options:
  directory:
    description: Where everything is kept. A shared CA is in it, all else in a directory for each cluster.
    type: path
    required: true
  clusters:
    description: The clusters, all of them in one call.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the cluster.
        type: str
        required: true
      authority:
        description: Whether the cluster has a CA of its own (V(cluster)), or that of all clusters that say V(shared).
        type: str
        choices: [cluster, shared]
        default: cluster
      ca_certificate:
        description: A CA that exists already, instead of one that is created.
        type: path
      ca_key:
        description: The key of O(clusters[].ca_certificate), without a passphrase.
        type: path
      trusted:
        description: Files with certificates of more CAs that C(bundle.pem) holds.
        type: list
        elements: path
        default: []
      certificates:
        description: What is issued. Other certificates in the cluster's directory are removed.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: Name of the files, without C(.pem) and C(.key).
            type: str
            required: true
          common_name:
            description: The name of its owner.
            type: str
            required: true
          hosts:
            description: Names and addresses that it may serve.
            type: list
            elements: str
            default: []
          usages:
            description: What it is for.
            type: list
            elements: str
            choices: [client, server]
            required: true
  days:
    description: How long certificates are valid.
    type: int
    default: 365
  renew_days:
    description: Certificates that end within this time are issued anew.
    type: int
    default: 60
  ca_days:
    description: How long a CA that is created is valid.
    type: int
    default: 3650
  phase:
    description:
      - A step of changing the CA, each of which has to be on all nodes before the next one.
      - V(join) makes a new CA, or takes the one of O(clusters[].ca_certificate), and adds it to C(bundle.pem). Does
        nothing when a change is under way.
      - V(reissue) makes it the one that issues, and issues all certificates anew.
      - V(leave) removes the former CA.
    type: str
    choices: [join, reissue, leave]
"""

EXAMPLES = r"""
- name: A CA, and what a store and a reader of it need
  ebpf.datapath.clustermesh_certificates:
    directory: "{{ inventory_dir }}/credentials/clustermesh"
    clusters:
      - name: berlin
        certificates:
          - {name: server-etcd1, common_name: etcd1, hosts: [192.0.2.21, etcd1], usages: [server, client]}
          - {name: remote-paris, common_name: remote-paris, usages: [client]}
  delegate_to: localhost
"""

RETURN = r"""
authorities:
  description: The CAs that bundles hold.
  returned: success
  type: list
  elements: dict
  sample:
    - name: berlin/ca
      common_name: datapath cluster mesh berlin 1b2c3d4e
      serial: 5f1c
      not_after: "2035-11-28T10:00:00Z"
certificates:
  description: All certificates.
  returned: success
  type: list
  elements: dict
  sample:
    - name: berlin/remote-paris
      common_name: remote-paris
      serial: 6a00
      not_after: "2026-11-30T10:00:00Z"
issued:
  description: Those that are new, with the reason.
  returned: success
  type: list
  elements: dict
  sample:
    - name: berlin/remote-paris
      common_name: remote-paris
      serial: 6a00
      not_after: "2026-11-30T10:00:00Z"
      reason: is not there
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import pki


def _arguments():
    certificate = {
        "name": {"type": "str", "required": True},
        "common_name": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "usages": {"type": "list", "elements": "str", "choices": ["client", "server"], "required": True},
    }
    cluster = {
        "name": {"type": "str", "required": True},
        "authority": {"type": "str", "choices": ["cluster", "shared"], "default": "cluster"},
        "ca_certificate": {"type": "path"},
        # The name of a file, no secret.
        "ca_key": {"type": "path", "no_log": False},
        "trusted": {"type": "list", "elements": "path", "default": []},
        "certificates": {"type": "list", "elements": "dict", "required": True, "options": certificate},
    }
    return {
        "directory": {"type": "path", "required": True},
        "clusters": {"type": "list", "elements": "dict", "required": True, "options": cluster},
        "days": {"type": "int", "default": 365},
        "renew_days": {"type": "int", "default": 60},
        "ca_days": {"type": "int", "default": 3650},
        "phase": {"type": "str", "choices": list(pki.PHASES)},
    }


def main():
    module = AnsibleModule(argument_spec=_arguments(), supports_check_mode=True)
    try:
        kept = pki.Pki(module.params)
        result = kept.bring()
        # Before the files are written, for it compares with them.
        if module._diff:
            result["diff"] = kept.diff()
        if not module.check_mode:
            kept.files.flush()
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    for warning in kept.warnings:
        module.warn(warning)
    module.exit_json(changed=bool(kept.files.changes), issued=kept.issued, **result)


if __name__ == "__main__":
    main()
