#!/bin/sh
# A real Apache Kafka, one KRaft node on the loopback: start|stop|kill|restart|url|wipe. `kill` is kill -9; a node that
# is started again takes its ports and data back. `start` returns when the node takes work.
#
#   MF_DIR                data, ports, logs of this node (default: below MF_SERVERS_DIR, see lib.sh)
#   MF_KAFKA_PORT         plaintext port (19092); 0 chooses free ones, `url` tells
#   MF_KAFKA_DATA         data folder (MF_DIR/data), for a disk of its own
#   MF_KAFKA_PROPERTIES   more lines for server.properties; they win over ours
#   MF_KAFKA_USERS        "NAME:PASSWORD ...": a listener with SASL PLAIN
#   MF_KAFKA_PEM          file with private key and certificates: a listener with TLS (with users: one with both)
#   MF_KAFKA_ACL=1        nobody may do anything without an ACL, but for clients of the plaintext ports and user admin
#   MF_KAFKA_JARS         a folder of jars instead of those that Maven fetches
#   MF_OWNER              a process id: the node is killed when that process has gone
#   KAFKA_HEAP_OPTS       -Xmx512m
#
# Runs on Java 17 and jars that mvn resolves by kafka/pom.xml, once per checkout; where Java or Maven is missing, in the
# official image by Docker. Exit 3, with a line saying why, where neither can be had.
. "$(dirname "$0")/lib.sh"
version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/kafka/pom.xml")
dir=${MF_DIR:-$base/kafka-${MF_KAFKA_PORT:-19092}}
data=${MF_KAFKA_DATA:-$dir/data}
cache=$here/../../.tox/servers/kafka-$version
pidfile=$dir/pid
image=apache/kafka:$version

# --- where the program comes from -------------------------------------------------------------------------------------

java_17() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | grep -qE '^(1[7-9]|[2-9][0-9])$'; }
locked() { if command -v flock >/dev/null; then flock "$1"; fi; }   # Maven's local repository is not for two at a time

fetch_jars() {
    command -v mvn >/dev/null || { why="no Maven here"; return 1; }
    mkdir -p "$cache.log"
    ( locked 9
      [ ! -d "$cache" ] || exit 0
      rm -rf "$cache.new"
      mvn -q -B -f "$here/kafka/pom.xml" -DincludeScope=runtime -DoutputDirectory="$(cd "$cache.log/.." && pwd)/${cache##*/}.new" \
          dependency:copy-dependencies >"$cache.log/mvn.log" 2>&1 9>&- &&
          mv "$cache.new" "$cache" ) 9>"$cache.log/lock" || { why="Maven cannot resolve Apache Kafka: see ${cache##*/}.log/mvn.log"; return 1; }
}

find_jars() {
    jars=${MF_KAFKA_JARS:-$cache}
    if ! command -v java >/dev/null || ! java_17; then why="no Java 17 here"; return 1; fi
    [ -d "$jars" ] || [ -n "${MF_KAFKA_JARS:-}" ] || fetch_jars
}

# find_program: sets jars, or leaves it empty for Docker; remembers which in MF_DIR/how.
find_program() {
    why=
    if [ "${MF_KAFKA_DOCKER:-}" != 1 ] && find_jars; then echo "jars $jars" >"$dir/how"; return 0; fi
    docker info >/dev/null 2>&1 || unavailable "Apache Kafka cannot run here: $why, and no Docker that answers"
    jars=
    echo docker >"$dir/how"
}
by_docker() { grep -qx docker "$dir/how" 2>/dev/null; }

# program MAIN ARGS...: replaces the (sub)shell by Kafka's JVM, in a session of its own: Ctrl-C of a test run is not its.
program() {
    heap=${KAFKA_HEAP_OPTS:--Xmx512m}
    options="-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Dlog4j2.level=${MF_KAFKA_LOG:-WARN}"
    # shellcheck disable=SC2086  # options are words
    if [ -n "$jars" ]; then exec setsid java $heap $options -cp "$jars/*" "$@"; fi
    # shellcheck disable=SC2086
    exec setsid docker run --rm --name "$(container)${MF_PART:-}" --network host --user "$(id -u):$(id -g)" \
        -v "$dir:$dir" -v "$data:$data" ${MF_KAFKA_PEM:+-v "$MF_KAFKA_PEM:$MF_KAFKA_PEM:ro"} \
        --entrypoint java "$image" $heap $options -cp '/opt/kafka/libs/*' "$@"
}
container() { echo "marketfeed-kafka-$port"; }

