#!/usr/bin/env bash
# Builds Dockerfile.edge with no daemon and no registry: the base is made of Debian's packages.
#
#   tests/install/image.sh FOLDER        # localhost/edge-agent, in FOLDER/store
#   tests/install/image.sh FOLDER fleet  # localhost/edge-fleet, of Dockerfile.fleet
#
# Wants a Debian 12 with root, buildah and mmdebstrap. apt and pip inside the build ask what they
# ask outside. Prints the storage driver.
set -euo pipefail
folder=$(realpath "$1")
case ${2:-edge} in
  edge) image=edge-agent ;;
  fleet) image=edge-fleet ;;
  *) echo "no image of that name: $2" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."

with() { buildah --root "$folder/store" --runroot "$folder/run" --storage-driver "$driver" "$@"; }

# What debian:bookworm-slim leaves out is left out here too.
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  bookworm "$folder/base.tar"
driver=overlay
base=$(with from scratch 2>/dev/null) || { driver=vfs; base=$(with from scratch); }
with add --quiet "$base" "$folder/base.tar" / >/dev/null
with commit --quiet --rm "$base" localhost/base >/dev/null
rm "$folder/base.tar"

{
  echo "[global]"
  echo "cert = /etc/host-certificates.crt"
  python3 -m pip config list | sed -n "s/^global\.\(index-url\|proxy\|trusted-host\)='\(.*\)'$/\1 = \2/p"
} >"$folder/pip.conf"
with build --isolation chroot --format docker --network host --build-arg BASE=localhost/base \
  --volume /etc/apt:/etc/apt:ro \
  --volume "$folder/pip.conf:/etc/pip.conf:ro" \
  --volume /etc/ssl/certs/ca-certificates.crt:/etc/host-certificates.crt:ro \
  --file "Dockerfile.${2:-edge}" --tag "localhost/$image" . >"$folder/build.log" 2>&1 ||
  { tail -40 "$folder/build.log"; exit 1; }
echo "$driver"
