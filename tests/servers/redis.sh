#!/bin/sh
# Redis on the loopback: start|stop|kill|restart|url|wipe. Append-only file on, so that what was acknowledged survives.
#   MF_DIR, MF_OWNER   see kafka.sh
#   MF_REDIS_PORT      16379; 0 chooses a free one, `url` tells
#   MF_REDIS_FSYNC     everysec, or always: every write is on the disk before its answer
. "$(dirname "$0")/lib.sh"
wanted=${MF_REDIS_PORT:-16379}
dir=${MF_DIR:-$base/redis-$wanted}
up() { redis-cli -h 127.0.0.1 -p "$port" ping | grep -q PONG; }   # LOADING is an answer too
start() {
    { command -v redis-server && command -v redis-cli; } >/dev/null || install_packages redis-server
    own "$dir" redis
    port=$(ports "$wanted" 1)
    ! ours "$dir/redis.pid" "127.0.0.1:$port" || return 0
    as redis redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --daemonize yes \
        --pidfile "$dir/redis.pid" --logfile "$dir/redis.log" --appendonly yes \
        --appendfsync "${MF_REDIS_FSYNC:-everysec}" --save '' >/dev/null
    wait_for 10 '' up
    guard "$dir/redis.pid"
}
finish() { [ ! -d "$dir" ] || end "$dir/redis.pid" "127.0.0.1:$(ports "$wanted" 1)" "$1"; }
case ${1:-} in
start) start ;;
stop) finish TERM ;;
kill) finish KILL ;;
restart) finish TERM; start ;;
url) echo "redis://127.0.0.1:$(ports "$wanted" 1)/0" ;;
wipe) finish KILL; rm -rf "$dir" ;;
*) usage ;;
esac