# --- its settings -----------------------------------------------------------------------------------------------------

choose_ports() {
    [ -s "$dir/ports" ] || {
        # shellcheck disable=SC2046  # words
        set -- $("$python" "$here/ports.py" free 7)
        [ "${MF_KAFKA_PORT:-19092}" = 0 ] || { shift; set -- "${MF_KAFKA_PORT:-19092}" "$@"; }
        echo "port=$1 controller=$2 sasl=$3 tls=$4 sasl_tls=$5 behind=$6 front=$7" >"$dir/ports"
    }
    read_ports
}
read_ports() { [ ! -s "$dir/ports" ] || eval "$(cat "$dir/ports")"; }

listener() {  # NAME PROTOCOL PORT [ADVERTISED]
    listeners="$listeners,$1://127.0.0.1:$3" advertised="$advertised,$1://127.0.0.1:${4:-$3}" protocols="$protocols,$1:$2"
}

properties() {
    listeners=PLAINTEXT://127.0.0.1:$port advertised=PLAINTEXT://127.0.0.1:$port
    protocols=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
    listener PROXIED PLAINTEXT "$behind" "$front"      # clients are told the front port, where a proxy may listen
    [ -z "${MF_KAFKA_USERS:-}" ] || listener SASL SASL_PLAINTEXT "$sasl"
    [ -z "${MF_KAFKA_PEM:-}" ] || listener TLS SSL "$tls"
    [ -z "${MF_KAFKA_USERS:-}" ] || [ -z "${MF_KAFKA_PEM:-}" ] || listener SASLTLS SASL_SSL "$sasl_tls"
    cat <<P
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:$controller
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
inter.broker.listener.name=PLAINTEXT
log.dirs=$data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=8388608
P
    [ -z "${MF_KAFKA_USERS:-}" ] || users
    [ -z "${MF_KAFKA_PEM:-}" ] || printf 'ssl.keystore.type=PEM\nssl.keystore.location=%s\n' "$MF_KAFKA_PEM"
    [ -z "${MF_KAFKA_ACL:-}" ] || printf '%s\n' \
        'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer' \
        'super.users=User:ANONYMOUS;User:admin'
    printf '%s\n' "${MF_KAFKA_PROPERTIES:-}"
}

users() {
    login='org.apache.kafka.common.security.plain.PlainLoginModule required'
    for user in $MF_KAFKA_USERS; do login="$login user_${user%%:*}=\"${user#*:}\""; done
    echo 'sasl.enabled.mechanisms=PLAIN'
    for name in sasl sasltls; do echo "listener.name.$name.plain.sasl.jaas.config=$login;"; done
}

# --- its life ---------------------------------------------------------------------------------------------------------

ready() { "$python" "$here/ports.py" kafka "$port"; }

start() {
    mkdir -p "$dir" "$data" "$dir/log"
    dir=$(cd "$dir" && pwd)
    ! ours "$pidfile" "$dir/server.properties" || return 0
    find_program
    choose_ports
    ( umask 077; properties >"$dir/server.properties" )
    if [ ! -s "$data/meta.properties" ]; then
        id=M$("$python" -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes)[1:22].decode())')
        ( MF_PART=-format program kafka.tools.StorageTool format -t "$id" --standalone -c "$dir/server.properties" ) \
            >"$dir/log/format.log" 2>&1 || { echo "$0: cannot format: $(tail -n3 "$dir/log/format.log")" >&2; exit 1; }
    fi
    ( program kafka.Kafka "$dir/server.properties" ) </dev/null >>"$dir/log/kafka.log" 2>&1 &
    echo $! >"$pidfile"
    guard "$pidfile"
    wait_for 60 "$pidfile" ready || { tail -n5 "$dir/log/kafka.log" >&2; exit 1; }
}

finish() {  # SIGNAL
    read_ports
    if by_docker && [ "$1" = KILL ]; then docker kill "$(container)" >/dev/null 2>&1 || true; fi
    end "$pidfile" "$dir/server.properties" "$1"
}

case ${1:-} in
start) start ;;
stop) finish TERM ;;
kill) finish KILL ;;
restart) finish TERM; start ;;
url) read_ports; echo "127.0.0.1:${port:-${MF_KAFKA_PORT:-19092}}" ;;
wipe) finish KILL; rm -rf "$dir" "$data" ;;
*) usage ;;
esac
