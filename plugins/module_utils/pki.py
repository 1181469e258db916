# SPDX-License-Identifier: Apache-2.0
"""The mesh's CAs and certificates, as files of one directory.

Everything is computed in memory first: a dry run is the same without the writing.
"""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
import re

from ansible_collections.ebpf.datapath.plugins.module_utils.staging import stage

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    IMPORT_ERROR = None
except ImportError as error:
    IMPORT_ERROR = error

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)
_SKEW = datetime.timedelta(hours=1)
"""Certificates begin that much earlier: clocks differ."""
_DAY = datetime.timedelta(days=1)

PHASES = ("join", "reissue", "leave")
"""Of a change of the CA: the new one joins every bundle, all certificates become its own, the old one leaves."""


class PkiError(Exception):
    """Files that cannot be used as they are."""


class Files:
    """The files below `root`, with changes that are not written yet."""

    def __init__(self, root):
        self._root = pathlib.Path(root)
        self.changes = {}
        """Relative name -> content, None where the file goes."""

    def read(self, name):
        """Content, or None where there is no such file."""
        return self.changes[name] if name in self.changes else self.before(name)

    def write(self, name, content):
        """Have the file hold that; None takes it away."""
        if self.before(name) == content:
            self.changes.pop(name, None)
        else:
            self.changes[name] = content

    def before(self, name):
        """Content on the disk, or None where there is no such file."""
        path = self._root / name
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise PkiError("%s: %s" % (path, error.strerror)) from error

    def names(self, directory):
        """Names of the files in a directory, as they are now."""
        path = self._root / directory
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []

    def path(self, name):
        """For messages."""
        return str(self._root / name)

    def flush(self):
        """Write what has changed. Each file is whole at all times, and nobody else may ever read one."""
        for name, content in self.changes.items():
            path = self._root / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            stage(path, content).rename(path)


class Authority:
    """A CA: its certificate, and its key."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key

    @property
    def pem(self):
        """The certificate as text."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_id(self):
        """What certificates of this CA name their issuer by."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            found = x509.SubjectKeyIdentifier.from_public_key(self.certificate.public_key())
        return found.digest

    def has_issued(self, certificate):
        """Whether a certificate is of this CA."""
        try:
            found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        except x509.ExtensionNotFound:
            return False
        return certificate.issuer == self.certificate.subject and found.value.key_identifier == self.key_id

    def sign(self, builder):
        """The certificate that `builder` describes."""
        plain = isinstance(self.key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
        return builder.sign(self.key, None if plain else hashes.SHA256())


def read_authority(certificate, key, where):
    """A CA from its two files, whose contents these are; `where` is for messages. Raises PkiError."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise PkiError("%s: there is no certificate in it that can be read" % where) from error
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise PkiError("the key of %s: no key that can be read without a passphrase" % where) from error
    if _public(private.public_key()) != _public(found.public_key()):
        raise PkiError("the key of %s: not that of the certificate" % where)
    try:
        is_ca = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise PkiError("%s: not the certificate of a CA (basicConstraints CA:TRUE)" % where)
    return Authority(found, private)


def create_authority(name, days, now):
    """A new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs of one cluster, while one follows the other, must not have the same name.
    serial = x509.random_serial_number()
    subject = _subject("datapath cluster mesh %s %08x" % (name, serial & 0xFFFFFFFF))
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), serial)
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + days * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=False, certify=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    made = Authority(None, key)
    made.certificate = made.sign(builder.add_extension(identifier, critical=False))
    return made


def issue(authority, wanted, days, now):
    """A certificate and its new key, for what `wanted` tells: common_name, hosts, usages."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(wanted["common_name"])
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(authority.certificate.subject, subject, key.public_key(), serial)
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(_last(authority, days, now))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign=True, certify=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(_purposes(wanted)), critical=False)
    identifier = x509.AuthorityKeyIdentifier(authority.key_id, None, None)
    builder = builder.add_extension(identifier, critical=False)
    names = [_host(each) for each in wanted.get("hosts") or ()]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return authority.sign(builder), key


