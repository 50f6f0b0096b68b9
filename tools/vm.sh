#!/bin/sh
# Runs a command of the checkout in a machine of its own: Debian with its kernel, cgroup v2 alone, AppArmor and every
# capability. Without a command, a shell. There is no network, and what is written to the disk is forgotten.
#
# usage: vm.sh [COMMAND [ARGUMENT...]]       exit code: the command's
# environment: SUITE    Debian's release: trixie (the default), bookworm
#              MACHINE  qemu, the default where KVM is; uml: User Mode Linux, a kernel that is a process, which needs
#                       nothing of its host, and knows no pressure, huge pages, cpusets, gVisor and second processor
#              INIT     plain, a shell (the default), or systemd (qemu alone)
#              MEMORY   of the machine: 3G
#
# The first run makes the disk of Debian's packages below build/vm: as root, some minutes, 2 GB. It is made again when
# pyproject.toml or install.sh has changed.
set -eu

kvm=
[ ! -w /dev/kvm ] || for each in /sys/module/kvm_intel /sys/module/kvm_amd; do [ ! -d $each ] || kvm=yes; done
SUITE=${SUITE:-trixie} MACHINE=${MACHINE:-${kvm:+qemu}} INIT=${INIT:-plain} MEMORY=${MEMORY:-3G}
MACHINE=${MACHINE:-uml}
REPO=$(cd "$(dirname "$0")/.." && pwd)
PLACE=$REPO/build/vm/$SUITE
PACKAGES=linux-image-amd64,initramfs-tools,systemd-sysv,dbus,udev,apparmor,kmod,procps,iproute2
PACKAGES=$PACKAGES,netbase,tzdata,ca-certificates,python3-venv
PATH=$PATH:/usr/sbin:/sbin

need() {
    missing=
    for each in "$@"; do command -v "${each%:*}" >/dev/null || missing="$missing ${each#*:}"; done
    [ -z "$missing" ] || { echo "vm.sh: missing; install (Debian: apt-get install)$missing" >&2 && exit 1; }
}

checkout() {
    (cd "$REPO" && git ls-files -co --exclude-standard | while read -r file; do
        [ ! -e "$file" ] || echo "$file"
    done | tar -cf - -T - "$@")
}

# What the machine runs with the checkout in place: as process 1, or as systemd's one job of this boot.
start() {
    cat <<'END'
if [ $$ = 1 ]; then
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t securityfs securityfs /sys/kernel/security
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    sed 's/\(^\| \)/\1+/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup/system
    ln -sfn /proc/self/fd /dev/fd
    ln -sfn /proc/self/fd/0 /dev/stdin
    ln -sfn /proc/self/fd/1 /dev/stdout
    ln -sfn /proc/self/fd/2 /dev/stderr
    mount -t devpts -o ptmxmode=666 devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    ip link set lo up
    apparmor_parser --replace --quiet /etc/apparmor.d
fi
# Debian's User Mode Linux may have the old tables alone.
iptables -t nat -N vm 2>/dev/null && iptables -t nat -X vm || for each in iptables ip6tables; do
    update-alternatives --set $each /usr/sbin/$each-legacy >/dev/null
done
export HOME=/root TERM=linux PATH=/podwright/.venv/bin:$PATH:/usr/sbin:/sbin
# As a service, which dockerd needs to see that swap can be limited.
setsid --wait --ctty sh -c '[ ! -d /sys/fs/cgroup/system ] || echo $$ >/sys/fs/cgroup/system/cgroup.procs
. .vm/command' <>/dev/ttyS0 >&0 2>&1
echo $? >/dev/ttyS1
sync
[ $$ = 1 ] && echo o >/proc/sysrq-trigger && sleep 60
systemctl poweroff --force --force
END
}

