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

# A storage: put through the suite and used, with the server that it brings.
try_storage() {
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    sed -i -E "s/127\.0\.0\.1:[0-9]+/127.0.0.1:$port/" antiphon.toml
    case $2 in
        rust)
            # On its own, so that it is the server whose number is known.
            rustc -O server.rs
            ./server "127.0.0.1:$port" > server.log &
            ;;
        python) python3 server.py "127.0.0.1:$port" > server.log & ;;
        *) echo "shelf at its own place" > server.log & ;;
    esac
    trap "kill $! 2> /dev/null || true" EXIT
    until grep -q '^shelf at' server.log 2> /dev/null; do sleep 0.1; done
    antiphon plugin test "$1" --config antiphon.toml
    antiphon storage check --config antiphon.toml
    # It is in memory, and a component of JavaScript's ends with the command.
    [ "$2" != javascript ] || return 0
    head -c 3000000 /dev/urandom > object
    antiphon storage put object some/object --config antiphon.toml
    antiphon storage get some/object --config antiphon.toml | cmp - object
    antiphon storage ls some/ --config antiphon.toml | grep some/object
    # What is not granted is not reached, and the error names the grant: no server, another port, a network of its own.
    refused sockets '/^sockets/d'
    refused sockets 's/^sockets.*/sockets = ["127.0.0.1:1"]/'
    refused private_networks 's/^private_networks.*//'
    antiphon storage rm some/object --config antiphon.toml
}

# Whether the storage is refused for want of the grant $1, once $2 was done to its configuration.
refused() {
    sed "$2" antiphon.toml > refused.toml
    ! antiphon storage check --config refused.toml 2> refused.log
    grep -q "$1" refused.log || { cat refused.log; return 1; }
}

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
        antiphon plugin pin "$name"
        try_storage "$name" "$lang"
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

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
