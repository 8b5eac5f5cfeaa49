# What the drills share: private PostgreSQL servers, services, load whose acknowledgements are written down, and the check
# afterwards that nothing was lost and nothing counted twice. To be sourced; needs curl and PostgreSQL's programs.
#
# BIN      the directory of tasker, tasker-orchestration and tasker-worker (default: target/release)
# PG_BIN   the directory of initdb, postgres and psql (default: the newest of Debian's, else those in PATH)

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
BIN="${BIN:-$ROOT/target/release}"
if [ -z "${PG_BIN:-}" ]; then
    PG_BIN="$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1)"
    PG_BIN="${PG_BIN:-$(dirname "$(command -v initdb || echo /usr/bin/initdb)")}"
fi
WORK="$(mktemp -d /tmp/tasker-drill.XXXXXX)"
chmod 755 "$WORK"
SERVICES=()

say() { echo "$(date +%T) $*" >&2; }
die() { say "FAILED: $*"; exit 1; }
now_ms() { date +%s%3N; }

# PostgreSQL refuses to run as root; its account then is postgres.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups "$@")
    else
        (cd / && "$@")
    fi
}

own() { if [ "$(id -u)" -eq 0 ]; then chown postgres: "$@"; fi; }

# new_server NAME: a server that only listens on a socket in WORK/NAME-socket, not started.
new_server() {
    mkdir "$WORK/$1" "$WORK/$1-socket"
    chmod 700 "$WORK/$1" && chmod 755 "$WORK/$1-socket"
    own "$WORK/$1" "$WORK/$1-socket"
    as_postgres "$PG_BIN/initdb" -U tasker --auth=trust --encoding=UTF8 --locale=C --no-instructions --no-sync -D "$WORK/$1" >/dev/null
    settings "$1" "listen_addresses = ''" "port = 5432" "unix_socket_directories = '$WORK/$1-socket'" \
        "unix_socket_permissions = 0777" "wal_level = replica" "max_connections = 100"
}

settings() { local server="$1"; shift; printf '%s\n' "$@" | as_postgres tee -a "$WORK/$server/postgresql.conf" >/dev/null; }

start_server() { as_postgres "$PG_BIN/pg_ctl" -D "$WORK/$1" -l "$WORK/$1/server.log" -w start >/dev/null; }

server_url() { echo "postgres://tasker@localhost:5432/tasker?host=$WORK/$1"; }

# sql SOCKET_DIRECTORY STATEMENT
sql() { "$PG_BIN/psql" -h "$WORK/$1" -U tasker -d "${DATABASE:-tasker}" -X -q -A -t -v ON_ERROR_STOP=1 -c "$2"; }

