# SPDX-License-Identifier: Apache-2.0
"""Users and roles of an etcd, by its own command."""

from __future__ import annotations

import base64
import fnmatch
import json

_KINDS = ("read", "write", "readwrite")
"""By etcd's number of a permission's type."""


class EtcdctlError(Exception):
    """The command failed; the message is what it said."""


class Etcdctl:
    """Runs `etcdctl` as the owner of a certificate; of `module` it uses params and run_command."""

    def __init__(self, module):
        params = module.params
        self._module = module
        self._command = [
            "etcdctl", "--endpoints", ",".join(params["endpoints"]), "--cacert", params["ca"],
            "--cert", params["certificate"], "--key", params["key"], "--command-timeout", "10s",
        ]  # fmt: skip

    def run(self, *words, check=True):
        """Standard output; with `check` a failure raises EtcdctlError, and without it the answer is None."""
        code, out, err = self._module.run_command(
            self._command + list(words), environ_update={"ETCDCTL_API": "3"}, handle_exceptions=True
        )
        if code == 0:
            return out
        if check:
            raise EtcdctlError("etcdctl %s: %s" % (" ".join(words), _reason(err) or out.strip()))
        return None

    def document(self, *words):
        """The answer as JSON."""
        return json.loads(self.run(*words, "--write-out", "json"))


def _reason(err):
    """What etcdctl says at last; before it come its own logs."""
    lines = [line for line in err.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        return json.loads(lines[-1])["error"]
    except (ValueError, KeyError, TypeError):
        return lines[-1]


def span(key, prefix):
    """The keys that a permission is for, as etcd tells them: first, and end (exclusive; "" is that key alone)."""
    first = key.encode()
    if not prefix:
        return first, b""
    stripped = first.rstrip(b"\xff")
    return first, stripped[:-1] + bytes([stripped[-1] + 1])


def read(etcdctl):
    """Users {name: roles}, roles {name: {(first, end): kind}}, and whether authentication is on."""
    users = {
        name: sorted(etcdctl.document("user", "get", name).get("roles") or ())
        for name in etcdctl.document("user", "list").get("users") or ()
    }
    roles = {}
    for name in etcdctl.document("role", "list").get("roles") or ():
        # Role root may do all, and has no list of it.
        permissions = [] if name == "root" else etcdctl.document("role", "get", name).get("perm") or ()
        roles[name] = {
            (_decode(each.get("key")), _decode(each.get("range_end"))): _KINDS[each.get("permType", 0)]
            for each in permissions
        }
    return users, roles, authenticates(etcdctl)


def _decode(text):
    return base64.b64decode(text or "")


def authenticates(etcdctl):
    """Whether authentication is on. etcd 3.4 cannot be asked: a user without a password is refused one only then."""
    return etcdctl.run("--user", "root:-", "user", "list", check=False) is None


def plan(users, roles, have, purge):
    """Commands that bring what is there to `users` and `roles`, in an order that never gives anybody more than both.

    `users` is {name: roles}, `roles` {name: {(first, end): kind}}; users who match a pattern of `purge` and are not
    wanted are removed.
    """
    had_users, had_roles, authenticating = have
    commands = []
    for name in sorted(roles):
        commands += _role(name, roles[name], had_roles.get(name))
    for name in sorted(users):
        commands += _user(name, users[name], had_users.get(name))
    for name in sorted(set(had_users) - set(users) - {"root"}):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in purge):
            commands.append(["user", "delete", name])
    return commands + ([] if authenticating else [["auth", "enable"]])


def _role(name, wanted, had):
    if name == "root":
        return
    if had is None:
        yield ["role", "add", name]
    for first, end in sorted(had or ()):
        if (first, end) not in wanted:
            yield ["role", "revoke-permission", name, *_words(first, end)]
    for (first, end), kind in sorted(wanted.items()):
        if (had or {}).get((first, end)) != kind:
            yield ["role", "grant-permission", name, kind, *_words(first, end)]


def _words(first, end):
    return [each.decode("utf-8", "surrogateescape") for each in (first, end) if each]


def _user(name, wanted, had):
    if had is None:
        yield ["user", "add", name, "--no-password"]
    for role in sorted(set(had or ()) - set(wanted)):
        yield ["user", "revoke-role", name, role]
    for role in sorted(set(wanted) - set(had or ())):
        yield ["user", "grant-role", name, role]


def lines(users, roles, authenticating):
    """Who may do what, for the difference."""
    yield "authentication: %s\n" % ("on" if authenticating else "off")
    for name in sorted(roles):
        for (first, end), kind in sorted(roles[name].items()):
            where = "..".join(_words(first, end))
            yield "role %s: %s %s\n" % (name, kind, where)
    for name in sorted(users):
        yield "user %s: %s\n" % (name, ", ".join(users[name]) or "no role")
