#!/bin/sh
# Makes sure that the tests have a CRIU that works with this kernel: CRIU has to know the kernel, so that of
# the distribution may be too old. Then Debian's newest stable one is unpacked below build/criu, with the
# libraries that it is linked with; nothing of it is installed. Quick when there is nothing to do, and never an
# error: without CRIU the tests that need it are skipped.
#
# Packages are verified as apt does it, by the keys of the host's debian-archive-keyring; a mirror that lags
# behind is good enough.
set -eu

SUITE=forky
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
PLACE=$(dirname "$0")/../build/criu

skip() {
    echo "criu.sh: no CRIU for the tests: $*" >&2
    exit 0
}

works() { "$1" check >/dev/null 2>&1; }

[ "$(id -u)" = 0 ] || exit 0
! works "$PLACE/criu" || exit 0
! works criu || exit 0
command -v apt-get >/dev/null && [ -r $KEYS ] || skip "no apt-get, or no $KEYS, to get one from Debian"

rm -rf "$PLACE"
mkdir -p "$PLACE/lists/partial" "$PLACE/archives/partial" "$PLACE/root"
PLACE=$(cd "$PLACE" && pwd)
: >"$PLACE/status"
echo "deb [signed-by=$KEYS] http://deb.debian.org/debian $SUITE main" >"$PLACE/sources.list"
own() {
    timeout 120 apt-get -qq -o Dir::Etc::SourceList="$PLACE/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State="$PLACE" -o Dir::State::Lists="$PLACE/lists" -o Dir::State::Status="$PLACE/status" \
        -o Dir::Cache="$PLACE" -o Dir::Cache::Archives="$PLACE/archives" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=0 -o Acquire::http::Timeout=10 \
        -o Acquire::PDiffs=false -o Acquire::Check-Valid-Until=false \
        -o APT::Get::List-Cleanup=false "$@" >/dev/null 2>"$PLACE/words" ||
        skip "$(tail -1 "$PLACE/words")"
}
own update
own install -y --download-only --no-install-recommends criu
for package in "$PLACE"/archives/*.deb; do
    dpkg-deb -x "$package" "$PLACE/root"
done

# Its own loader finds its own libraries, whatever those of the host are.
libraries=$(dirname "$(find "$PLACE/root/usr/lib" -name libprotobuf-c.so.1)")
loader=$(find "$PLACE/root/usr/lib" -name 'ld-linux-*.so.*' | head -1)
cat >"$PLACE/criu" <<EOF
#!/bin/sh
exec $loader --library-path $libraries $PLACE/root/usr/sbin/criu "\$@"
EOF
chmod 755 "$PLACE/criu"
rm -rf "$PLACE/archives" "$PLACE/lists" "$PLACE"/*cache.bin
works "$PLACE/criu" || skip "$("$PLACE/criu" check 2>&1 | grep Error | tail -1)"
