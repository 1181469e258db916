#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest, as root: `guest.sh KERNEL RESULTS` runs the shell script RESULTS/command in the guest's working
# directory, in the host's root file system, with everything writable and nothing written to the host but RESULTS. KERNEL
# is the unpacked kernel's directory.
#
# The root that virtme-ng mounts is not cached by the guest, so each stat is a round trip to the host (6 to 20 ms under
# TCG). The same root is exported a second time for this script, which mounts it with a cache: Python starts 10 times
# sooner.
set -eu

kernel=$1 results=$2
here=$(pwd)
place=/run/kernels
new=$place/root

mkdir -p "$place/host" "$place/changes" "$new"
mount -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=131072,cache=loose cached "$place/host"
mount -t tmpfs tmpfs "$place/changes"
mkdir "$place/changes/upper" "$place/changes/work"
modprobe -d "$kernel" overlay
mount -t overlay -o "lowerdir=$place/host,upperdir=$place/changes/upper,workdir=$place/changes/work" overlay "$new"

for directory in proc sys dev; do
    mount --rbind "/$directory" "$new/$directory"
done
mount -t tmpfs tmpfs "$new/run"
mount -t bpf bpf "$new/sys/fs/bpf"
mkdir "$new/run/results" "$new/run/guest"
mount --bind "$results" "$new/run/results"
mkdir -p "$new/usr/lib/modules"
ln -sfn "$kernel/lib/modules/$(uname -r)" "$new/usr/lib/modules/$(uname -r)"

# For all processes, the first one and the kernel's helpers among them.
cd "$new"
pivot_root . run/guest
cd "$here"

# As a node that runs the datapath has them; what else there is, the kernel loads when it is asked for.
modprobe -a veth sch_ingress cls_bpf
exec sh /run/results/command
