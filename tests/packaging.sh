#!/usr/bin/env bash
# Looks at what the program is shipped with: the unit for systemd, the image, and what shells complete by.
#
#     tests/packaging.sh target/static       the folder that holds the static `antiphon`
set -euo pipefail

folder=$(cd "${1:?usage: tests/packaging.sh FOLDER}" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0

good() { passed=$((passed + 1)); echo "ok: $1"; }

# Completions are scripts of their shells, and know every command.
mapfile -t commands < <(sed -n 's/^## `antiphon \([a-z-]*\)`$/\1/p' docs/command-line.md)
[ ${#commands[@]} -gt 15 ]
for shell in bash zsh fish; do
    "$folder/antiphon" completions "$shell" > "$work/completions.$shell"
    for command in "${commands[@]}"; do
        grep -q -- "\b$command\b" "$work/completions.$shell" || { echo "$shell does not complete $command" >&2; exit 1; }
    done
    ! command -v "$shell" > /dev/null || "$shell" -n "$work/completions.$shell"
done
# shellcheck source=/dev/null
completed=$(bash -c '. "$1"; COMP_WORDS=(antiphon snap) COMP_CWORD=1; _antiphon antiphon snap antiphon; echo "${COMPREPLY[*]}"' - "$work/completions.bash")
[ "$completed" = snapshot ]
good "completions"

# The unit makes sense to systemd, and its sandbox is one.
unit="$work/antiphon@shop.service"
sed "s#/usr/local/bin/antiphon#$folder/antiphon#" packaging/antiphon@.service > "$unit"
"$folder/antiphon" run --help > /dev/null
if command -v systemd-analyze > /dev/null; then
    systemd-analyze verify "$unit"
    systemd-analyze security --offline=true --threshold=20 "$unit" | tail -n 1
    good "unit"
else
    echo "not looked at: the unit, for there is no systemd-analyze here"
fi

# Prometheus reads the rules, and the configuration that names them.
if promtool=$(PATH=$PWD/target/tools:$PATH command -v promtool); then
    "$promtool" check config examples/monitoring/prometheus.yml > "$work/said" || { cat "$work/said" >&2; exit 1; }
    "$promtool" test rules tests/rules.yml > "$work/said" || { cat "$work/said" >&2; exit 1; }
    good "rules for Prometheus, each of which fires"
else
    echo "not looked at: the rules for Prometheus, for there is no promtool here"
fi

# The image holds nothing but the program and certificates: it runs in a folder that holds as much, and finds names.
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$work/image"/{data,cache,etc,dev}
    # As every container has it.
    mknod -m 666 "$work/image/dev/random" c 1 8
    mknod -m 666 "$work/image/dev/urandom" c 1 9
    cp "$folder/antiphon" "$work/image/antiphon"
    echo "127.0.0.1 broker.example" > "$work/image/etc/hosts"
    cp /etc/resolv.conf "$work/image/etc/" 2> /dev/null || true
    sqlite3 "$work/image/data/app.db" 'CREATE TABLE t (id INTEGER PRIMARY KEY)'
    chown -R 65534:65534 "$work/image/data" "$work/image/cache"
    chmod 755 "$work"
    inside() { XDG_CACHE_HOME=/cache chroot --userspec=65534:65534 "$work/image" /antiphon "$@"; }
    inside --version
    inside plugin check fnv > /dev/null
    printf '[nats]\nurls = ["nats://broker.example:1"]\n' > "$work/image/data/a.toml"
    inside doctor /data/app.db --config /data/a.toml > "$work/said" 2>&1 || true
    grep -qi 'refused' "$work/said" || { cat "$work/said" >&2; exit 1; }
    good "the program alone in a folder"
fi
# Whatever the image copies is there.
while read -r source; do [ -e "$source" ]; done < <(sed -n 's/^COPY \([^-].*\) .*/\1/p' packaging/Dockerfile)
grep -q '^ENTRYPOINT \["/antiphon"\]$' packaging/Dockerfile
if command -v docker > /dev/null && docker info > /dev/null 2>&1 && [ -n "${BUILD_IMAGE:-}" ]; then
    docker build -q -f packaging/Dockerfile . > /dev/null
    good "image"
fi
tests/unsaid.sh "$work"
# One that is there would be found.
mkdir "$work/planted"
grep -m 1 '^[A-Z]' tests/planted.env | cut -d = -f 2 > "$work/planted/secret"
if tests/unsaid.sh "$work/planted" > /dev/null 2>&1; then echo "a planted secret was not found" >&2; exit 1; fi
good "no planted secret is in what was written"
echo "$passed passed, 0 failed"
