#!/bin/sh
# Python's start: bare, with the site module, and with some modules of its library imported; five times each.
# options: --tables syscalls,paths,processes,memory,faults
set -eu
for run in 1 2 3 4 5; do
    /usr/bin/python3 -I -S -c "run = $run"
    /usr/bin/python3 -I -c "run = $run"
    /usr/bin/python3 -I -c 'import json, http.client, sqlite3, asyncio, decimal'
done