make_disk() {
    need debootstrap:debootstrap mkfs.ext4:e2fsprogs
    echo "vm.sh: making the disk of a Debian $SUITE in $PLACE" >&2
    root=$PLACE/root
    rm -rf "$PLACE"
    mkdir -p "$root/etc/dpkg/dpkg.cfg.d" "$root/etc/initramfs-tools/conf.d"
    # An interrupted run begins anew: nothing need be safe on the disk.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/vm"
    echo MODULES=list >"$root/etc/initramfs-tools/conf.d/vm"
    printf '%s\n' virtio_pci virtio_blk ext4 >"$root/etc/initramfs-tools/modules"
    debootstrap --variant=minbase --include=$PACKAGES "$SUITE" "$root" >"$PLACE/log" 2>&1 ||
        { tail -5 "$PLACE/log" >&2 && exit 1; }
    cat >"$root/vm-start" <<'END'
#!/bin/sh
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
cd /podwright
find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name build -exec rm -rf {} +
for disk in /dev/vdb /dev/ubdb; do [ ! -b $disk ] || tar -xf $disk; done
. .vm/start
END
    chmod 755 "$root/vm-start"
    mkdir "$root/podwright"
    checkout | tar -x -C "$root/podwright"
    # Whom this machine trusts to be PyPI; variables that lead there hold in the root as well.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    # Namespaces of its own: what is mounted or left running in there ends with it.
    unshare --mount --pid --fork chroot "$root" sh -eu >>"$PLACE/log" 2>&1 <<'END' ||
mount -t proc proc /proc
cd /podwright
PYTHON=python3 tools/install.sh python run test
python3 -m venv .venv
.venv/bin/pip install --quiet --editable '.[dev]'
rm -rf /var/cache/apt /var/lib/apt/lists
END
        { tail -5 "$PLACE/log" >&2 && exit 1; }
    cp "$root"/boot/vmlinuz-* "$PLACE/kernel"
    cp "$root"/boot/initrd.img-* "$PLACE/initrd"
    # Of this machine's own release, with whose libraries it runs.
    (cd "$PLACE" && apt-get -qq download user-mode-linux 2>>log && dpkg-deb -x user-mode-linux_*.deb uml) &&
        cp -a "$PLACE"/uml/usr/lib/uml/modules/* "$root/usr/lib/modules/"
    truncate -s 12G "$PLACE/disk.new"
    mkfs.ext4 -q -d "$root" "$PLACE/disk.new"
    rm -rf "$root"
    mv "$PLACE/disk.new" "$PLACE/disk"
}

run_qemu() {
    need qemu-system-x86_64:qemu-system-x86
    options="root=/dev/vda console=ttyS0 panic=-1 init=/vm-start"
    [ "$INIT" = plain ] || options="${options% *} systemd.run=/vm-start systemd.run_success_action=poweroff-force"
    qemu-system-x86_64 -machine accel=${kvm:+kvm:}tcg -cpu max -smp 2 -m "$MEMORY" -nodefaults -no-reboot -display none \
        -kernel "$PLACE/kernel" -initrd "$PLACE/initrd" -append "$options rw quiet apparmor=1 security=apparmor" \
        -drive "file=$PLACE/disk,format=raw,if=virtio,snapshot=on" \
        -drive "file=$run/checkout.tar,format=raw,if=virtio,readonly=on" \
        -chardev stdio,id=console,signal=off -serial chardev:console -serial "file:$run/exit"
}

run_uml() {
    # It does not know of the registers of newer processors than it is old.
    if grep -q amx_tile /proc/cpuinfo; then
        need cc:gcc
        cc -O2 -shared -fPIC -o "$run/xstate.so" "$REPO/tools/uml_xstate.c"
        export LD_PRELOAD="$run/xstate.so"
    fi
    TMPDIR=/dev/shm "$PLACE/uml/usr/bin/linux.uml" mem="$MEMORY" umid=vm uml_dir="$run" con=null con0=null,fd:2 \
        ssl0=fd:0,fd:1 ssl1=null,fd:3 ubd0="$run/changes,$PLACE/disk" ubd1r="$run/checkout.tar" \
        root=/dev/ubda rw quiet apparmor=1 security=apparmor init=/vm-start 3>"$run/exit"
}

for each in "$REPO/pyproject.toml" "$REPO/tools/install.sh"; do
    [ "$PLACE/disk" -nt "$each" ] || { make_disk && break; }
done
run=$(mktemp -d "$PLACE/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
mkdir "$run/.vm"
start >"$run/.vm/start"
# The command, as a shell reads it.
for each in "${@:-bash}"; do
    printf "'%s' " "$(printf %s "$each" | sed "s/'/'\\\\''/g")"
done >"$run/.vm/command"
checkout -C "$run" .vm >"$run/checkout.tar"
case $MACHINE in
qemu) run_qemu ;;
uml) run_uml ;;
*) echo "vm.sh: MACHINE is qemu or uml, not $MACHINE" >&2 && exit 2 ;;
esac
exit "$(tr -d '\r\n' <"$run/exit")"
