#!/bin/sh
# SQLite inserting with a transaction for each of 200 rows, then 2,000 rows in one transaction, then reading them with an index.
# options: --tables syscalls,paths,processes,sched,block
# needs: sqlite3
set -eu
echo 'create table event (id integer primary key, name text, value real);' | sqlite3 rows.db
seq 1 200 | sed "s/.*/insert into event (name, value) values ('single &', &);/" >single.sql
{
    echo 'begin;'
    seq 1 2000 | sed "s/.*/insert into event (name, value) values ('together &', &);/"
    echo 'commit;'
} >together.sql
sqlite3 rows.db <single.sql
sqlite3 rows.db <together.sql
sqlite3 rows.db 'create index by_name on event (name); select count(*), sum(value) from event where name like "together 1%";' >/dev/null
