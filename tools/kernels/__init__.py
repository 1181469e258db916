"""Debian's kernels under QEMU, with this machine's own userspace, and the product's tests in them."""
