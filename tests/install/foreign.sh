#!/usr/bin/env bash
# Runs a command in a root file system of another processor; its child processes run there too.
#
#   tests/install/foreign.sh ROOT CPU COMMAND...
#
# The kernel is told of qemu in a user namespace of its own (Linux 6.7 or later): nothing outside
# changes. /proc stays out: ONNX Runtime would read there of a processor that it does not run on.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  exec unshare --user --map-root-user --mount "$0" --inside "$@"
fi
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
elf='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":aarch64:M::$elf:$mask:$(command -v qemu-aarch64-static):F" \
  >/proc/sys/fs/binfmt_misc/register
root=$2
export QEMU_CPU=$3
shift 3
exec chroot "$root" "$@"
