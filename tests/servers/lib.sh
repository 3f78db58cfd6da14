# Shared by the server scripts: `. "$(dirname "$0")/lib.sh"`.
# Everything listens on 127.0.0.1 only. Data: MF_DIR, else ${MF_SERVERS_DIR:-${TMPDIR:-/tmp}/mf-servers}/NAME-PORT.
# Exit codes: 0 done, 1 the server failed, 2 usage, 3 the server cannot be had on this machine.
set -eu
base=${MF_SERVERS_DIR:-${TMPDIR:-/tmp}/mf-servers}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

unavailable() { echo "$*" >&2; exit 3; }
usage() { echo "usage: $0 start|stop|kill|restart|url|wipe" >&2; exit 2; }

# install_packages PACKAGE...: from Debian, as root. One installation at a time; lists are refreshed if the first try fails.
install_packages() {
    [ "$(id -u)" = 0 ] || unavailable "not installed, and only root can install it: apt-get install $*"
    command -v apt-get >/dev/null || unavailable "not installed, and there is no apt-get here: $*"
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1   # RUNLEVEL=1: the packaged service is not started
    get="apt-get -qq -y -o DPkg::Lock::Timeout=120 install --no-install-recommends"
    $get "$@" >/dev/null 2>&1 || { apt-get -qq update && $get "$@"; } >/dev/null 2>&1 || unavailable "cannot install $*"
}

# as USER CMD...: drop root to USER; a no-op for anybody else.
as() {
    user=$1; shift
    if [ "$(id -u)" = 0 ]; then setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"; else "$@"; fi
}

# own FOLDER USER: make it, and hand it to the user the server runs as.
own() {
    mkdir -p "$1"
    if [ "$(id -u)" = 0 ]; then chown "$2" "$1"; fi
}

# wait_for SECONDS PIDFILE CMD...: poll until CMD succeeds; give up at once when the process has gone.
wait_for() {
    n=$(($1 * 10)) file=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        n=$((n - 1))
        [ "$n" -gt 0 ] || { echo "$0: the server did not come up in time" >&2; return 1; }
        if [ -s "$file" ] && ! running "$(head -n1 "$file")"; then echo "$0: the server ended while starting" >&2; return 1; fi
        sleep 0.1
    done
}

# running PID: whether it is alive; a zombie that nobody has collected is not.
running() {
    kill -0 "$1" 2>/dev/null || return 1
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 0
    case ${stat##*) } in Z*) return 1 ;; esac
}

# ours PIDFILE WORD: whether that process is alive and its command line has WORD (a number may have been reused).
ours() {
    [ -s "$1" ] && number=$(head -n1 "$1") && running "$number" &&
        { tr '\0' ' ' <"/proc/$number/cmdline" 2>/dev/null || ps -o args= -p "$number"; } | grep -qF -- "$2"
}

# end PIDFILE WORD SIGNAL: signal the process we started, wait up to 30 s for it to go, then insist.
end() {
    if ours "$1" "$2"; then
        number=$(head -n1 "$1")
        kill "-$3" "$number" 2>/dev/null || true
        n=300
        while running "$number"; do
            n=$((n - 1)); [ "$n" -gt 0 ] || kill -9 "$number" 2>/dev/null || true
            sleep 0.1
        done
    fi
    rm -f "$1"
}

# guard PIDFILE: kill -9 the server when process MF_OWNER has gone, so that no server outlives its test session.
guard() {
    [ -n "${MF_OWNER:-}" ] || return 0
    number=$(head -n1 "$1")
    ( trap '' INT HUP
      while running "$MF_OWNER"; do
          sleep 1
          [ "$(head -n1 "$1")" = "$number" ] && running "$number" || exit 0
      done
      "$here/${0##*/}" kill ) </dev/null >/dev/null 2>&1 &
}

# ports WANTED COUNT: the ports of this server, "A B C": those it had before, else WANTED and the following, else free ones.
ports() {
    if [ ! -s "$dir/ports" ]; then
        if [ "$1" = 0 ]; then "$python" "$here/ports.py" free "$2"; else seq -s ' ' "$1" "$(($1 + $2 - 1))"; fi >"$dir/ports"
    fi
    cat "$dir/ports"
}
