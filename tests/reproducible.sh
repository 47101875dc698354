#!/bin/sh
# Builds the official components from two copies of this checkout, at two paths and under two cargo homes, and
# compares them byte for byte. Nothing but the plugins is compiled.
set -eu
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
home=${CARGO_HOME:-$HOME/.cargo}
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR RUSTFLAGS || true

copy() {
    mkdir -p "$1"
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf -) | tar -xf - -C "$1"
}

copy "$work/one"
copy "$work/some other place/two"
# Another home with the same crates: the registry is only linked, so nothing is fetched twice.
mkdir "$work/home"
ln -s "$home/registry" "$work/home/registry"

(cd "$work/one" && cargo build --locked --release -p antiphon-bundle)
(cd "$work/some other place/two" && CARGO_HOME="$work/home" cargo build --locked --release -p antiphon-bundle)

sums() { (cd "$1/target/plugins/wasm32-wasip2/release" && sha256sum ./*.wasm); }
sums "$work/one" >"$work/one.sums"
sums "$work/some other place/two" >"$work/two.sums"
cat "$work/one.sums"
if ! cmp -s "$work/one.sums" "$work/two.sums"; then
    echo "error: two checkouts gave different components:" >&2
    cat "$work/two.sums" >&2
    exit 1
fi
# A path of this machine in the bytes would differ on the next one.
if grep -l -a -F -e "$HOME/" -e "$work" "$work/one/target/plugins/wasm32-wasip2/release/"*.wasm; then
    echo "error: the components above hold paths of this machine" >&2
    exit 1
fi
