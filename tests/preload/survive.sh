#!/usr/bin/env bash
# Real programs under the library: each runs once plain and once preloaded, and must end well both times
# with the same output, without a report from the library.
#
#   tests/preload/survive.sh [--only NAME] [--all] [--limit SECONDS] [--times N] LIB [OPTIONS]
#   tests/preload/survive.sh --matrix [--only NAME] LIB
#   tests/preload/survive.sh --list [--all]
#
# LIB is libfencepost.so, OPTIONS what FENCEPOST_OPTIONS is to be. One line for each program: ok, FAIL with
# the reason, or skipped with what is not installed. The status is 0 if nothing failed and, with CI set,
# nothing was skipped.
#
# Without --all these are programs that CI installs; with it, the 32 of the survival matrix (matrix.sh). A
# program may take --limit seconds, or with --times N times what it takes plain, two seconds at least.
# --matrix runs all of them in harden, patrol and hunt with --times 20 and prints the counts.
#
# A program NAME is a function work_NAME. It runs in an empty directory, without input, puts `under` before
# what is to be preloaded, and prints what must come out the same.
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
# The programs of the distribution, not what stands before them in somebody's PATH.
export PATH="/usr/bin:/bin:/usr/sbin:/sbin:$PATH"
export LC_ALL=C.UTF-8 TZ=UTC PYTHONHASHSEED=0
unset LD_PRELOAD FENCEPOST_OPTIONS PYTHONMALLOC MAKEFLAGS MAKELEVEL GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

# Runs a program with the library, in the preloaded round.
under() {
    if [[ -n ${SURVIVE_LIB:-} ]]; then
        env LD_PRELOAD="$SURVIVE_LIB" FENCEPOST_OPTIONS="$SURVIVE_OPTIONS" "$@"
    else
        "$@"
    fi
}

# $1 lines of text that look random and are the same every time.
lines() {
    awk -v n="$1" 'BEGIN {
        x = 12345
        for (i = 0; i < n; i++) {
            x = (x * 1103515245 + 12345) % 2147483648
            printf "%d %x line %d\n", x % 100000, x, i % 977
        }
    }'
}

needs_bash="bash"
work_bash() {
    under bash -c '
        declare -A squares
        for i in {1..300}; do squares[k$i]=$((i * i)); done
        for i in {1..40}; do text+=$(printf "%s," "${squares[k$i]}"); done
        echo "${#squares[@]} $text"
        words=(); while read -r a b; do words+=("${b^^}"); done < <(for i in {1..2000}; do echo "$i w$((i % 7))"; done)
        printf "%s\n" "${words[@]}" | sort | uniq -c
        f() { local n=$1; ((n < 2)) && echo "$n" || echo $(($(f $((n - 1))) + $(f $((n - 2))))); }
        f 7
        [[ "a-bc-def" =~ ([a-z]+)-([a-z]+)$ ]] && echo "${BASH_REMATCH[@]}"
        trap "echo on exit" EXIT'
}

