#!/usr/bin/env bash
# Builds each example as `antiphon plugin new` writes it, with the tools of its language, and tries it.
#
#     tests/examples.sh target/release       the folder that holds the `antiphon` to try
#
# The tools are fetched by name, in the versions that `antiphon plugin build --install` fetches, into target/examples.
set -euo pipefail

usage="usage: tests/examples.sh FOLDER, where FOLDER/antiphon is the program"
[ $# -eq 1 ] || { echo "$usage" >&2; exit 2; }
folder=$(cd "$1" 2> /dev/null && pwd) && [ -x "$folder/antiphon" ] || { echo "no program in $1; $usage" >&2; exit 2; }
cd "$(dirname "$0")/.."
root=$PWD
PATH=$folder:$PATH

# What Rust needs besides is asked for by tests/run.
missing=()
python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3 python3-venv)
command -v npm > /dev/null || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
        apt-get update -qq && apt-get install -y -qq "${missing[@]}"
    else
        echo "missing: ${missing[*]}; on Debian: apt-get install ${missing[*]}" >&2
        exit 1
    fi
fi

work=$root/target/examples
mkdir -p "$work/.antiphon/tools" "$work/target"
# Compiled components are kept with the rest, and not in the home of whoever runs this.
export XDG_CACHE_HOME=$work/cache
passed=0 failed=0

good() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED $*" >&2; }

# One example: $1 is its folder here. It is written, built and tried under its own name.
try() {
    local kind=${1%-*} lang=${1##*-} name start=$SECONDS
    name=$(sed -n '1s/^# //p' "examples/$1/README.md")
    rm -rf "${work:?}/$1"
    mkdir "$work/$1"
    cd "$work/$1"
    antiphon plugin new "$name" --kind "$kind" --lang "$lang"
    cd "$name"
    # What the three in Rust depend on is compiled once.
    ln -s "$work/target" target
    antiphon plugin build --install >> antiphon.toml.built
    grep -qx "sha256 = \"$(sha256sum "$name.wasm" | cut -d ' ' -f 1)\"" antiphon.toml.built
    if [ "$kind" = storage ]; then
        antiphon plugin inspect "$name.wasm"
    else
        antiphon plugin pin "$name"
        antiphon plugin check "$name" --config antiphon.toml
        antiphon plugin test "$name" --config antiphon.toml --cases cases
    fi
    echo "-- $1: $((SECONDS - start)) s"
}

for example in {resolver,hasher,storage}-{rust,python,javascript}; do
    echo "-- $example"
    # Not `try … || bad`: on the left of `||` a function goes on after a command that failed.
    set +e
    (set -e; try "$example")
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then good; else bad "$example: exit code $code"; fi
done

# The storages are run, too: by a host of the tests' own, until the program has one.
storages=$(echo "$work"/storage-*/*/*.wasm)
if STORAGES=$storages cargo test --release --locked --workspace --test examples -- --ignored; then good; else bad storages; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
