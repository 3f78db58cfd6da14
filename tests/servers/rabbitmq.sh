#!/bin/sh
# RabbitMQ on the loopback, guest/guest: start|stop|kill|restart|url|wipe. Its Erlang distribution and epmd have ports of
# their own, so several can run side by side.
#   MF_DIR, MF_OWNER   see kafka.sh
#   MF_AMQP_PORT       15672 (and the two that follow); 0 chooses free ones, `url` tells
. "$(dirname "$0")/lib.sh"
wanted=${MF_AMQP_PORT:-15672}
dir=${MF_DIR:-$base/rabbitmq-$wanted}
bin=/usr/lib/rabbitmq/bin     # not /usr/sbin: those wrappers insist on the packaged directories
settings() {
    # shellcheck disable=SC2046  # words
    set -- $(ports "$wanted" 3)
    port=$1
    export HOME="$dir" RABBITMQ_NODENAME="mf$port@localhost" \
        RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$dir/log" RABBITMQ_PID_FILE="$dir/pid" \
        RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
        RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_DIST_PORT="$3" \
        ERL_EPMD_PORT="$2" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none'
}
ctl() { as rabbitmq "$bin/rabbitmqctl" -q "$@"; }
start() {
    [ -x $bin/rabbitmq-server ] || install_packages rabbitmq-server
    own "$dir" rabbitmq
    cd "$dir"
    settings
    ! ours "$dir/pid" "-home $dir " || return 0
    printf 'listeners.tcp.1 = 127.0.0.1:%s\nloopback_users.guest = true\n' "$port" >rabbitmq.conf
    echo '[].' >enabled_plugins
    rm -f pid
    as rabbitmq "$bin/rabbitmq-server" -detached >"$dir/start.log" 2>&1
    wait_for 20 '' test -s pid
    guard "$dir/pid"
    ctl await_startup --timeout 60 >/dev/null
}
finish() {
    [ -d "$dir" ] || return 0
    settings
    end "$dir/pid" "-home $dir " "$1"     # SIGTERM stops the node in order
    n=20     # epmd stays as long as it believes that its node lives
    while epmd -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1 && [ "$n" -gt 0 ]; do
        epmd -port "$ERL_EPMD_PORT" -kill >/dev/null 2>&1 || true
        n=$((n - 1)); sleep 0.1
    done
}
case ${1:-} in
start) start ;;
stop) finish TERM ;;
kill) finish KILL ;;
restart) finish TERM; start ;;
url) settings; echo "amqp://guest:guest@127.0.0.1:$port/%2F" ;;
wipe) finish KILL; rm -rf "$dir" ;;
*) usage ;;
esac