# service NAME BIN PROGRAM URL: starts a service; its log is WORK/NAME.log, its process PID_NAME, its pages WORK/NAME.url.
service() {
    local name="$1" program="$2/$3"
    env -i PATH="$PATH" HOME=/nonexistent DATABASE_URL="$4" TASKER_ENV=production RUST_LOG=info \
        TASKER__ORCHESTRATION__HTTP_ADDRESS=127.0.0.1:0 TASKER__WORKER__HTTP_ADDRESS=127.0.0.1:0 \
        TASKER__AUTH__ENABLED=false TASKER__TELEMETRY__OPENTELEMETRY__ENABLED=false TASKER__DATABASE__MAX_CONNECTIONS=8 \
        TASKER__DATABASE__ACQUIRE_TIMEOUT_MS=2000 TASKER__DATABASE__CONNECT_TIMEOUT_MS=2000 \
        TASKER__WORKER__LEASE_MS=5000 TASKER__WORKER__HEARTBEAT_INTERVAL_MS=1000 TASKER__TELEMETRY__LOGS__FORMAT=json \
        "$program" >"$WORK/$name.log" 2>&1 &
    local pid=$!
    SERVICES+=("$pid")
    printf -v "PID_$name" '%s' "$pid"
    local address=""
    for _ in $(seq 300); do
        address="$(grep -o '"address":"[^"]*"' "$WORK/$name.log" 2>/dev/null | head -n 1 | cut -d'"' -f4 || true)"
        [ -n "$address" ] && break
        kill -0 "$pid" 2>/dev/null || die "$name ended: $(tail -n 3 "$WORK/$name.log")"
        sleep 0.1
    done
    [ -n "$address" ] || die "$name does not listen: $(tail -n 3 "$WORK/$name.log")"
    echo "http://$address" >"$WORK/$name.url"
}

# drain NAME: SIGTERM; it must end with 0.
drain() {
    local pid="PID_$1"
    kill -TERM "${!pid}"
    wait "${!pid}" || die "$1 ended with $?: $(tail -n 3 "$WORK/$1.log")"
}

# point_to NAME: where the load goes, as a load balancer would decide.
point_to() { cp "$WORK/$1.url" "$WORK/api.new" && mv "$WORK/api.new" "$WORK/api"; }

register() {
    cat >"$WORK/chain.yaml" <<'YAML'
name: chain
namespace_name: drill
version: 1.0.0
steps:
  - {name: a, handler: {callable: noop}}
  - {name: b, dependencies: [a], handler: {callable: noop}}
  - {name: c, dependencies: [a], handler: {callable: sleep, initialization: {seconds: 0.05}}}
  - {name: d, dependencies: [b, c], handler: {callable: noop}}
YAML
    "$1/tasker" --url "$(cat "$WORK/api")" template apply "$WORK/chain.yaml" >/dev/null
}

# Submits ten tasks at a time until WORK/stop exists. A batch that is not acknowledged is sent again with the same keys.
# Acknowledged ids go to WORK/acknowledged, after the time in milliseconds.
load() {
    local batch=0 body answer
    : >"$WORK/acknowledged"
    while [ ! -e "$WORK/stop" ]; do
        batch=$((batch + 1))
        body='{"tasks":['
        for n in 0 1 2 3 4 5 6 7 8 9; do
            body+='{"namespace":"drill","name":"chain","idempotency_key":"drill-'"$batch-$n"'"},'
        done
        body="${body%,}]}"
        until answer="$(curl -sS -f -m 10 -H 'content-type: application/json' -d "$body" "$(cat "$WORK/api")/v1/tasks/batch" 2>>"$WORK/load.log")" &&
            [ "$(grep -o '"task_id"' <<<"$answer" | wc -l)" -eq 10 ]; do
            [ ! -e "$WORK/stop" ] || return 0
            sleep 0.05
        done
        grep -o '"task_id":"[^"]*"' <<<"$answer" | cut -d'"' -f4 | sed "s/^/$(now_ms) /" >>"$WORK/acknowledged"
    done
}

start_load() { load & LOAD=$!; SERVICES+=("$LOAD"); }
stop_load() { touch "$WORK/stop"; wait "$LOAD"; }
acknowledged() { wc -l <"$WORK/acknowledged"; }

# acknowledged_reach COUNT SECONDS
acknowledged_reach() {
    for _ in $(seq $((10 * $2))); do
        [ "$(acknowledged)" -ge "$1" ] && return 0
        sleep 0.1
    done
    die "only $(acknowledged) tasks were acknowledged; $(tail -n 2 "$WORK/load.log")"
}

# all_ended SOCKET_DIRECTORY SECONDS
all_ended() {
    for _ in $(seq $((5 * $2))); do
        [ "$(sql "$1" 'select count(*) from tasker.tasks where finished_at is null')" -eq 0 ] && return 0
        sleep 0.2
    done
    die "$(sql "$1" 'select count(*) from tasker.tasks where finished_at is null') tasks do not end"
}

# Steps whose outcome counted twice, or not at all although their task is complete; and moves that do not follow on each other.
outcomes_counted_twice() {
    sql "$1" "select count(*) from (select step_id from tasker.step_transitions where to_state = 'complete' group by step_id having count(*) > 1) s"
}
tasks_not_complete() { sql "$1" "select count(*) from tasker.tasks where state <> 'complete'"; }
broken_histories() {
    sql "$1" "select count(*) from (
        select from_state, lag(to_state, 1, 'pending') over (partition by step_id order by id) as before from tasker.step_transitions) h
        where from_state <> before"
}

# lost SOCKET_DIRECTORY: how many acknowledged tasks are not there.
lost() {
    cut -d' ' -f2 "$WORK/acknowledged" | sort -u >"$WORK/ids.acknowledged"
    sql "$1" 'select id from tasker.tasks' | sort -u >"$WORK/ids.found"
    comm -23 "$WORK/ids.acknowledged" "$WORK/ids.found" | wc -l
}

finish() {
    local code=$?
    touch "$WORK/stop"
    for pid in "${SERVICES[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for pidfile in "$WORK"/*/postmaster.pid; do
        [ -e "$pidfile" ] || continue
        as_postgres "$PG_BIN/pg_ctl" -D "$(dirname "$pidfile")" -m immediate stop >/dev/null 2>&1 || true
    done
    if [ "$code" -ne 0 ] && [ -n "${KEEP:-}" ]; then say "kept: $WORK"; else rm -rf "$WORK"; fi
    exit "$code"
}
trap finish EXIT
