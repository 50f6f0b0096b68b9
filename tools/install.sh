#!/bin/sh
# Installs what podwright needs from Debian and does nothing, quickly, when it is there.
#
# usage: install.sh GROUP...    groups: python, run, test, bench
set -eu

PYTHON=${PYTHON:-python3}

# One "file-or-program package" a line; a program is looked up in PATH.
needs() {
    case $1 in
    python) ;;
    run)
        echo "crun crun"
        echo "runc runc"
        echo "conmon conmon"
        echo "skopeo skopeo"
        echo "/usr/lib/cni/bridge containernetworking-plugins"
        echo "/usr/share/containers/seccomp.json golang-github-containers-common"
        echo "zstd zstd"
        echo "catatonit catatonit"
        echo "busybox busybox-static"
        echo "ip iproute2"
        echo "iptables iptables"
        echo "unshare util-linux"
        ;;
    test)
        echo "docker-registry docker-registry"
        echo "curl curl"
        echo "tmux tmux"
        echo "openssl openssl"
        echo "gpg gnupg"
        echo "gpg-agent gnupg"
        echo "dockerd docker.io"
        ;;
    bench)
        echo "containerd containerd"
        echo "docker-registry docker-registry"
        echo "dockerd docker.io"
        ;;
    *) echo "install.sh: no group $1; there are python, run, test, bench" >&2 && exit 2 ;;
    esac
}

there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    # A dynamic busybox cannot be the program of an image.
    busybox) ldd /bin/busybox 2>&1 | grep -q "not a dynamic" ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

missing=
for group in "$@"; do
    if [ "$group" = python ]; then
        if ! "$PYTHON" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            [ "$PYTHON" = python3 ] || {
                echo "install.sh: PYTHON=$PYTHON is no Python 3.11 or newer with venv and ensurepip" >&2
                exit 1
            }
            missing="$missing python3 python3-venv"
        fi
    fi
    wanted=$(needs "$group")
    while read -r thing package; do
        [ -z "$thing" ] || there "$thing" || missing="$missing $package"
    done <<EOF
$wanted
EOF
done
lists() { find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | grep -q .; }

# Not in every Debian: without it the handler runsc is reported as unavailable.
case " $* " in
*" run "*)
    if ! there runsc && lists && apt-cache show runsc >/dev/null 2>&1; then missing="$missing runsc"; fi
    ;;
esac
case " $* " in
*" test "*)
    "$(dirname "$0")/containerd.sh"
    "$(dirname "$0")/criu.sh"
    ;;
esac
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install.sh: missing:$missing; install them (as root on Debian: apt-get install$missing)" >&2
    exit 1
fi

if ! lists && [ -z "${APT_UPDATED:-}" ]; then
    apt-get update -qq
    APT_UPDATED=1 exec "$0" "$@" # what is optional is known now
fi

# Some of these packages start a service when they are installed; nobody asked for one.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
