#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest, after guest.sh: `tracing.sh HEADERS COMMAND...` puts the kernel's headers, unpacked in HEADERS,
# where their packages would have installed them, mounts what tracing needs, and runs COMMAND.
set -eu

headers=$1
shift
release=$(uname -r)

ln -sfn "$headers"/usr/src/linux-headers-* /usr/src/
ln -sfn "$headers"/usr/lib/linux-kbuild-* /usr/lib/
for name in build source; do
    cp -P "$headers/lib/modules/$release/$name" "/lib/modules/$release/"
done
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
modprobe -a sch_netem nf_tables
exec "$@"
