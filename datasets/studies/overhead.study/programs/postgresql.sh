#!/bin/sh
# Makes a database cluster with pgbench's tables, or serves it; the newest PostgreSQL of the machine, on a Unix socket in FOLDER.
#   postgresql.sh setup|serve FOLDER PORT
set -eu
what=$1 folder=$2 port=$3
for bin in /usr/lib/postgresql/*/bin /usr/bin; do
  [ -x "$bin/initdb" ] && found=$bin
done
PATH=$found:$PATH
options="-k $folder -p $port -c listen_addresses= -c fsync=off -c synchronous_commit=off -c max_wal_size=2GB"
case $what in
setup)
  initdb --no-sync -A trust -D "$folder/data" > "$folder/setup.log"
  pg_ctl -w -D "$folder/data" -l "$folder/server.log" -o "$options" start >> "$folder/setup.log"
  pgbench -q -i -s 5 -h "$folder" -p "$port" postgres >> "$folder/setup.log" 2>&1
  pg_ctl -w -D "$folder/data" stop >> "$folder/setup.log"
  ;;
serve)
  exec postgres -D "$folder/data" $options
  ;;
esac
