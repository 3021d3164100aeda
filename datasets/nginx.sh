#!/bin/sh
# nginx with two workers under wrk for a second: a page of 100 kB of text, compressed for each of 10 connections over loopback.
# options: --tables syscalls,paths,processes,sched,sockets,transfers
# needs: nginx-light wrk
set -eu
port=16380
seq 1 18000 >page.txt
{
    # A server that is started by root gives its workers to nobody, who may not read here.
    [ "$(id -u)" -ne 0 ] || echo 'user root;'
    cat <<END
daemon off;
worker_processes 2;
pid nginx.pid;
error_log error.log;
events { worker_connections 64; }
http {
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  gzip on;
  gzip_comp_level 6;
  gzip_types text/plain;
  types { text/plain txt; }
  server {
    listen 127.0.0.1:$port;
    root $PWD;
  }
}
END
} >nginx.conf
nginx -e error.log -p "$PWD" -c nginx.conf &
server=$!
until [ -s nginx.pid ]; do sleep 0.05; done
wrk -t 1 -c 10 -d 1s -H 'Accept-Encoding: gzip' "http://127.0.0.1:$port/page.txt" >/dev/null
kill -QUIT $server
wait
