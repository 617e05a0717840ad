#!/usr/bin/env bash
# A cluster of Evenkeel on one machine: three members of etcd, Redis, three orchestrators with the API, two LB servers
# and three backends, all as processes of yours on loopback. Needs the programs `etcd` and `redis-server`
# (Debian: etcd-server, redis-server) and `evenkeel`.
#
#   cluster.sh up       start everything, and wait until it works
#   cluster.sh env      print where things are, to be evaluated by a shell
#   cluster.sh pid NAME the process id of one of them: etcd-1..3, redis, orch-1..3, lb-1..2, backend-1..3
#   cluster.sh start NAME   start one of them again
#   cluster.sh down     end everything and forget it
#
# EVENKEEL (the program), EVENKEEL_CLUSTER (the folder, default ./evenkeel-cluster) and EVENKEEL_CLUSTER_PORT (the
# first of 30 ports, default 17700) may be set.
set -euo pipefail

evenkeel=${EVENKEEL:-evenkeel}
folder=${EVENKEEL_CLUSTER:-$PWD/evenkeel-cluster}
base=${EVENKEEL_CLUSTER_PORT:-17700}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

port() { echo $((base + $1)); }

endpoints="\"http://127.0.0.1:$(port 1)\", \"http://127.0.0.1:$(port 2)\", \"http://127.0.0.1:$(port 3)\""

# Starts a program under a name; its output goes to NAME.log. It reads from a pipe into which nobody writes: the sample
# backends end with what they read.
run() {
    local name=$1
    shift
    setsid "$@" >>"$folder/$name.log" 2>&1 <>"$folder/nothing" &
    echo $! >"$folder/$name.pid"
}

node() { # NAME ROLES ADDRESS ADMIN-PORT
    mkdir -p "$folder/$1"
    cat >"$folder/$1/evenkeel.toml" <<TOML
[node]
name = "$1"
roles = $2
bind = "$3"
data_dir = "$folder/$1/data"

[admin]
listen = "127.0.0.1:$4"

[store]
kind = "etcd"
endpoints = [$endpoints]

[notify]
url = "redis://127.0.0.1:$(port 7)"
TOML
    run "$1" "$evenkeel" run --config "$folder/$1/evenkeel.toml"
}

start() {
    local name=$1 n=${1##*-}
    case $name in
    etcd-*)
        local peers
        peers="etcd-1=http://127.0.0.1:$(port 4),etcd-2=http://127.0.0.1:$(port 5),etcd-3=http://127.0.0.1:$(port 6)"
        run "$name" etcd --name "$name" --data-dir "$folder/$name" \
            --listen-client-urls "http://127.0.0.1:$(port "$n")" --advertise-client-urls "http://127.0.0.1:$(port "$n")" \
            --listen-peer-urls "http://127.0.0.1:$(port $((n + 3)))" \
            --initial-advertise-peer-urls "http://127.0.0.1:$(port $((n + 3)))" --initial-cluster "$peers"
        ;;
    redis) run redis redis-server --port "$(port 7)" --bind 127.0.0.1 --save "" --dir "$folder" ;;
    orch-*) node "$name" '["orchestrator", "console"]' 127.0.0.1 "$(port $((10 + n)))" ;;
    lb-*) node "$name" '["lb"]' "127.0.1.$n" "$(port $((13 + n)))" ;;
    backend-*) run "$name" "$evenkeel" demo-backend --name "$name" --listen "127.0.0.1:$(port $((20 + n)))" ;;
    *)
        echo "cluster.sh: there is no $name" >&2
        exit 2
        ;;
    esac
}

names="etcd-1 etcd-2 etcd-3 redis backend-1 backend-2 backend-3 orch-1 orch-2 orch-3 lb-1 lb-2"

up() {
    for program in etcd redis-server "$evenkeel"; do
        command -v "$program" >/dev/null || {
            echo "cluster.sh: $program is not installed" >&2
            exit 1
        }
    done
    mkdir -p "$folder"
    [ -p "$folder/nothing" ] || mkfifo "$folder/nothing"
    for name in $names; do start "$name"; done
    cat >"$folder/shop.toml" <<TOML
[load_balancers.shop]
listen = "0.0.0.0:$(port 0)"
backend_servers = ["127.0.0.1:$(port 21)", "127.0.0.1:$(port 22)", "127.0.0.1:$(port 23)"]
health_endpoint = "/health"
TOML
    for _ in $(seq 300); do
        if "$evenkeel" apply --admin "127.0.0.1:$(port 11)" --by example "$folder/shop.toml" >"$folder/apply.log" 2>&1 ||
            grep -q "nothing" "$folder/apply.log"; then
            for lb in 1 2; do
                until curl -fsS -m 2 "http://127.0.1.$lb:$(port 0)/" >/dev/null 2>&1; do sleep 0.1; done
            done
            echo "the cluster works: http://127.0.1.1:$(port 0)/ and http://127.0.1.2:$(port 0)/"
            return
        fi
        sleep 0.1
    done
    echo "cluster.sh: it does not start; see $folder/*.log" >&2
    cat "$folder/apply.log" >&2
    exit 1
}

environment() {
    echo "export EVENKEEL_ADMIN=127.0.0.1:$(port 11)"
    echo "LB1=http://127.0.1.1:$(port 0)/ LB2=http://127.0.1.2:$(port 0)/ SHOP=$folder/shop.toml"
    echo "BACKEND1=127.0.0.1:$(port 21)"
}

down() {
    for file in "$folder"/*.pid; do
        [ -e "$file" ] || continue
        kill -9 -- "-$(cat "$file")" 2>/dev/null || true
    done
    rm -rf "$folder"
}

case ${1:-} in
up) up ;;
env) environment ;;
pid) cat "$folder/$2.pid" ;;
start) start "$2" ;;
down) down ;;
*)
    sed -n '2,14s/^# \{0,1\}//p' "$here/$(basename "${BASH_SOURCE[0]}")"
    exit 2
    ;;
esac
