#!/bin/sh
# A redis server and redis-benchmark over loopback: 20 connections, 2,000 requests each of SET, GET, and INCR in pipelines of 8.
# options: --tables syscalls,paths,processes,sched,sockets,transfers
# needs: redis-server redis-tools
set -eu
port=16379
redis-server --bind 127.0.0.1 --port $port --save '' --appendonly no --daemonize no --dir "$PWD" >redis.log &
until redis-cli -p $port ping >/dev/null 2>&1; do sleep 0.05; done
redis-benchmark -p $port -c 20 -n 2000 -d 64 -t set,get -q >/dev/null
redis-benchmark -p $port -c 20 -n 2000 -P 8 -t incr -q >/dev/null
redis-cli -p $port shutdown nosave
wait
