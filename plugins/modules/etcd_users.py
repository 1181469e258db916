#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_users
short_description: Say who may do what in an etcd
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Brings users and roles to what is listed, and turns authentication on. A user is the common name of a client
    certificate, and has no password.
  - Other users and roles stay, unless O(purge) names them. User and role C(root) always exist.
  - Runs C(etcdctl), on a machine that has it.
extends_documentation_fragment:
  - ebpf.datapath.executor.attributes
attributes:
  diff_mode:
    description: Users with their roles, and roles with what they permit.
    support: full
options:
  endpoints:
    description: URLs of the members.
    type: list
    elements: str
    required: true
  ca:
    description: File with the certificates of CAs that a member's certificate may be of.
    type: path
    required: true
  certificate:
    description: Certificate of C(root).
    type: path
    required: true
  key:
    description: Its key.
    type: path
    required: true
  roles:
    description: The roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role.
        type: str
        required: true
      permissions:
        description: All that it permits.
        type: list
        elements: dict
        required: true
        suboptions:
          key:
            description: A key, or what keys begin with.
            type: str
            required: true
          prefix:
            description: Whether it is what keys begin with.
            type: bool
            default: false
          access:
            description: What is permitted.
            type: str
            choices: [read, write, readwrite]
            default: read
  users:
    description: The users.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The common name of a certificate.
        type: str
        required: true
      roles:
        description: All the roles that the user has.
        type: list
        elements: str
        required: true
  purge:
    description: Patterns, as C(remote-*); users who match one and are not in O(users) are removed.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Cluster paris may read what berlin publishes
  ebpf.datapath.etcd_users:
    endpoints: [https://192.0.2.21:2379]
    ca: /etc/datapath/etcd/ca.pem
    certificate: /etc/datapath/etcd/root.pem
    key: /etc/datapath/etcd/root.key
    roles:
      - name: remote
        permissions:
          - {key: cilium/state/, prefix: true}
    users:
      - {name: remote-paris, roles: [remote]}
    purge: [remote-*]
"""

RETURN = r"""
commands:
  description: What was done, or in check mode would be done, as words of C(etcdctl).
  returned: success
  type: list
  elements: list
  sample:
    - [user, add, remote-paris, --no-password]
    - [user, grant-role, remote-paris, remote]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import etcdctl


def _arguments():
    permission = {
        "key": {"type": "str", "required": True, "no_log": False},
        "prefix": {"type": "bool", "default": False},
        "access": {"type": "str", "choices": ["read", "write", "readwrite"], "default": "read"},
    }
    role = {
        "name": {"type": "str", "required": True},
        "permissions": {"type": "list", "elements": "dict", "required": True, "options": permission},
    }
    user = {
        "name": {"type": "str", "required": True},
        "roles": {"type": "list", "elements": "str", "required": True},
    }
    return {
        "endpoints": {"type": "list", "elements": "str", "required": True},
        "ca": {"type": "path", "required": True},
        "certificate": {"type": "path", "required": True},
        # The name of a file, no secret.
        "key": {"type": "path", "required": True, "no_log": False},
        "roles": {"type": "list", "elements": "dict", "default": [], "options": role},
        "users": {"type": "list", "elements": "dict", "default": [], "options": user},
        "purge": {"type": "list", "elements": "str", "default": []},
    }


def _wanted(params):
    users = {each["name"]: sorted(each["roles"]) for each in params["users"]}
    users["root"] = ["root"]
    roles = {
        role["name"]: {etcdctl.span(each["key"], each["prefix"]): each["access"] for each in role["permissions"]}
        for role in params["roles"]
    }
    return users, roles


def main():
    module = AnsibleModule(argument_spec=_arguments(), supports_check_mode=True)
    store = etcdctl.Etcdctl(module)
    users, roles = _wanted(module.params)
    try:
        have = etcdctl.read(store)
        commands = etcdctl.plan(users, roles, have, module.params["purge"])
        if not module.check_mode:
            for words in commands:
                store.run(*words)
    except etcdctl.EtcdctlError as error:
        module.fail_json(msg=str(error))
    result = {"changed": bool(commands), "commands": commands}
    if module._diff:
        gone = {words[2] for words in commands if words[:2] == ["user", "delete"]}
        kept = {name: found for name, found in have[0].items() if name not in gone}
        result["diff"] = {
            "before": "".join(etcdctl.lines(*have)),
            "after": "".join(etcdctl.lines({**kept, **users}, {**have[1], **roles}, True)),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
