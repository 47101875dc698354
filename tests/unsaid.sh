#!/usr/bin/env bash
# Whether no planted secret (tests/planted.env) is in any file below these folders or in these files.
#
#     tests/unsaid.sh FOLDER…
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: tests/unsaid.sh FOLDER…" >&2; exit 2; }
for place in "$@"; do
    [ -e "$place" ] || { echo "there is no $place to search" >&2; exit 2; }
done
patterns=$(mktemp)
trap 'rm -f "$patterns" "$patterns.found"' EXIT
sed -n 's/^[A-Z][A-Z0-9_]*=//p' "$(dirname "$0")/planted.env" > "$patterns"
[ "$(wc -l < "$patterns")" -ge 12 ] || { echo "there are fewer than twelve planted secrets" >&2; exit 2; }
# In addresses and in the headers of logins they look otherwise, but for how they begin.
printf 'canary-0\ncanary-1\n%s\n' "$(printf 'bob:canary-0' | base64 | head -c 14)" >> "$patterns"
code=0
grep -arnF -D skip -f "$patterns" -- "$@" > "$patterns.found" || code=$?
if [ -s "$patterns.found" ]; then
    cut -c 1-300 "$patterns.found"
    echo "planted secrets came to light" >&2
    exit 1
fi
[ "$code" -eq 1 ] || { echo "not all could be searched for planted secrets" >&2; exit 2; }
