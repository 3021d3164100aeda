#!/bin/sh
# Writes a page and the configuration of an nginx that serves it, by two workers, on a port of the loopback interface.
#   nginx.sh FOLDER PORT
set -eu
folder=$1 port=$2
head -c 1024 /dev/zero | tr '\0' x > "$folder/page.html"
cat > "$folder/nginx.conf" <<END
daemon off;
worker_processes 2;
pid $folder/nginx.pid;
error_log $folder/error.log;
events { worker_connections 256; }
http {
  access_log $folder/access.log;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  keepalive_requests 1000000;
  server {
    listen 127.0.0.1:$port;
    root $folder;
  }
}
END
