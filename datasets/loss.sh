#!/bin/sh
# More calls than a ring of 1 MiB can take between two looks at it: dd copies byte by byte, rests, and copies again.
# options: --ring-size syscalls=1M
set -eu
dd if=/dev/zero of=/dev/null bs=1 count=60000 2>/dev/null
sleep 0.3
dd if=/dev/zero of=/dev/null bs=1 count=60000 2>/dev/null
head -c 1000000 /dev/zero | gzip -c >zeros.gz
