#!/usr/bin/env bash
# Runs the commands of the documents, so that they can't promise what the program doesn't do.
#
#     tests/docs.sh target/release [DOCUMENT...]     the folder that holds the `antiphon` to try; else all documents
#
# Each block has a fence that says what is done with it:
#
# - ```sh is run. Those of one document run in order, in one shell and one fresh folder, and end at the first command that fails.
# - ```toml is a configuration, and `antiphon config check` takes it.
# - ```text is what was printed, or a picture. No command stands there.
# - ```console is commands that are not run. Each is in the list below.
#
# Commands and flags that stand between the blocks, as `antiphon status --watch`, are in a block of some document, too.
set -euo pipefail

usage="usage: tests/docs.sh FOLDER [DOCUMENT...], where FOLDER/antiphon is the program"
[ $# -ge 1 ] || { echo "$usage" >&2; exit 2; }
folder=$(cd "$1" 2> /dev/null && pwd) && [ -x "$folder/antiphon" ] || { echo "no program in $1; $usage" >&2; exit 2; }
missing=()
for needed in sqlite3 curl openssl ssh-keygen:openssh-client /usr/sbin/sshd:openssh-server /usr/sbin/apache2:apache2; do
    command -v "${needed%:*}" > /dev/null || missing+=("${needed#*:}")
done
[ ${#missing[@]} -eq 0 ] || { echo "missing: ${missing[*]}; on Debian: apt-get install ${missing[*]}" >&2; exit 2; }
cd "$(dirname "$0")/.."
shift
all=(*.md docs/*.md plugins/*.md examples/*.md examples/*/*.md tests/*.md)
documents=("$@")
[ $# -gt 0 ] || documents=("${all[@]}")

# Commands that are not run here, each with its document. Those of the first two build the program, and tests/run does what they
# do. The last are done by tests/examples.sh to each example.
not_run() {
    cat << 'END'
README.md:cargo run --release -- demo
README.md:tests/run
CONTRIBUTING.md:cargo build --release
CONTRIBUTING.md:cargo run --release -- demo
CONTRIBUTING.md:cargo sim --seed 1234 --shrink
CONTRIBUTING.md:cargo sim --seeds 0..100000
examples/README.md:antiphon plugin build
examples/README.md:antiphon plugin test NAME --config antiphon.toml --cases cases
examples/README.md:antiphon plugin pin NAME
examples/README.md:antiphon run app.db --config antiphon.toml
END
}

# What a block may print that looks like a command.
printed='  antiphon run OTHER.db --log /home/ada/app.db.antiphon/log'

# The longest a document may take, in seconds. Each takes a few where nothing else is done, and one that has components built
# takes minutes.
limit=${DOCS_SECONDS:-300}
limit_building=${DOCS_BUILDING_SECONDS:-900}
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
# A server that a document starts as another user finds its folder.
chmod 711 "$work"
trap 'rm -rf "$work"' EXIT
# Secrets that nobody may see: every document has them in its environment.
mapfile -t planted < <(grep -v '^#' tests/planted.env)
passed=0 failed=0

good() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED $1" >&2; }

# The blocks of document $1 as one script. Each is followed by a line that says how far it came.
script() {
    awk '
        !inside && /^```sh$/ { inside = 1; start = NR; next }
        inside && /^```$/ { inside = 0; printf "echo %d >> \"$DONE\"\n", start; next }
        # Who types takes longer than a process to begin: until it has, what the last one said would still stand in its file.
        inside && match($0, /2> [^ ]+\.log &/) && before !~ /\\$/ { print "rm -f " substr($0, RSTART + 3, RLENGTH - 5) }
        inside { print; before = $0 }
        END { if (inside) { print "block of line " start " has no end" > "/dev/stderr"; exit 1 } }
    ' "$1"
    # Background processes end with their document. Not in a trap: for whatever such a shell has just started, its own handlers
    # stand a moment longer, and a signal that a document sends is lost on them.
    echo "kill \$(jobs -p) 2> /dev/null || true; wait"
}

# Ends what is left of process group $1, that of a document that came to no end of its own.
end_group() {
    local tries=100
    kill -- "-$1" 2> /dev/null || return 0
    while kill -0 -- "-$1" 2> /dev/null && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
    kill -KILL -- "-$1" 2> /dev/null || true
}

run() {
    local document=$1 name blocks done_blocks here group seconds=$limit start=$SECONDS code=0
    name=$(tr / - <<< "${document%.md}")
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
    # `timeout` makes a group of its own and ends only that. Nothing of the caller's environment gets in; and not by `env`,
    # for others see what a process is started with.
    (
        cd "$here" || exit
        mapfile -t inherited < <(compgen -e)
        export -n "${inherited[@]}"
        export PATH="$path" "${fetching[@]}" HOME="$here" TMPDIR="$work" \
            XDG_CACHE_HOME="$work/cache" DONE="$work/$name.done" LC_ALL=C.UTF-8 "${planted[@]}"
        exec timeout --kill-after=10 "$seconds" bash -euo pipefail "$work/$name.sh"
    ) > "$work/$name.out" 2>&1 < /dev/null &
    group=$!
    wait "$group" || code=$?
    end_group "$group"
    done_blocks=$(wc -l < "$work/$name.done")
    passed=$((passed + done_blocks))
    echo "-- $document: $((SECONDS - start)) s"
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

# Whether the fences of document $1 are such that nothing escapes.
fences() {
    awk -v document="$1" -v printed="$printed" -v not_run="$(not_run)" '
        function wrong(why) { print document ":" NR ": " why > "/dev/stderr"; bad = 1 }
        BEGIN { split(not_run, lines, "\n"); for (i in lines) listed[lines[i]] = 1 }
        /^ +(```|~~~)|^~~~/ { wrong("a block begins at the margin, with three backquotes"); next }
        /^```/ && !kind {
            kind = substr($0, 4)
            if (kind !~ /^(sh|toml|text|console)$/) wrong("a block is sh, toml, text or console")
            next
        }
        /^```$/ { kind = ""; next }
        kind == "text" && document != "docs/command-line.md" && $0 != printed &&
            /^ *([$>#] |sudo |\.\/|tests\/|(antiphon|cargo|cat|cp|curl|docker|git|grep|kill|mkdir|mv|nats|nats-server|npm|openssl|pip|python3|rm|rustup|sed|sh|sql|sqlite3|ssh|systemctl)( |$))/ {
            wrong("a command in a block of text; make it sh")
        }
        kind == "text" && /^(\[+[a-z_.]+\]+$|[a-z_]+ = |(listen|jetstream|server_name)[ :])/ {
            wrong("a configuration in a block of text; make it toml, or sh that writes it")
        }
        kind == "sh" && (/^ *! / || /\|\| *(echo|true|:)[^;|)}]*$/ && !/wait [^|]*\|\| true$/) {
            wrong("a command that may fail as it likes; `if COMMAND; then exit 1; fi`, or look at its code")
        }
        kind == "console" && !/^# / && !(document ":" $0 in listed) {
            wrong("a command that is not run; make it sh, or list it in tests/docs.sh")
        }
        kind { next }
        /^(    |\t)/ && before == "" { wrong("an indented block; give it a fence") }
        { before = $0 }
        END { if (kind) wrong("a block has no end"); exit bad }
    ' "$1"
}

# Whether `antiphon config check` takes each configuration of document $1. One that names no database gets one. What it names
# outside of its folder lies within it, and where it says that a secret stands in a file there is one.
configurations() {
    local document=$1 from here=$work/configurations file wrong=0
    for from in $(grep -n '^```toml$' "$document" | cut -d : -f 1); do
        rm -rf "$here"
        mkdir "$here"
        file=$here/antiphon.toml
        awk -v from="$from" 'NR > from { if (/^```$/) exit; print }' "$document" |
            sed -E "s#([\":])/(etc|run|srv|var)/#\1$here/\2/#g" > "$file"
        grep -q '^db_path = ' "$file" || sed -i '1i db_path = "app.db"' "$file"
        grep -oE '\$\{file:[^}]+' "$file" | cut -d : -f 2 | while read -r named; do
            mkdir -p "$(dirname "$named")"
            (umask 077 && echo secret > "$named")
        done
        if ! (cd "$here" && env -i PATH="$path" HOME="$here" antiphon config check antiphon.toml) > "$here/said" 2>&1; then
            echo "-- $document:$from" >&2
            cat "$here/said" >&2
            wrong=1
        fi
    done
    return $wrong
}

for document in "${all[@]}"; do
    if fences "$document"; then good; else bad "$document: blocks"; fi
done

# Whether each command and flag that the guides name in passing, as `antiphon status --watch` or `--pitr`, is in a block of
# theirs that is run. The commands there are stand in docs/command-line.md.
named() {
    awk '
        # The command that words of a line say, and its flags.
        function read(line,    words, count, i) {
            count = split(line, words, " ")
            command = words[2]
            if (words[2] " " words[3] in known) command = words[2] " " words[3]
            flags = 0
            for (i = 3; i <= count; i++) if (match(words[i], /^--[a-z-]+/)) flag[++flags] = substr(words[i], 1, RLENGTH)
        }
        function runs(line,    parts, count, i, j) {
            gsub(/"/, "", line)
            count = split(line, parts, /[|;&()]/)
            for (i = 1; i <= count; i++) {
                if (!match(parts[i], /antiphon [a-z]/)) continue
                read(substr(parts[i], RSTART))
                ran[command] = 1
                for (j = 1; j <= flags; j++) ran[command " " flag[j]] = ran[flag[j]] = 1
                sub(/ .*/, "", command)
                ran[command] = 1
            }
        }
        function says(text,    spans, count, i, j) {
            count = split(text, spans, "`")
            for (i = 2; i <= count; i += 2) {
                if (spans[i] ~ /^antiphon [a-z]/) {
                    read(spans[i])
                    said[command] = where
                    for (j = 1; j <= flags; j++) said[command " " flag[j]] = where
                } else if (match(spans[i], /^--[a-z-]+/)) {
                    said[substr(spans[i], 1, RLENGTH)] = where
                }
            }
        }
        FILENAME == "docs/command-line.md" { if (/^## `antiphon /) known[substr($0, 14, length($0) - 14)] = 1; next }
        FNR == 1 { says(paragraph); paragraph = ""; kind = "" }
        /^```/ && !kind { says(paragraph); paragraph = ""; kind = substr($0, 4); next }
        /^```$/ { kind = ""; next }
        kind == "sh" { runs($0) }
        kind { next }
        /^$/ { says(paragraph); paragraph = ""; next }
        { where = FILENAME; paragraph = paragraph " " $0 }
        END {
            says(paragraph)
            for (what in said) if (!(what in ran)) {
                print said[what] ": `" what "` is in no block that is run" > "/dev/stderr"
                bad = 1
            }
            exit bad
        }
    ' docs/command-line.md "$@"
}
guides=()
for document in README.md docs/*.md plugins/*.md examples/*.md examples/*/*.md; do
    [ "$document" = docs/command-line.md ] || guides+=("$document")
done
if named "${guides[@]}"; then good; else bad "commands that are named and not run"; fi

# What is not run stands where it is said to stand.
while read -r line; do
    if grep -qxF -- "${line#*:}" "${line%%:*}"; then good; else bad "${line%%:*}: no line \`${line#*:}\`"; fi
done < <(not_run)

# What the program puts into a database, and what the doctor looks at, has a line in the guides.
for name in $(grep -oE 'ours!\("[a-z_]+"\),$' host/src/db/own.rs | cut -d '"' -f 2 | sort -u); do
    if grep -q "^| .*\`__antiphon___$name\`.* |" docs/first-contact.md; then good; else bad "docs/first-contact.md: table $name"; fi
done
for name in $(sed -n '/^const CHECKS/,/^];/s/^ *("\([a-z-]*\)".*/\1/p' host/src/cli/doctor.rs); do
    if grep -q "^| .*\`$name\`.* |" docs/looking-inside.md; then good; else bad "docs/looking-inside.md: check $name"; fi
done

# A link to a file leads to one.
for document in "${all[@]}"; do
    missing=0
    while read -r target; do
        [ -e "$(dirname "$document")/${target%%#*}" ] || { missing=1; echo "$document: nothing at $target" >&2; }
    done < <(grep -oE '\]\([^)]+\)' "$document" | sed -E 's/^\]\(|\)$//g' | grep -vE '^(https?:|#|mailto:)' || true)
    if [ "$missing" -eq 0 ]; then good; else bad "$document: links"; fi
done

building=() others=()
for document in "${documents[@]}"; do
    if configurations "$document"; then good; else bad "$document: configurations"; fi
    if grep -q 'plugin build' "$document"; then building+=("$document"); else others+=("$document"); fi
done
# The one kind waits for compilers and for what is fetched, the other for its nodes. No two documents listen at one port.
(
    passed=0 failed=0
    for document in "${building[@]}"; do run "$document"; done
    echo "$passed $failed" > "$work/built"
) > "$work/built.out" 2>&1 &
builder=$!
for document in "${others[@]}"; do run "$document"; done
wait "$builder"
cat "$work/built.out"
read -r more_passed more_failed < "$work/built"
passed=$((passed + more_passed)) failed=$((failed + more_failed))

if tests/unsaid.sh "$work"; then good; else bad "planted secrets"; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