def _subject(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(sign, certify):
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(wanted):
    known = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    return [known[each] for each in wanted["usages"]]


def _host(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _last(authority, days, now):
    """A certificate does not outlive its CA."""
    return min(now.replace(microsecond=0) + days * _DAY, until(authority.certificate))


def until(certificate):
    """The end of its validity, in UTC."""
    utc = getattr(certificate, "not_valid_after_utc", None)
    return utc or certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _public(key):
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key):
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def split(text):
    """The certificates in a PEM file, one text each."""
    return [each.strip() + b"\n" for each in _PEM.findall(text)]


def describe(certificate):
    """What people want to know of a certificate; nothing in it is secret."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "common_name": str(names[0].value) if names else "",
        "serial": "%x" % certificate.serial_number,
        "not_after": until(certificate).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def belong(certificate, key):
    """Whether a certificate and a key, both as texts, are a pair."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return False
    return _public(found.public_key()) == _public(private.public_key())


def signed(certificate, authority):
    """Whether a certificate has the signature of that CA."""
    key = authority.public_key()
    data = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(*data, ec.ECDSA(certificate.signature_hash_algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(*data, padding.PKCS1v15(), certificate.signature_hash_algorithm)
        else:
            key.verify(*data)
    except (InvalidSignature, TypeError):
        return False
    return certificate.issuer == authority.subject


def why_anew(wanted, certificate, key, authority):
    """Why a certificate cannot be used, so that another one has to be issued; None where it can."""
    if certificate is None or key is None:
        return "is not there"
    if not belong(certificate, key):
        return "has another key, or cannot be read"
    found = x509.load_pem_x509_certificate(certificate)
    reasons = (
        ("is of another CA", not authority.has_issued(found)),
        ("has another common name", describe(found)["common_name"] != wanted["common_name"]),
        ("has other names", _names(found) != {_host(each) for each in wanted.get("hosts") or ()}),
        ("is for another use", _uses(found) != set(_purposes(wanted))),
    )
    return next((reason for reason, holds in reasons if holds), None)


def _names(certificate):
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _uses(certificate):
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


class Pki:
    """The CAs and certificates of all clusters; `request` holds the parameters of module clustermesh_certificates."""

    def __init__(self, request, now=None):
        if IMPORT_ERROR is not None:
            raise PkiError("Python's package cryptography is needed on the control node: %s" % IMPORT_ERROR)
        self._request = request
        self._now = now or datetime.datetime.now(datetime.timezone.utc)
        self.files = Files(request["directory"])
        self.issued = []
        """What is new, with the reason."""
        self.warnings = []
        self._authorities = {}

    def bring(self):
        """Compute all that has to change (`files.changes`). Returns what every cluster has then."""
        found = [self._cluster(each) for each in self._request["clusters"]]
        return {"authorities": self._described(), "certificates": [row for rows in found for row in rows]}

    def diff(self):
        """What becomes of certificates, by their own words. To be asked before the changes are written."""
        names = sorted(name for name in self.files.changes if name.endswith(".pem"))
        before = [line for name in names for line in _lines(name, self.files.before(name))]
        return {
            "before": "".join(before),
            "after": "".join(line for name in names for line in _lines(name, self.files.changes[name])),
        }

    def _cluster(self, cluster):
        authority = self._authority(cluster)
        directory = cluster["name"] + "/"
        self.files.write(directory + "bundle.pem", self._bundle(cluster))
        rows = [self._certificate(directory, authority, each) for each in cluster["certificates"]]
        self._prune(cluster)
        return rows

    def _certificate(self, directory, authority, wanted):
        name = directory + wanted["name"]
        certificate, key = (self.files.read(name + suffix) for suffix in (".pem", ".key"))
        reason = why_anew(wanted, certificate, key, authority)
        found = None if reason else x509.load_pem_x509_certificate(certificate)
        reason = reason or self._ends(found, authority)
        if reason is None:
            return dict(describe(found), name=name)
        made, private = issue(authority, wanted, self._request["days"], self._now)
        self.files.write(name + ".key", _private_pem(private))
        self.files.write(name + ".pem", made.public_bytes(serialization.Encoding.PEM))
        row = dict(describe(made), name=name)
        self.issued.append(dict(row, reason=reason))
        return row

    def _ends(self, certificate, authority):
        """Why a good certificate has to be renewed. One that ends with its CA gains nothing by being issued again."""
        left = until(certificate) - self._now
        longer = _last(authority, self._request["days"], self._now) - until(certificate)
        if left >= self._request["renew_days"] * _DAY or longer <= _DAY:
            return None
        return "expires in %d days" % left.days if left > 0 * _DAY else "is expired"

    def _bundle(self, cluster):
        place = _place(cluster)
        texts = [self.files.read(place + name) for name in ("ca.pem", "ca.next.pem", "ca.old.pem")]
        for path in cluster.get("trusted") or ():
            content = read_given(path)
            if not split(content):
                raise PkiError("%s: there is no certificate in it" % path)
            texts.append(content)
        return b"".join(dict.fromkeys(each for text in texts if text for each in split(text)))

    def _prune(self, cluster):
        """What the cluster has no use for any more: keys are nowhere where they are not needed."""
        names = {each["name"] for each in cluster["certificates"]} | {"bundle", "ca", "ca.next", "ca.old"}
        for name in self.files.names(cluster["name"]):
            stem, kind = name.rsplit(".", 1) if "." in name else (name, "")
            if kind in ("pem", "key") and stem not in names:
                self.files.write("%s/%s" % (cluster["name"], name), None)

    def _authority(self, cluster):
        place = _place(cluster)
        if place not in self._authorities:
            self._authorities[place] = self._bring_authority(place, cluster)
        return self._authorities[place]

    def _bring_authority(self, place, cluster):
        given = self._brought(cluster)
        current = self._load(place, "ca")
        if current is None:
            current = given or create_authority(_owner(cluster), self._request["ca_days"], self._now)
            self._keep(place, "ca", current)
        phase = self._request.get("phase")
        if phase == "join":
            self._join(place, cluster, given, current)
        elif phase == "reissue" and self._load(place, "ca.next") is not None:
            self._keep(place, "ca.old", current)
            current = self._load(place, "ca.next")
            self._keep(place, "ca", current)
            self._keep(place, "ca.next", None)
        elif phase == "leave":
            if self._load(place, "ca.next") is not None:
                raise PkiError("%s: certificates are not of the new CA yet" % self.files.path(place + "ca.next.pem"))
            self._keep(place, "ca.old", None)
        self._judge(place, given, current)
        return current

    def _join(self, place, cluster, given, current):
        """Have a CA to change to, unless a change is under way, or the one that is brought is in use already."""
        others = [self.files.read(place + each) for each in ("ca.next.pem", "ca.old.pem")]
        if any(others) or (given is not None and given.pem == current.pem):
            return
        made = given or create_authority(_owner(cluster), self._request["ca_days"], self._now)
        self._keep(place, "ca.next", made)

    def _judge(self, place, given, current):
        following = self._load(place, "ca.next")
        if given is not None and given.pem not in (current.pem, following and following.pem):
            raise PkiError(
                "%s is another CA than the one that is brought (datapath_clustermesh_ca_certificate):"
                " playbooks/rotate_mesh_ca.yml changes it, without a connection less"
                % self.files.path(place + "ca.pem")
            )
        left = (until(current.certificate) - self._now).days
        if left < 0:
            text = "%s is expired, nobody trusts it any more: remove it and its key, and run playbooks/mesh.yml"
            raise PkiError(text % self.files.path(place + "ca.pem"))
        if left < self._request["renew_days"] and following is None:
            text = "the CA %s expires in %d days: playbooks/rotate_mesh_ca.yml changes it"
            self.warnings.append(text % (self.files.path(place + "ca.pem"), left))

    def _brought(self, cluster):
        certificate, key = cluster.get("ca_certificate"), cluster.get("ca_key")
        if not certificate and not key:
            return None
        if not certificate or not key:
            raise PkiError("cluster %s: a CA that is brought has a certificate and a key" % cluster["name"])
        return read_authority(read_given(certificate), read_given(key), certificate)

    def _load(self, place, name):
        """The CA in these files; None where there is none."""
        certificate, key = self.files.read("%s%s.pem" % (place, name)), self.files.read("%s%s.key" % (place, name))
        if certificate is None and key is None:
            return None
        where = self.files.path("%s%s.pem" % (place, name))
        if certificate is None or key is None:
            raise PkiError("%s: certificate or key is missing. Put it back: another CA is trusted by nobody" % where)
        return read_authority(certificate, key, where)

    def _keep(self, place, name, authority):
        """The key of a CA that leaves is of no use any more."""
        certificate = None if authority is None else authority.pem
        key = None if authority is None or name == "ca.old" else _private_pem(authority.key)
        for suffix, content in ((".pem", certificate), (".key", key)):
            self.files.write(place + name + suffix, content)

    def _described(self):
        rows = []
        for place in self._authorities:
            for name in ("ca", "ca.next", "ca.old"):
                content = self.files.read("%s%s.pem" % (place, name))
                if content is not None:
                    found = describe(x509.load_pem_x509_certificate(content))
                    rows.append(dict(found, name=place + name))
        return rows


def _lines(name, content):
    for text in split(content or b""):
        try:
            row = describe(x509.load_pem_x509_certificate(text))
        except ValueError:
            yield "%s: cannot be read\n" % name
            continue
        yield "%s: %s, serial %s, until %s\n" % (name, row["common_name"], row["serial"], row["not_after"])


def _place(cluster):
    """Where the cluster's CA is: in its own directory, or above those of all clusters."""
    return "" if cluster["authority"] == "shared" else cluster["name"] + "/"


def _owner(cluster):
    return "of all clusters" if cluster["authority"] == "shared" else cluster["name"]


def read_given(path):
    """A file of the user's. Raises PkiError."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise PkiError("%s: %s" % (path, (error.strerror or str(error)).lower())) from error
