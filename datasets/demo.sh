#!/bin/sh
# The workload of `./run demo`: an archive of a real folder tree compressed through a pipe, then unpacked again.
# Runs in an empty folder. The tree is what every machine that can run ringtape has: Python's own library, time zones, Perl.
set -eu
# Looking for programs in every folder of somebody's PATH would be most of what is recorded of this shell.
export PATH=/usr/bin:/bin LC_ALL=C
set --
for tree in /usr/lib/python3* /usr/share/zoneinfo /usr/share/perl*; do
    [ ! -d "$tree" ] || set -- "$@" "${tree#/}"
done
tar -C / -cf - "$@" | gzip -c >tree.tar.gz
mkdir tree
gzip -dc tree.tar.gz | tar -C tree -xf -
printf 'demo.sh: %s files packed into %s bytes and unpacked again\n' "$(find tree -type f | wc -l)" "$(wc -c <tree.tar.gz)"
