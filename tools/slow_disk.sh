#!/bin/sh
# A disk of so many megabytes a second, for a command that names it {}: sh tools/slow_disk.sh 50 edge-bench log --folder {}
# An ext4 of 8 GB in a file, as a loop device past the page cache of the disk below. The kernel's own throttle
# (cgroup v1, blkio) limits what is written to the device, by whomever: write-back and fsync too. Needs root.
set -eu
RATE=$1
shift
LIMIT=/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device
[ -w "$LIMIT" ] || { echo "slow_disk: needs root, and $LIMIT (cgroup v1)" >&2; exit 2; }
WORK=$(mktemp -d "${TMPDIR:-/tmp}/slow-disk-XXXXXX")
DEVICE=
end() {
  umount "$WORK/disk" 2>/dev/null || true
  [ -z "$DEVICE" ] || { echo "$NUMBER 0" > "$LIMIT"; losetup --detach "$DEVICE"; }
  rm -rf "$WORK"
}
trap end EXIT
truncate -s 8G "$WORK/image"
DEVICE=$(losetup --find --show --direct-io=on "$WORK/image")
NUMBER=$(cat "/sys/block/${DEVICE#/dev/}/dev")
mkfs.ext4 -q -E lazy_itable_init=0,nodiscard "$DEVICE"
echo "$NUMBER $((RATE * 1000000))" > "$LIMIT"
mkdir "$WORK/disk"
mount "$DEVICE" "$WORK/disk"
for word; do
  shift
  [ "$word" = "{}" ] && word=$WORK/disk
  set -- "$@" "$word"
done
"$@"
