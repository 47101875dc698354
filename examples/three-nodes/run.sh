#!/usr/bin/env bash
# Three NATS servers and three nodes on this machine. What is written at one node comes to all; a server is killed, and
# they go on; a node is away, and catches up.
#
#     examples/three-nodes/run.sh [FOLDER]       where databases and logs go; without it, a folder that is removed
#
# `antiphon`, `nats-server` (2.12 or later) and `sqlite3` must be on the path. Nothing listens but on loopback.
set -euo pipefail

[ $# -le 1 ] || { echo "usage: examples/three-nodes/run.sh [FOLDER]" >&2; exit 2; }
for program in antiphon nats-server sqlite3; do
    command -v $program > /dev/null || { echo "$program is not on the path" >&2; exit 2; }
done
here=$(cd "$(dirname "$0")" && pwd)
processes=()

end() {
    # Only what was started here.
    for process in "${processes[@]}"; do kill "$process" 2> /dev/null || true; done
    wait
    [ -z "${temporary:-}" ] || rm -rf "$temporary"
}
trap end EXIT

if [ $# -eq 1 ]; then mkdir -p "$1"; else temporary=$(mktemp -d); fi
cd "${1:-$temporary}"
cp "$here"/*.conf "$here"/*.toml "$here"/schema.sql .

server() { nats-server -c "server-$1.conf" 2>> "server-$1.log" & processes+=($!); servers[$1]=$!; }
node() { antiphon run --config "node-$1.toml" 2>> "node-$1.log" & processes+=($!); nodes[$1]=$!; }
sql() { sqlite3 -cmd '.timeout 5000' "$@"; }
declare -A servers nodes

# Waits until a command succeeds; a minute is more than anything here takes.
until_true() {
    local what=$1 try
    shift
    for try in {1..600}; do "$@" && return; sleep 0.1; done
    echo "never came true: $what" >&2
    tail -n 20 ./*.log >&2
    exit 1
}
replicates() { grep -q 'log      nats://' "node-$1.log"; }
has() { [ "$(sql "node-$1.db" "SELECT group_concat(name, ' ') FROM (SELECT name FROM guests ORDER BY id)")" = "$2" ]; }
all_have() {
    for number in 1 2 3; do until_true "node $number has $1" has "$number" "$1"; done
    echo "all have: $1"
}

for number in 1 2 3; do
    server "$number"
    sql "node-$number.db" < schema.sql > /dev/null
done
for number in 1 2 3; do node "$number"; done
for number in 1 2 3; do until_true "node $number replicates" replicates "$number"; done

sql node-1.db "INSERT INTO guests VALUES ('a', 'Ada', '4A')"
sql node-2.db "INSERT INTO guests VALUES ('b', 'Grace', '4B')"
sql node-3.db "INSERT INTO guests VALUES ('c', 'Linus', '5A')"
all_have "Ada Grace Linus"

echo "server 2 is killed"
kill -9 "${servers[2]}"
sql node-2.db "INSERT INTO guests VALUES ('d', 'Alan', '5B')"
all_have "Ada Grace Linus Alan"

echo "node 3 is stopped, and server 2 is back"
kill "${nodes[3]}"
wait "${nodes[3]}"
server 2
sql node-3.db "INSERT INTO guests VALUES ('e', 'Barbara', '6A')"
sql node-1.db "DELETE FROM guests WHERE name = 'Linus'"
node 3
all_have "Ada Grace Alan Barbara"

antiphon verify node-1.db node-2.db
antiphon verify node-1.db node-3.db
