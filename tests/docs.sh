#!/usr/bin/env bash
# Runs the commands of README.md and docs/*.md, so that the documents can't promise what the program doesn't do.
#
#     tests/docs.sh target/release       the folder that holds the `antiphon` to try
#
# Fences say what is done with a block: ```sh is run, ```console is an illustration and is not. The ```sh blocks of one
# document run in order, in one shell and one fresh folder, and end at the first command that fails.
set -euo pipefail

usage="usage: tests/docs.sh FOLDER, where FOLDER/antiphon is the program"
[ $# -eq 1 ] || { echo "$usage" >&2; exit 2; }
folder=$(cd "$1" 2> /dev/null && pwd) && [ -x "$folder/antiphon" ] || { echo "no program in $1; $usage" >&2; exit 2; }
command -v sqlite3 > /dev/null || { echo "sqlite3 is missing; on Debian: apt-get install sqlite3" >&2; exit 2; }
cd "$(dirname "$0")/.."

# The longest a document may take, in seconds; each takes a few. One that has components built takes minutes.
limit=${DOCS_SECONDS:-120}
limit_building=${DOCS_BUILDING_SECONDS:-600}
# How crates and packages are fetched here, and with which Rust, for the documents that have components built.
fetching=(CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}")
for name in NODE_EXTRA_CA_CERTS PIP_CERT PIP_INDEX_URL REQUESTS_CA_BUNDLE SSL_CERT_DIR SSL_CERT_FILE; do
    [ -z "${!name:-}" ] || fetching+=("$name=${!name}")
done
path=$folder:/usr/local/bin:/usr/bin:/bin
cargo=$(command -v cargo || true)
[ -z "$cargo" ] || path=$path:$(dirname "$cargo")
# The NATS server that tests/run brought.
[ ! -x target/tools/nats-server ] || path=$path:$PWD/target/tools
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

good() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED $1" >&2; }

# The blocks of document $1 as one script. Each is followed by a line that says how far it came.
script() {
    # Background processes are this shell's own; nothing else is ended. One that has just begun is this shell still for a
    # moment, and a signal is lost on it then.
    echo "trap 'sleep 0.5; kill \$(jobs -p) 2> /dev/null || true; wait' EXIT"
    awk '
        !inside && /^```sh$/ { inside = 1; start = NR; next }
        inside && /^```$/ { inside = 0; printf "echo %d >> \"$DONE\"\n", start; next }
        inside { print }
        END { if (inside) { print "block of line " start " has no end" > "/dev/stderr"; exit 1 } }
    ' "$1"
}

run() {
    local document=$1 name blocks done_blocks here seconds=$limit code=0
    name=$(basename "$document" .md)
    blocks=$(grep -c '^```sh$' "$document" || true)
    [ "$blocks" -gt 0 ] || return 0
    here="$work/$name"
    mkdir "$here"
    if ! script "$document" > "$work/$name.sh"; then bad "$document"; return 0; fi
    if grep -nE '(^|[ /])(cargo|git clone|tests/run)( |$)' "$work/$name.sh" >&2; then
        bad "$document: what builds belongs in a console block"
        return 0
    fi
    if grep -q 'plugin build' "$work/$name.sh"; then
        seconds=$limit_building
        # The tools that tests/examples.sh fetched before; without them they are fetched here.
        [ ! -d target/examples/.antiphon ] || ln -s "$PWD/target/examples/.antiphon" "$here/.antiphon"
    fi
    : > "$work/$name.done"
    # `timeout` makes a group of its own and ends only that. Nothing of the caller's environment gets in.
    (cd "$here" && env -i PATH="$path" "${fetching[@]}" HOME="$here" TMPDIR="$work" \
        XDG_CACHE_HOME="$work/cache" DONE="$work/$name.done" LC_ALL=C.UTF-8 \
        timeout --kill-after=10 "$seconds" bash -euo pipefail "$work/$name.sh") \
        > "$work/$name.out" 2>&1 < /dev/null || code=$?
    done_blocks=$(wc -l < "$work/$name.done")
    passed=$((passed + done_blocks))
    [ "$code" -eq 0 ] && [ "$done_blocks" -eq "$blocks" ] && return 0
    echo "-- what $document printed" >&2
    cat "$work/$name.out" >&2
    for log in "$here"/*.log; do
        [ -f "$log" ] && { echo "-- $(basename "$log")"; tail -n 20 "$log"; } >&2
    done
    if [ "$code" -eq 124 ]; then
        bad "$document after $done_blocks of $blocks blocks: not done within $seconds seconds"
    else
        bad "$document after $done_blocks of $blocks blocks, with exit code $code"
    fi
}

# The two commands that build are spelled as everybody knows them, in blocks that are not run.
for command in 'cargo run --release -- demo' 'tests/run'; do
    if awk '/^```console$/ { inside = 1; next } /^```/ { inside = 0 } inside' README.md | grep -qxF "$command"; then
        good
    else
        bad "README.md: no console block has the line \`$command\`"
    fi
done

# A link to a file leads to one.
for document in *.md docs/*.md plugins/*.md examples/*.md examples/*/*.md; do
    missing=0
    while read -r target; do
        [ -e "$(dirname "$document")/${target%%#*}" ] || { missing=1; echo "$document: nothing at $target" >&2; }
    done < <(grep -oE '\]\([^)]+\)' "$document" | sed -E 's/^\]\(|\)$//g' | grep -vE '^(https?:|#|mailto:)' || true)
    if [ "$missing" -eq 0 ]; then good; else bad "$document: links"; fi
done

for document in README.md docs/*.md; do
    # A block of commands must not escape by another name.
    if grep -nE '^```(bash|shell|zsh|sh .*|console .*)$' "$document" >&2; then bad "$document: blocks are sh or console"; fi
    run "$document"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
