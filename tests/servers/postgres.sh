#!/bin/sh
# PostgreSQL on the loopback, user and database "market", trust auth: start|stop|kill|restart|url|wipe.
#   MF_DIR, MF_OWNER   see kafka.sh; PostgreSQL refuses to be root, so its user must be able to reach the folder
#   MF_PG_PORT         15432; 0 chooses a free one, `url` tells
#   MF_PG_FSYNC        on, or off for throw-away speed
. "$(dirname "$0")/lib.sh"
wanted=${MF_PG_PORT:-15432}
dir=${MF_DIR:-$base/postgres-$wanted}
data=$dir/data
bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n1; }
start() {
    [ -n "$(bin)" ] || install_packages postgresql
    bin=$(bin)
    own "$dir" postgres
    cd "$dir"
    port=$(ports "$wanted" 1)
    ! ours "$data/postmaster.pid" "$data" || return 0
    if [ ! -s "$data/PG_VERSION" ]; then
        as postgres "$bin/initdb" -D "$data" -U market -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
    fi
    as postgres "$bin/pg_ctl" -D "$data" -l "$dir/postgres.log" -w -t 30 start \
        -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories= -c fsync=${MF_PG_FSYNC:-on}" >/dev/null
    "$bin/psql" -qtAX -h 127.0.0.1 -p "$port" -U market -d postgres -c "select 1 from pg_database where datname='market'" |
        grep -q 1 || "$bin/createdb" -h 127.0.0.1 -p "$port" -U market market
    guard "$data/postmaster.pid"
}
finish() { end "$data/postmaster.pid" "$data" "$1"; }   # SIGINT is PostgreSQL's fast shutdown
case ${1:-} in
start) start ;;
stop) finish INT ;;
kill) finish KILL ;;
restart) finish INT; start ;;
url) echo "postgresql://market@127.0.0.1:$(ports "$wanted" 1)/market" ;;
wipe) finish INT; rm -rf "$dir" ;;
*) usage ;;
esac
