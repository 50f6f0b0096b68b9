#!/bin/sh
# Runs examples/hello.yaml on an image made from this machine's busybox, in state of its own; leaves nothing.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
state=$(mktemp -d /var/tmp/podwright-hello.XXXXXX)
trap 'rm -rf "$state"' EXIT
trap : INT TERM # podwright stops its pods; then the line above

python "$here/tools/busybox_rootfs.py" "$state/rootfs"
set -- podwright --root "$state/lib" --run "$state/run"
"$@" image import "$state/rootfs" localhost/podwright/busybox:latest --cmd sh >/dev/null
"$@" run "$here/examples/hello.yaml"
