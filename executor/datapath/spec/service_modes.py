"""What a service's forwarding mode asks of it, given the options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec.fields import Violations
from datapath.spec.modes import mode_of, tunnels_in_ip
from datapath.spec.services import family_form, mixed_families
from datapath.state.model import Backend, Frontend, Mode

Frontends = Sequence[tuple[str, Frontend]]
Backends = Iterable[tuple[str, Backend]]
"""Each with its path."""


@dataclass(frozen=True)
class Checker:
    """Checks services one by one; what is wrong goes to `violations`."""

    violations: Violations
    options: Mapping[str, Any]
    """Effective."""

    def check(self, path: str, mode: Optional[Mode], frontends: Frontends, backends: Backends) -> None:
        """Note what stands against a service, whose item is at `path`."""
        if mode is not None and not self.options["bpf-lb-mode-annotation"]:
            self.violations.add(
                f"{path}.mode",
                mode.value,
                "services may choose their mode only with bpf-lb-mode-annotation: true",
                f"no mode of its own (bpf-lb-mode is {self.options['bpf-lb-mode']}), or that option",
            )
        if not frontends:
            return
        tunnelled = [each for _, each in frontends if self._in_ip(mode, each)]
        self._check_families(frontends, backends, crossing=len(tunnelled) == len(frontends))
        self._check_ports(tunnelled, backends)

    def _in_ip(self, mode: Optional[Mode], frontend: Frontend) -> bool:
        return tunnels_in_ip(self.options) and mode_of(mode, frontend.protocol, self.options) is Mode.DSR

    def _check_families(self, frontends: Frontends, backends: Backends, crossing: bool) -> None:
        """Only an outer header can be of another family than the packet."""
        first = frontends[0][1].address
        for path, backend in backends:
            if backend.address.version != first.version and not crossing:
                message = mixed_families(backend.address, first)
                message += "; only packets of direct server return in IP tunnels (bpf-lb-dsr-dispatch: ipip) can cross"
                self.violations.add(path, str(backend.address), message, family_form(first))

    def _check_ports(self, tunnelled: Sequence[Frontend], backends: Backends) -> None:
        """A packet in an IP tunnel arrives as the client sent it."""
        for path, backend in backends:
            for frontend in tunnelled:
                if frontend.port != backend.port:
                    self.violations.add(
                        path,
                        str(backend),
                        f"packets to {frontend} go to backends in IP tunnels as they are, so to port {frontend.port}:"
                        f" nothing rewrites it to {backend.port}",
                        f"port {frontend.port}, or bpf-lb-dsr-dispatch opt or geneve",
                    )
                    break
