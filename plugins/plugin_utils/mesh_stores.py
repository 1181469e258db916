# SPDX-License-Identifier: Apache-2.0
"""Certificates of stores, as nodes of the mesh see them and as files have them."""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
from urllib.parse import urlsplit

from ansible_collections.ebpf.datapath.plugins.module_utils import pki


def skew(node):
    """Seconds that a host's clock is before the control node's, with the time that asking took; None where unknown."""
    words = node.get("clock", "").split()
    try:
        sent, seen = map(float, words)
    except ValueError:
        return None
    return seen - sent


def of_files(peer, now=None):
    """What is wrong with the files for a peer that this inventory does not manage."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    contents, problems = {}, []
    for field in ("ca", "certificate", "key"):
        path = peer.get(field)
        if not path:
            continue
        try:
            contents[field] = pki.read_given(path)
        except pki.PkiError as error:
            problems.append("%s: %s" % (field, error))
    for field in ("ca", "certificate"):
        if field in contents:
            problems += ["%s: %s: %s" % (field, peer[field], each) for each in _judge(contents[field], now)]
    if (
        "certificate" in contents
        and "key" in contents
        and not problems
        and not pki.belong(contents["certificate"], contents["key"])
    ):
        problems.append("key: %s is not the key of %s" % (peer["key"], peer["certificate"]))
    return problems


def _judge(content, now):
    found = pki.split(content)
    if not found:
        return ["there is no certificate in it"]
    try:
        certificates = [pki.x509.load_pem_x509_certificate(each) for each in found]
    except ValueError:
        return ["there is a certificate in it that cannot be read"]
    # Of several CAs some may be on their way out.
    if all(pki.until(each) < now for each in certificates):
        return ["expired on %s" % pki.describe(certificates[0])["not_after"]]
    return []


def judged(targets, answers, external, now=None):
    """The targets of a host with what was seen of them. Only certificates of stores of others are judged.

    Those of the inventory's own are issued anew where they are not good.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    rows = []
    for target, answer in zip(targets, answers):
        row = {**target, "problem": answer["problem"], "refused": answer["refused"]}
        if answer["certificate"]:
            certificate = pki.x509.load_pem_x509_certificate(answer["certificate"].encode())
            row.update(pki.describe(certificate))
            if target["cluster"] in external:
                row["problem"] = _of_server(certificate, target, external[target["cluster"]], now)
        rows.append(row)
    return rows


def _of_server(certificate, target, peer, now):
    told = "%s: its certificate (serial %s) " % (target["endpoint"], pki.describe(certificate)["serial"])
    if pki.until(certificate) < now:
        return told + "expired on %s" % pki.describe(certificate)["not_after"]
    if not _is_of(certificate, peer.get("ca")):
        return told + "is of no CA in %s" % peer.get("ca")
    host = urlsplit(target["endpoint"]).hostname or ""
    names = _names(certificate)
    if not _covers(names, host):
        return told + "is for %s, not for %s" % (", ".join(sorted(map(str, names))) or "nobody", host)
    return None


def _is_of(certificate, path):
    """Whether one of the CAs in a file has signed it. What is wrong with the file itself is told elsewhere."""
    try:
        content = pathlib.Path(path).read_bytes()
        authorities = [pki.x509.load_pem_x509_certificate(each) for each in pki.split(content)]
    except (OSError, ValueError, TypeError):
        return True
    return any(pki.signed(certificate, each) for each in authorities) if authorities else True


def _names(certificate):
    try:
        found = certificate.extensions.get_extension_for_class(pki.x509.SubjectAlternativeName).value
    except pki.x509.ExtensionNotFound:
        return set()
    return {each.value for each in found if isinstance(each, (pki.x509.DNSName, pki.x509.IPAddress))}


def _covers(names, host):
    try:
        return ipaddress.ip_address(host) in names
    except ValueError:
        wildcard = "*." + host.partition(".")[2]
        return host in names or wildcard in names


def lines(view):
    """What answered a host, a line each."""
    for row in view.get("stores") or ():
        if row.get("serial"):
            yield "%s: %s, %s: serial %s until %s" % (
                view["host"], row["cluster"], row["endpoint"], row["serial"], row["not_after"],
            )  # fmt: skip
