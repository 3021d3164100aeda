#!/bin/sh
# The same program before and after a known change: 60,000 lines written through a buffer of 512 bytes, then of 64 KiB.
# variants: before after
# runs: 6
set -eu
case $1 in
before) size=512 ;;
after) size=65536 ;;
esac
/usr/bin/python3 -I -S -c "
with open('lines', 'wb', buffering=$size) as lines:
    for number in range(60000):
        lines.write(b'%06d the quick brown fox\n' % number)
"
