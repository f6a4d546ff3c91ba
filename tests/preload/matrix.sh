# The rest of the survival matrix: programs that CI does not install. Sourced by survive.sh, which says how a
# program is written down. Servers listen on sockets in their directory, and everything stays in it.

# What a server has to open before it is spoken to, ten seconds at most.
await() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        [[ -e $1 ]] && return
        sleep 0.05
    done
    return 1
}

needs_nginx="nginx curl"
work_nginx() {
    mkdir root temp
    lines 3000 > root/page
    cat > conf <<CONF
daemon off;
master_process on;
worker_processes 2;
user root;
pid $PWD/pid;
error_log $PWD/error.log;
events { worker_connections 64; }
http {
    access_log off;
    gzip on;
    gzip_types *;
    client_body_temp_path $PWD/temp/1; proxy_temp_path $PWD/temp/2; fastcgi_temp_path $PWD/temp/3;
    uwsgi_temp_path $PWD/temp/4; scgi_temp_path $PWD/temp/5;
    server {
        listen unix:$PWD/socket;
        root $PWD/root;
        location /again { proxy_pass http://unix:$PWD/socket:/page; }
    }
}
CONF
    under nginx -c "$PWD/conf" &
    local server=$! i
    await socket
    for i in {1..20}; do curl -sSf --unix-socket socket "http://localhost/page"; done | sha256sum
    for i in {1..10}; do curl -sSf --compressed --unix-socket socket "http://localhost/again"; done | sha256sum
    curl -sS -o answer -w '%{http_code}\n' --unix-socket socket http://localhost/none
    kill -HUP "$(cat pid)"
    sleep 0.2
    curl -sSf --retry 5 --unix-socket socket http://localhost/page | tail -n 1
    kill -QUIT "$(cat pid)"
    wait "$server"
}

# The server refuses to run as root.
postgres_bin=$(compgen -G '/usr/lib/postgresql/*/bin' | tail -n 1 || true)
needs_postgres="runuser ${postgres_bin:-/usr/lib/postgresql}/initdb"
work_postgres() {
    local as=()
    if ((EUID == 0)); then
        chown postgres .
        as=(runuser -u postgres --)
    fi
    mkdir data
    ((EUID != 0)) || chown postgres data
    under "${as[@]}" "$postgres_bin/initdb" -N -A trust -D "$PWD/data" > log
    cat > commands <<'SQL'
create table t as select g as id, md5(g::text) as text, g % 17 as part from generate_series(1, 20000) g;
create index on t (part, id);
select part, count(*), sum(id), min(text) from t group by part order by part;
delete from t where id % 3 = 0;
select count(*), sum(length(text)) from t where text like '%a%';
with recursive f(a, b) as (select 0::numeric, 1::numeric union all select b, a + b from f where b < 1e30) select max(a) from f;
vacuum full t;
SQL
    under "${as[@]}" "$postgres_bin/postgres" --single -j -D "$PWD/data" postgres < <(sed 's/;$/;\n/' commands)
}

needs_java="java javac"
work_java() {
    cat > Main.java <<'JAVA'
import java.util.*;
import java.util.stream.*;
public class Main {
    public static void main(String[] arguments) throws Exception {
        Map<String, List<Integer>> groups = IntStream.range(0, 200000).boxed()
            .collect(Collectors.groupingByConcurrent(i -> "g" + i % 97, Collectors.toList()));
        System.out.println(groups.size() + " " + groups.values().stream().mapToLong(List::size).sum());
        java.util.zip.Deflater deflater = new java.util.zip.Deflater();
        byte[] text = "fence".repeat(50000).getBytes(), packed = new byte[text.length];
        deflater.setInput(text); deflater.finish();
        System.out.println(deflater.deflate(packed));
        Thread[] threads = new Thread[8];
        long[] sums = new long[8];
        for (int t = 0; t < 8; t++) {
            int n = t;
            threads[t] = new Thread(() -> { for (int i = 0; i < 100000; i++) sums[n] += new byte[i % 100].length; });
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        System.out.println(Arrays.toString(sums));
        try { ((Object) null).hashCode(); } catch (NullPointerException caught) { System.out.println("caught"); }
    }
}
JAVA
    under javac Main.java
    under java -Xmx256m Main
}

needs_chromium="chromium"
work_chromium() {
    cat > page.html <<'HTML'
<!doctype html><title>page</title><p id=out></p><script>
let rows = [];
for (let i = 0; i < 500; i++) rows.push({ id: i, text: "row " + i * 7919 % 1009 });
rows.sort((a, b) => a.text < b.text ? -1 : 1);
document.getElementById("out").textContent = rows.slice(0, 5).map(r => r.text).join(", ");
</script>
HTML
    under chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --user-data-dir="$PWD/profile" --dump-dom "file://$PWD/page.html" 2> log
}

needs_vim="vim"
work_vim() {
    lines 3000 > in
    under vim -Es -u NONE -N -i NONE \
        -c '%s/line \(\d\+\)/[\1]/' -c 'g/^1/m0' -c 'sort n' -c 'normal ggdGu' -c 'v/7/d' \
        -c 'call append(0, map(range(1, 2000), "printf(\"%d\", v:val * v:val)"))' -c 'w! out' -c 'qa!' in
    sha256sum out
}

needs_tmux="tmux"
work_tmux() {
    export TMUX_TMPDIR=$PWD
    under tmux -f /dev/null new-session -d -x 80 -y 24 'for i in 1 2 3 4 5; do echo row $i; done; touch done; exec sleep 30'
    await done
    local i
    for i in {1..5}; do under tmux split-window -d "echo pane $i; exec sleep 30" && under tmux select-layout tiled; done
    under tmux new-window -d -n other 'exec sleep 30'
    under tmux list-windows -F '#{window_name} #{window_panes}' | sed 's/^[a-z]* 6/first 6/'
    sleep 0.2
    under tmux capture-pane -p -t :0.0 | grep row
    under tmux kill-server
}

needs_ffmpeg="ffmpeg"
work_ffmpeg() {
    under ffmpeg -v error -f lavfi -i testsrc=duration=1:size=320x240:rate=10 -f lavfi -i sine=duration=1 \
        -threads 2 -c:v mpeg4 -c:a mp2 -bitexact -flags +bitexact -y out.avi
    under ffmpeg -v error -i out.avi -vf scale=160:-1,hflip -bitexact -f framemd5 -
}

needs_convert="convert identify"
work_convert() {
    under convert -seed 3 -size 200x150 plasma: -blur 0x2 -resize 50% -colorspace gray -depth 8 pgm:out.pgm
    sha256sum out.pgm
    under convert out.pgm -rotate 30 -quality 80 out.jpg
    under convert out.jpg out.png
    under identify -format '%m %wx%h\n' out.jpg out.png
}

needs_gs="gs"
work_gs() {
    cat > in.ps <<'PS'
/Helvetica findfont 24 scalefont setfont
50 700 moveto (fence posts) show
0 5 300 { dup 2 mul exch 100 add moveto 40 30 rlineto 2 setlinewidth stroke } for
1 1 60 { /i exch def i 60 div setgray i 8 mul 500 20 40 rectfill } for
showpage
PS
    under gs -q -dBATCH -dNOPAUSE -sDEVICE=pgmraw -r72 -sOutputFile=out.pgm in.ps
    sha256sum out.pgm
    under gs -q -dBATCH -dNOPAUSE -sDEVICE=pdfwrite -sOutputFile=out.pdf in.ps
    under gs -q -dBATCH -dNOPAUSE -sDEVICE=bbox out.pdf 2>&1 | tail -n 1
}

needs_ssh_keygen="ssh-keygen"
work_ssh_keygen() {
    under ssh-keygen -q -t ed25519 -N '' -C comment -f one
    under ssh-keygen -q -t rsa -b 2048 -N secret -f two
    under ssh-keygen -y -P secret -f two | cut -c 1-20
    lines 100 > in
    under ssh-keygen -q -Y sign -f one -n file in
    echo "me $(cut -d' ' -f 1,2 one.pub)" > allowed
    under ssh-keygen -Y verify -f allowed -I me -n file -s in.sig < in | cut -d' ' -f 1-5
    under ssh-keygen -l -f one.pub | cut -d' ' -f 1,3,4
}

# Its loader ignores LD_PRELOAD: what it starts has it again, if it asks.
needs_sudo="sudo"
work_sudo() {
    under sudo -n true
    under sudo -n LD_PRELOAD="${SURVIVE_LIB:-}" FENCEPOST_OPTIONS="${SURVIVE_OPTIONS:-}" perl -e 'print join(",", map { $_ * $_ } 1 .. 50), "\n"'
    under sudo -n whoami
}

needs_man="man"
work_man() {
    cat > page.1 <<'MAN'
.TH PAGE 1
.SH NAME
page \- a page
.SH DESCRIPTION
.B page
says nothing, at
.I length .
MAN
    lines 300 | sed 's/^/.PP\n/' >> page.1
    MANWIDTH=80 MAN_DISABLE_SECCOMP=1 under man -l -P cat ./page.1
}

needs_ruby="ruby"
work_ruby() {
    under ruby -e '
        words = (1..20000).map { |i| (i * 7919 % 10007).to_s(36) * 2 }
        puts words.group_by(&:size).map { |k, v| [k, v.size] }.sort.inspect
        f = Hash.new { |h, n| h[n] = n < 2 ? n : h[n - 1] + h[n - 2] }
        puts f[90]
        puts (1..4).map { |n| Thread.new { (1..5000).map { |i| "#{n}-#{i}" }.join.hash; n } }.map(&:value).inspect
        puts IO.popen("cat", "r+") { |io| io.write(words.join("\n")); io.close_write; io.read.size }
        GC.start; puts words.sort.uniq.first(5).join(" ")'
}

needs_php="php"
work_php() {
    under php -r '
        $a = [];
        for ($i = 0; $i < 20000; $i++) $a[md5((string)$i)] = str_repeat("x", $i % 100);
        ksort($a);
        echo count($a), " ", key($a), " ", strlen(serialize($a)), "\n";
        echo count(json_decode(json_encode(array_keys($a)))), " ", preg_match_all("/a(\d)/", implode(array_keys($a))), "\n";
        echo implode(",", array_map(fn($x) => $x ** 2, range(1, 20))), "\n";
        $o = new ArrayObject($a); unset($a); gc_collect_cycles(); echo count($o), "\n";'
}

needs_gawk="gawk"
work_gawk() {
    lines 30000 > in
    under gawk '{ n[$1 % 500]++; t[$4][$1 % 7] = t[$4][$1 % 7] $2; gsub(/[0-9]/, "#", $3) }
        END { PROCINFO["sorted_in"] = "@ind_num_asc"; for (k in n) s = s k ":" n[k] " "; print s; print length(t), NR
              while (("seq 1 2000" | getline x) > 0) y += x; print y, toupper(substr(s, 1, 40)), strftime("%Y", 0, 1) }' in
}

needs_rustc="rustc"
work_rustc() {
    cat > main.rs <<'RUST'
use std::collections::BTreeMap;
fn main() {
    let mut words: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for i in 0..5000_u64 { words.entry(format!("w{}", i * i % 321)).or_default().push(i); }
    let sum: u64 = std::thread::spawn(move || words.values().flatten().sum()).join().unwrap();
    println!("{sum}");
}
RUST
    under rustc --edition 2021 -O main.rs
    under ./main
}

matrix=(python3 python3_malloc perl git gcc gxx make bash sqlite3 redis nginx postgres node java chromium vim tmux curl ffmpeg
    convert gs sort openssl ssh_keygen sudo man ruby php xz tar gawk rustc)
