"""Cilium's annotations of a Service: those that say something here, and those that would have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.errors import RefusedError, nearest_name
from datapath.spec.fields import Violations
from datapath.state.model import Affinity, Algorithm, Mode

GLOBAL, SHARED, AFFINITY = (f"service.cilium.io/{each}" for each in ("global", "shared", "affinity"))
ALGORITHM, MODE, TYPE = (f"service.cilium.io/{each}" for each in ("lb-algorithm", "forwarding-mode", "type"))
ADDRESSES = "lbipam.cilium.io/ips"
WEIGHT = "service.cilium.io/weight"
"""Of an EndpointSlice."""
ALIASES: Mapping[str, str] = {
    GLOBAL: "io.cilium/global-service",
    SHARED: "io.cilium/shared-service",
    AFFINITY: "io.cilium/service-affinity",
    ADDRESSES: "io.cilium/lb-ipam-ips",
}
"""Annotation -> its older name, which counts where the annotation itself is not there."""
KNOWN = (GLOBAL, SHARED, AFFINITY, ALGORITHM, MODE, TYPE, ADDRESSES)
TYPES = ("ClusterIP", "LoadBalancer")
_OWN = ("service.cilium.io/", "lbipam.cilium.io/", "io.cilium/")
"""Nobody else's annotations begin like these, so one that is not known would be ignored by all."""
_NODES = "which nodes have a service is told by the inventory"
_WITHOUT_EFFECT: Mapping[str, str] = {
    "service.cilium.io/node": _NODES,
    "service.cilium.io/node-selector": _NODES,
    "service.cilium.io/global-sync-endpoint-slices": "there is no Kubernetes to write EndpointSlices to",
    "service.cilium.io/src-ranges-policy": "not implemented in this version: source ranges",
    "service.cilium.io/proxy-delegation": "not implemented in this version: proxies",
    "service.cilium.io/lb-l7": "not implemented in this version: layer 7",
}


class Annotations:
    """The annotations of one object; what is wrong is noted when they are opened or read."""

    def __init__(self, violations: Violations, path: str, raw: Any, known: tuple[str, ...] = KNOWN) -> None:
        self.violations, self.path = violations, path
        self._said: Mapping[Any, Any] = raw if isinstance(raw, Mapping) else {}
        if raw is not None and not isinstance(raw, Mapping):
            violations.add(path, raw, "not a mapping", "a mapping of annotations to values")
        names = (*known, *(ALIASES[each] for each in known if each in ALIASES))
        for key, value in self._said.items():
            if key not in names and isinstance(key, str) and key.startswith(_OWN):
                message = _WITHOUT_EFFECT.get(key, "unknown annotation")
                violations.add(self.at(key), value, message, ", ".join(names), nearest_name(key, names))

    def at(self, name: str) -> str:
        """Path of the annotation."""
        return f"{self.path}.{name}"

    def find(self, name: str) -> Optional[tuple[str, str]]:
        """Path and text of an annotation, or of its older name; None where neither is there."""
        for key in (name, ALIASES.get(name)):
            if key is not None and key in self._said:
                value = self._said[key]
                # YAML's true without quotes, which Kubernetes itself would refuse.
                return self.at(key), str(value).lower() if isinstance(value, bool) else str(value or "")
        return None

    def true(self, name: str, default: bool) -> bool:
        """As Cilium reads it: everything but true, in any case, is false."""
        found = self.find(name)
        return default if found is None else found[1].lower() == "true"

    @property
    def affinity(self) -> Affinity:
        """Whose backends of a global service are used."""
        path, text = self.find(AFFINITY) or ("", "")
        try:
            return Affinity(text.lower() or Affinity.NONE.value)
        except ValueError:
            allowed = ", ".join(each.value for each in Affinity)
            message = f'unrecognized service affinity value: "{text}"'
            self.violations.add(path, text, message, allowed, nearest_name(text, allowed.split(", ")))
            return Affinity.NONE

    @property
    def algorithm(self) -> Optional[Algorithm]:
        """None follows option `bpf-lb-algorithm`."""
        word = self._choice(ALGORITHM, tuple(each.name.lower() for each in Algorithm))
        return None if word is None else Algorithm[word.upper()]

    @property
    def mode(self) -> Optional[Mode]:
        """None follows option `bpf-lb-mode`."""
        word = self._choice(MODE, tuple(each.value for each in Mode))
        return None if word is None else Mode(word)

    @property
    def only_type(self) -> Optional[str]:
        """The only kind of address that the service is to have; None has all that it is of."""
        return self._choice(TYPE, TYPES)

    @property
    def weight(self) -> Optional[int]:
        """Weight of all backends of an EndpointSlice; 0 is maintenance."""
        found = self.find(WEIGHT)
        return None if found is None else self.violations.parse(*found, lambda raw: scalars.parse_int(raw, 0, 65535))

    def addresses(self) -> list[tuple[str, str]]:
        """Path and text of the addresses that the service is to have."""
        path, text = self.find(ADDRESSES) or ("", "")
        return [(path, each.strip()) for each in text.split(",") if each.strip()]

    def _choice(self, name: str, choices: tuple[str, ...]) -> Optional[str]:
        found = self.find(name)
        return None if found is None else self.violations.parse(*found, lambda raw: _word(raw, choices))


def _word(raw: str, choices: tuple[str, ...]) -> str:
    if raw not in choices:
        raise RefusedError("unknown value", ", ".join(choices), nearest_name(raw, choices))
    return raw