needs_ls="ls"
work_ls() {
    mkdir -p tree/{a,b,c,d}{1..8}/{x,y,z}
    for directory in tree/*/*; do (cd "$directory" && touch file-{1..40}); done
    under ls -R tree
    under ls -R /usr/bin /usr/include /usr/share/doc
    under ls -lnR --time-style=+ tree | sha256sum
}

needs_python3="python3"
work_python3() {
    cat > p.py <<'PY'
import hashlib, json, re, subprocess, sys, threading, zlib
data = {str(i): [i] * (i % 40) for i in range(2000)}
text = json.dumps(data, sort_keys=True)
assert json.loads(text) == data
packed = zlib.compress(text.encode())
digests = []
def work(n):
    for i in range(40):
        digests.append(hashlib.sha256(zlib.decompress(packed) + b"x" * n).hexdigest())
threads = [threading.Thread(target=work, args=(n,)) for n in (1, 1, 2, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(digests), sorted(set(digests)))
for i in range(5):
    child = subprocess.run([sys.executable, "-c", f"print(sum(range({i}000)))"], capture_output=True, text=True)
    print(child.returncode, child.stdout.strip(), child.stderr)
print(subprocess.run("cat", input=text, capture_output=True, text=True, shell=True).stdout == text)
print(len(re.findall(r"(\d)\1", text)))
PY
    under python3 p.py
}

needs_python3_malloc="python3"
work_python3_malloc() {
    cat > p.py <<'PY'
import collections, json
words = collections.Counter(str(i * i)[:4] for i in range(15000))
tree = {}
for word in words: tree.setdefault(word[0], {}).setdefault(word[1:2], []).append(word)
print(len(words), words.most_common(3), len(json.dumps(tree)))
class Node:
    def __init__(self, left, right): self.left, self.right = left, right
def build(depth): return Node(build(depth - 1), build(depth - 1)) if depth else None
def count(node): return 1 + count(node.left) + count(node.right) if node else 0
print(count(build(11)), sum(len("%d" % i + "x" * (i % 100)) for i in range(20000)))
PY
    PYTHONMALLOC=malloc under python3 p.py
}

needs_perl="perl"
work_perl() {
    under perl -e '
        my %h; $h{$_ x 3} = [$_, "v$_"] for 1 .. 20000;
        my @sorted = sort { $h{$a}[0] <=> $h{$b}[0] } keys %h;
        print scalar(@sorted), " $sorted[9] $sorted[-1]\n";
        my $text = join " ", map { $h{$_}[1] } @sorted; my %count; $count{$1}++ while $text =~ /v(\d)/g;
        print join(",", map { "$_=$count{$_}" } sort keys %count), "\n";
        my $pid = fork; if (!$pid) { undef %h; exit 3 } waitpid $pid, 0; print $? >> 8, "\n";
        print eval { die { code => 7 } } // $@->{code}, "\n"; print sprintf("%s" x 3, reverse 1 .. 3), "\n";'
}

needs_git="git"
work_git() {
    export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_AUTHOR_DATE="2005-10-01T00:00:00Z"
    export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_COMMITTER_DATE="2005-10-01T00:00:00Z"
    under git -c init.defaultBranch=trunk init -q r
    cd r
    local i
    for i in 1 2 3 4; do
        mkdir -p "d$i"
        lines $((i * 500)) > a
        lines $((i * 100)) | split -l 20 - "d$i/part"
        under git add -A
        under git commit -q -m "commit $i"
    done
    under git -c gc.autoDetach=false gc -q
    under git fsck --no-progress
    under git log -p
    under git status --short
    under git diff --stat HEAD~2
}

c_program() {
    cat > "$1" <<'C'
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct entry { char *key; int count; struct entry *next; };
static struct entry *table[64];
static void count(const char *key) {
    unsigned h = 5381;
    for (const char *c = key; *c; c++) h = h * 33 + (unsigned char)*c;
    struct entry **slot = &table[h % 64];
    while (*slot && strcmp((*slot)->key, key)) slot = &(*slot)->next;
    if (!*slot) { *slot = calloc(1, sizeof **slot); (*slot)->key = strdup(key); }
    (*slot)->count++;
}
static int power(int x, int n) { return n ? (n & 1 ? x : 1) * power(x * x, n / 2) : 1; }
int main(void) {
    char word[32]; int total = 0;
    for (int i = 0; i < 5000; i++) { snprintf(word, sizeof word, "w%d", i * i % 321); count(word); }
    for (int i = 0; i < 64; i++)
        for (struct entry *e = table[i], *next; e; e = next) {
            next = e->next; total += e->count * (int)strlen(e->key); free(e->key); free(e);
        }
    return printf("%d %d\n", total, power(3, 7)) < 0;
}
C
}

needs_gcc="gcc"
work_gcc() {
    c_program words.c
    under gcc -O2 -g -Wall words.c -o words
    ./words
    under gcc -O2 -S -o - words.c | sha256sum
}

needs_gxx="g++"
work_gxx() {
    cat > maps.cc <<'CXX'
#include <iostream>
#include <map>
#include <string>
#include <unordered_map>
int main() {
    std::map<std::string, int> ordered;
    std::unordered_map<std::string, std::string> other;
    for (int i = 0; i < 1000; i++) {
        ordered["key " + std::to_string(i % 83)] += i;
        other[std::to_string(i)] = std::string(i % 50, 'x');
    }
    for (const auto &[key, value] : ordered) std::cout << key << '=' << value << '\n';
    std::cout << other.size() << '\n';
}
CXX
    under g++ -std=c++17 -O2 maps.cc -o maps
    under ./maps
}

needs_make="make gcc"
work_make() {
    local i
    for i in {1..6}; do
        printf 'int f%d(int x) { int s = 0; for (int i = 0; i < x; i++) s += i %% %d; return s; }\n' "$i" "$((i + 2))" > "f$i.c"
    done
    cat > main.c <<'C'
#include <stdio.h>
int f1(int), f2(int), f3(int), f4(int), f5(int), f6(int);
int main(void) { return printf("%d\n", f1(9) + f2(9) + f3(9) + f4(9) + f5(9) + f6(9)) < 0; }
C
    cat > Makefile <<'MAKE'
objects := $(patsubst %.c,%.o,$(sort $(wildcard *.c)))
stamps := $(addprefix stamp-,$(shell seq 1 60))
all: program $(stamps)
	@echo done $(words $^)
	@./program
program: $(objects)
	@gcc -o $@ $^
%.o: %.c
	@gcc -O1 -c -o $@ $<
stamp-%:
	@echo $* > $@
MAKE
    under make -j2
    under make -j2
}

needs_sqlite3="sqlite3"
work_sqlite3() {
    under sqlite3 :memory: "
        create table t(id integer primary key, k text, v blob);
        with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
            insert into t select x, printf('key %d', x * 7919 % 10007), zeroblob(x % 200) from c;
        create index i on t(k);
        select count(*), count(distinct k), sum(length(v)) from t;
        select k, count(*) from t group by k order by 2 desc, 1 limit 5;
        begin; delete from t where id % 3 = 0; update t set k = k || '!' where id % 5 = 0; commit;
        select json_group_array(id) from (select id from t where k like '%1!' order by id limit 20);
        with recursive c(x) as (select 1 union all select x + 1 from c where x < 50000)
            select sum(x), count(distinct x % 997), group_concat(x % 3) like '1,2,0%' from c;
        vacuum; pragma integrity_check;"
}

needs_redis="redis-server redis-cli"
work_redis() {
    under redis-server --port 0 --unixsocket s --save "" --appendonly no --daemonize no > log &
    local server=$! tries
    for ((tries = 0; tries < 200; tries++)); do
        [[ -S s ]] && break
        kill -0 "$server" || break
        sleep 0.05
    done
    for ((i = 0; i < 1000; i++)); do
        case $((i % 8)) in
            0) echo "SET key:$i $(printf "%0$((i % 300 + 1))d" "$i")" ;;
            1) echo "INCRBY counter $i" ;;
            2) echo "LPUSH list:$((i % 3)) item-$i another-$i" ;;
            3) echo "HSET hash:$((i % 5)) field$i value$i" ;;
            4) echo "ZADD ranks $((i * 7 % 101)) member$i" ;;
            5) echo "APPEND text-$((i % 4)) chunk$i" ;;
            6) echo "LRANGE list:$((i % 3)) 0 5" ;;
            7) echo "EVAL \"return {#ARGV, ARGV[1] .. redis.call('GET', KEYS[1])}\" 1 counter a$i" ;;
        esac
    done > commands
    under redis-cli -s s < commands
    under redis-cli -s s DBSIZE
    under redis-cli -s s ZRANGE ranks 0 -1 WITHSCORES
    under redis-cli -s s SHUTDOWN NOSAVE
    wait "$server"
}

needs_sort="sort"
work_sort() {
    lines 200000 > in
    under sort --parallel=2 -S 8M in | sha256sum
    under sort --parallel=2 -S 64M -n -k1,1 -u in | sha256sum
}

needs_xz="xz"
work_xz() {
    lines 150000 > in
    under xz -T2 -1 --block-size=1MiB -k in
    sha256sum < in.xz
    under xz -T2 -dc in.xz | cmp - in
    under xz -l in.xz
}

needs_openssl="openssl"
work_openssl() {
    lines 1000 > in
    under openssl genrsa -out key 2048
    under openssl rsa -in key -check -noout
    under openssl rsa -in key -pubout -out public
    under openssl dgst -sha256 -sign key -out signature in
    under openssl dgst -sha256 -verify public -signature signature in
    under openssl req -x509 -new -key key -subj /CN=example.org -days 1 -out certificate
    under openssl x509 -in certificate -noout -subject
    under openssl enc -aes-256-cbc -pbkdf2 -iter 1000 -pass pass:x -in in -out sealed
    under openssl enc -d -aes-256-cbc -pbkdf2 -iter 1000 -pass pass:x -in sealed | cmp - in
}

needs_tar="tar gzip"
work_tar() {
    mkdir -p tree/{a,b,c}/{1..20} out
    local directory
    for directory in tree/*/*; do lines 50 > "$directory/file"; done
    under tar --sort=name --mtime=@0 --owner=0 --group=0 -czf t.tgz tree
    under tar -tzf t.tgz
    under tar -xzf t.tgz -C out
    diff -r tree out/tree
}

