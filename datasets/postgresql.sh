#!/bin/sh
# PostgreSQL under pgbench over loopback: four clients, 60 transactions each, every commit flushed to the disk.
# options: --tables syscalls,paths,processes,sched,block,sockets,transfers
# needs: postgresql postgresql-contrib
# setup: sh postgresql.sh make
set -eu
port=16381
for bin in /usr/lib/postgresql/*/bin; do PATH=$bin:$PATH; done
export PGHOST=127.0.0.1 PGPORT=$port PGUSER=postgres PGDATABASE=postgres
# PostgreSQL does not run as root.
if [ "$(id -u)" -eq 0 ]; then
    if [ "${1-}" = make ]; then
        chmod 711 .
        install -d -o nobody data
    fi
    exec setpriv --reuid=nobody --regid=nogroup --clear-groups sh postgresql.sh "$@"
fi
HOME=$PWD
serve() { postgres -D data -k '' -p $port -c listen_addresses=127.0.0.1 -c autovacuum=off -c jit=off >data/log 2>&1; }
ready() { until pg_isready -q; do sleep 0.05; done; }
if [ "${1-}" = make ]; then
    initdb --no-sync -A trust -U postgres -D data >/dev/null
    serve &
    ready
    pgbench -q -i -s 1 >/dev/null 2>&1
    pg_ctl -D data -m fast stop >/dev/null
    exit
fi
serve &
ready
pgbench -n -c 4 -j 1 -t 60 >/dev/null 2>&1
pg_ctl -D data -m fast stop >/dev/null
wait
