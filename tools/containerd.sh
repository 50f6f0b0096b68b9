#!/bin/sh
# Unpacks newer containerds than the distribution's for the tests: build/containerd-1.7 and build/containerd-2
# then have the daemon and the shims of Debian's; nothing of them is installed. Quick when there is nothing to
# do, and never an error: without them the tests that need one are skipped.
#
# Packages are verified as apt does it, by the keys of the host's debian-archive-keyring; a mirror that lags
# behind is good enough.
set -eu

KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
BUILD=$(dirname "$0")/../build

works() { "$1/containerd" --version >/dev/null 2>&1 && [ -x "$1/containerd-shim-runc-v2" ]; }

# usage: get SUITE PLACE; a subshell: what goes wrong with one is no matter of the other.
get() (
    suite=$1 place=$2
    skip() {
        echo "containerd.sh: no $(basename "$place") for the tests: $*" >&2
        exit 0
    }
    ! works "$place" || exit 0
    command -v apt-get >/dev/null && [ -r $KEYS ] || skip "no apt-get, or no $KEYS, to get one from Debian"

    rm -rf "$place"
    mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial"
    place=$(cd "$place" && pwd) apt=$place/apt
    : >"$apt/status"
    echo "deb [signed-by=$KEYS] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
    own() {
        timeout 120 apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- \
            -o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" -o Dir::State::Status="$apt/status" \
            -o Dir::Cache="$apt" -o Dir::Cache::Archives="$apt/archives" -o APT::Sandbox::User=root \
            -o Acquire::Languages=none -o Acquire::Retries=0 -o Acquire::http::Timeout=10 \
            -o Acquire::PDiffs=false -o Acquire::Check-Valid-Until=false \
            -o APT::Get::List-Cleanup=false "$@" 2>"$apt/words" ||
            skip "$(tail -1 "$apt/words")"
    }
    own update
    # Alone, without what it depends on: the runtimes are the host's, and its C library is new enough or not.
    (cd "$apt/archives" && own download containerd)
    dpkg-deb --fsys-tarfile "$apt"/archives/containerd_*.deb | tar -x -C "$place" --strip-components=3 \
        ./usr/bin/containerd ./usr/bin/containerd-shim-runc-v2 || skip "its package is not as expected"
    rm -rf "$apt"
    works "$place" || skip "it does not run with the libraries of this host"
)

[ "$(id -u)" = 0 ] || exit 0
get trixie "$BUILD/containerd-1.7" &
get forky "$BUILD/containerd-2"
wait