needs_curl="curl"
work_curl() {
    lines 5000 > in
    under curl -sS "file://$PWD/in" | sha256sum
    under curl -sS "file://$PWD/in" "file://$PWD/in" -o a -o b
    cmp a b
    under curl -sS --range 100-199 "file://$PWD/in"
}

needs_awk="awk"
work_awk() {
    lines 30000 > in
    under awk '{ count[$1 % 500]++; text[$4] = text[$4] "," $2; gsub(/[0-9]/, "#", $3) }
        END { for (k in count) { n++; s += count[k] } for (k in text) t += length(text[k]); print NR, n, s, t }' in
}

needs_jq="jq"
work_jq() {
    under jq -n -c '[range(3000) | {id: ., name: "n\(. * 7 % 101)", list: [range(. % 5)]}]' > in
    under jq -c 'group_by(.name) | map({name: .[0].name, n: length, ids: map(.id) | add}) | sort_by(-.ids) | .[:5]' in
    under jq '[.[] | .list | add // 0] | add' in
    under jq -r '.[] | select(.id % 500 == 3) | "\(.id) \(.name | ascii_upcase)"' in
}

needs_lua="lua5.4"
work_lua() {
    cat > p.lua <<'LUA'
local t, parts = {}, {}
for i = 1, 20000 do t[i] = { id = i, name = ("n%d"):format(i * 7919 % 10007) } end
table.sort(t, function(a, b) return a.name < b.name or (a.name == b.name and a.id < b.id) end)
for i = 1, 20000, 1000 do parts[#parts + 1] = t[i].name end
print(table.concat(parts, " "))
local co = coroutine.wrap(function() for w in (("word "):rep(1000)):gmatch("%a+") do coroutine.yield(w) end end)
local n = 0
while co() do n = n + 1 end
print(n, #(("x"):rep(300000)), select("#", table.unpack(t, 1, 200)))
t = nil; collectgarbage(); print(pcall(error, { code = 1 }))
LUA
    # An address may be in the output.
    under lua5.4 p.lua | sed 's/0x[0-9a-f]*/address/'
}

needs_node="node"
work_node() {
    cat > p.js <<'JS'
const zlib = require("zlib"), crypto = require("crypto");
const { Worker } = require("worker_threads");
const map = new Map();
for (let i = 0; i < 5000; i++) map.set("k" + i, Buffer.alloc(i % 300, i % 251));
const text = JSON.stringify([...map.entries()].map(([k, v]) => [k, v.toString("base64")]));
const back = zlib.gunzipSync(zlib.gzipSync(text)).toString();
console.log(map.size, back === text, crypto.createHash("sha256").update(text).digest("hex"));
const worker = new Worker("require('worker_threads').parentPort.postMessage([...Array(100).keys()].reduce((a, b) => a + b))", { eval: true });
worker.on("message", (sum) => console.log("worker", sum));
worker.on("exit", (code) => console.log("exit", code));
JS
    under node p.js
}

# shellcheck source=tests/preload/matrix.sh
source "${self%/*}/matrix.sh"

programs=(bash ls python3 python3_malloc perl git gcc gxx make sqlite3 redis sort xz openssl tar curl awk jq lua node)

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$self"
    exit "$1"
}

only="" limit=60 times=0 modes=()
while (($#)); do
    case $1 in
        --work)
            "work_$2"
            exit
            ;;
        --all)
            programs=("${matrix[@]}")
            shift
            ;;
        --matrix)
            programs=("${matrix[@]}") times=20 limit=300 modes=(mode=harden mode=patrol mode=hunt)
            shift
            ;;
        --times)
            times=${2:?--times N}
            shift 2
            ;;
        --list)
            [[ ${2:-} != --all ]] || programs=("${matrix[@]}")
            printf '%s\n' "${programs[@]}"
            exit
            ;;
        --only)
            only=${2:?--only NAME}
            shift 2
            ;;
        --limit)
            limit=${2:?--limit SECONDS}
            shift 2
            ;;
        -h | --help) usage 0 ;;
        *) break ;;
    esac
