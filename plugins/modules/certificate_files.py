#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_files
short_description: Install certificates and keys as one change
version_added: 0.1.0
author:
  - The ebpf.datapath authors (!UNKNOWN)
description:
  - Writes files beside those that are there, and puts all of them in place at once. Whoever reads a certificate and its
    key meanwhile gets either the former pair or the new one, but for the microseconds between two renames.
  - A key is never readable by anybody but its owner, not even while it is written.
extends_documentation_fragment:
  - ebpf.datapath.executor.attributes
attributes:
  diff_mode:
    description: Digests of certificates, owners and modes. Contents are never shown.
    support: full
options:
  files:
    description: The files. Directories that are missing are made, for everybody to read.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it belongs.
        type: path
        required: true
      mode:
        description: Its mode, in octal digits.
        type: str
        default: "0600"
      owner:
        description: Its owner.
        type: str
        default: root
  contents:
    description: What each file holds, in the order of O(files).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: What a node needs to read the store of another cluster
  ebpf.datapath.certificate_files:
    files:
      - {path: /etc/datapath/clustermesh/paris/remote.key}
      - {path: /etc/datapath/clustermesh/paris/remote.pem, mode: "0644"}
    contents: "{{ query('ansible.builtin.file', 'remote-berlin.key', 'remote-berlin.pem', rstrip=false) }}"
"""

RETURN = r"""
paths:
  description: The files that were written, or in check mode would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/datapath/clustermesh/paris/remote.pem]
"""

import hashlib
import os
import pathlib
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.datapath.plugins.module_utils import staging


class _File:
    """A file as it is, and as it has to be."""

    def __init__(self, wanted, content):
        self.path = pathlib.Path(wanted["path"])
        self.owner = wanted["owner"]
        self.mode = int(wanted["mode"], 8)
        self.content = content.encode()
        self.partial = staging.beside(self.path)

    def line(self, content, owner, mode):
        """What may be shown of it."""
        digest = hashlib.sha256(content).hexdigest()[:16] if b"PRIVATE KEY" not in content else "key"
        return "%s: %s, %s, %04o\n" % (self.path, digest, owner, mode)

    def before(self):
        """What is there now, as a tuple of content, owner and mode; None where there is nothing."""
        try:
            with self.path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                content = stream.read()
        except FileNotFoundError:
            return None
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = str(found.st_uid)
        return content, owner, stat.S_IMODE(found.st_mode)

    def after(self):
        """What has to be there."""
        return self.content, self.owner, self.mode

    def stage(self):
        """Write it beside its place."""
        user = pwd.getpwnam(self.owner)
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)

        def adopt(descriptor):
            os.fchown(descriptor, user.pw_uid, user.pw_gid)
            os.fchmod(descriptor, self.mode)

        staging.stage(self.path, self.content, adopt)


def _install(files):
    """All of them are written before the first one is in its place. Raises OSError, KeyError (no such user)."""
    try:
        for each in files:
            each.stage()
        for each in files:
            each.partial.rename(each.path)
    finally:
        for each in files:
            each.partial.unlink(missing_ok=True)


def main():
    row = {
        "path": {"type": "path", "required": True},
        "mode": {"type": "str", "default": "0600"},
        "owner": {"type": "str", "default": "root"},
    }
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": row},
            "contents": {"type": "list", "elements": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    wanted, contents = module.params["files"], module.params["contents"]
    if len(wanted) != len(contents):
        module.fail_json(msg="%d files have %d contents" % (len(wanted), len(contents)))
    try:
        files = [_File(*each) for each in zip(wanted, contents)]
        changed = [(each, each.before()) for each in files]
        changed = [(each, before) for each, before in changed if before != each.after()]
        if not module.check_mode:
            _install([each for each, before in changed])
    except (OSError, KeyError, ValueError) as error:
        module.fail_json(msg="certificates and keys are as they were: %s" % error)
    result = {"paths": [str(each.path) for each, before in changed]}
    if module._diff:
        result["diff"] = {
            "before": "".join(each.line(*before) for each, before in changed if before),
            "after": "".join(each.line(*each.after()) for each, before in changed),
        }
    module.exit_json(changed=bool(changed), **result)


if __name__ == "__main__":
    main()
