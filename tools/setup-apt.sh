#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages that building, the lab and the tests use, and those given as arguments; only what is missing.
set -eu

packages="
bpftool ca-certificates clang curl debootstrap ethtool gcc git iproute2 iputils-ping libbpf-dev libbpf1 linux-libc-dev llvm make
openssh-client procps python3 python3-venv shellcheck systemd-container tcpdump tshark
$*
"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "setup: installing$missing"
if [ "$(id -u)" != 0 ]; then
    echo "setup: root is needed: apt-get install$missing" >&2
    exit 1
fi
install_missing() {
    # Another target, running beside this one, may be at it.
    set -- -qq -o DPkg::Lock::Timeout=300
    # shellcheck disable=SC2086 # one word a package
    apt-get "$@" update && DEBIAN_FRONTEND=noninteractive apt-get "$@" install -y --no-install-recommends $missing
}
install_missing || {
    echo "setup: apt-get failed; once more in 10 seconds, mirrors have bad moments" >&2
    sleep 10
    install_missing
}