done
(($# == 1 || $# == 2)) || usage 2
library=$(readlink -e "$1") || {
    echo "survive.sh: there is no $1" >&2
    exit 2
}
options=${2:-}
if [[ -n $only && " ${programs[*]} " != *" $only "* ]]; then
    echo "survive.sh: no program is called $only; --list names them" >&2
    exit 2
fi
ulimit -c 0
scratch=$(mktemp -d)
# Some servers run as another user.
chmod 755 "$scratch"
trap 'rm -rf "$scratch"' EXIT

# Runs program $1 in round $2 for at most $3 seconds; its output is $scratch/$1.$2.out and .err.
round() {
    local name=$1 round=$2 most=$3
    mkdir -m 755 "$scratch/$name.$round"
    (cd "$scratch/$name.$round" && exec timeout -k 5 "$most" bash "$self" --work "$name") \
        > "$scratch/$name.$round.out" 2> "$scratch/$name.$round.err" < /dev/null
}

# Prints why the preloaded round of program $1, which ended with status $2 and could take $3 seconds, is a
# failure, if it is.
verdict() {
    local name=$1 status=$2 most=$3 line
    # Processes without a stderr of their own still write to the log.
    line=$(cat "$scratch/$name".log.* "$scratch/$name.preloaded.err" 2> /dev/null | grep -m1 'ERROR: fencepost:') || true
    if [[ -n $line ]]; then
        echo "$line"
    elif ((status == 124 || status == 137)); then
        echo "took more than $most s"
    elif ((status != 0)); then
        echo "status $status: $(tail -n 1 "$scratch/$name.preloaded.err")"
    elif ! cmp -s "$scratch/$name.plain.out" "$scratch/$name.preloaded.out"; then
        echo "other output: $(diff "$scratch/$name.plain.out" "$scratch/$name.preloaded.out" | sed -n 2p)"
    elif line=$(grep -v '^fencepost: the mappings that vm.max_map_count allows are in use' \
        "$scratch/$name.preloaded.err" | grep -m1 'fencepost:'); then
        echo "$line"
    fi
}

# Runs all programs with the options $1; one line each and the counts, which are added up.
all_passed=0 all_failed=0 all_skipped=0
survive() {
    local options=$1 passed=0 failed=0 skipped=0 name missing needs program begin middle end most status reason
    for name in "${programs[@]}"; do
        [[ -z $only || $only == "$name" ]] || continue
        missing=""
        needs="needs_$name"
        for program in ${!needs}; do
            command -v "$program" > /dev/null || missing+=" $program"
        done
        if [[ -n $missing ]]; then
            echo "$name skipped: not installed:$missing"
            skipped=$((skipped + 1))
            continue
        fi
        begin=${EPOCHREALTIME/./}
        if ! round "$name" plain "$limit" || [[ ! -s $scratch/$name.plain.out ]]; then
            echo "$name FAIL without the library: $(tail -n 1 "$scratch/$name.plain.err")"
            failed=$((failed + 1))
            continue
        fi
        middle=${EPOCHREALTIME/./}
        most=$limit
        if ((times != 0)); then
            most=$(((middle - begin) * times / 1000000 + 1))
            ((most >= 2)) || most=2
        fi
        status=0
        SURVIVE_LIB=$library SURVIVE_OPTIONS="$options:log_path=$scratch/$name.log.%p" \
            round "$name" preloaded "$most" || status=$?
        end=${EPOCHREALTIME/./}
        reason=$(verdict "$name" "$status" "$most")
        if [[ -z $reason ]]; then
            echo "$name ok: $(((end - middle) / 1000)) ms, plain $(((middle - begin) / 1000)) ms"
            passed=$((passed + 1))
        else
            echo "$name FAIL $reason"
            failed=$((failed + 1))
        fi
        rm -rf "$scratch/$name".*
    done
    echo "survive: $passed passed, $failed failed, $skipped skipped"
    all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed)) all_skipped=$((all_skipped + skipped))
}

if ((${#modes[@]} == 0)); then
    survive "$options"
else
    for mode in "${modes[@]}"; do
        echo "== $mode"
        survive "$mode${options:+:$options}"
    done
    echo "matrix: $all_passed passed, $all_failed failed, $all_skipped skipped"
fi
((all_failed == 0)) && { ((all_skipped == 0)) || [[ -z ${CI:-} ]]; }
