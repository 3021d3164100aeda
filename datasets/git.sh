#!/bin/sh
# git on a repository of 300 files and 60 commits: status, log, grep, a branch, a commit, a merge, repacking.
# needs: git
# setup: sh git.sh make
set -eu
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example
if [ "${1-}" = make ]; then
    git init -q -b main repository
    cd repository
    for folder in 1 2 3 4 5 6 7 8 9 10; do
        mkdir d$folder
        for file in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
            seq $file $((file + 40)) >d$folder/f$file
        done
    done
    git add .
    git commit -q -m first
    seq 2 60 | while read -r number; do
        echo "$number" >>"d$((number % 10 + 1))/f$((number % 30 + 1))"
        git commit -q -a -m "change $number"
    done
    exit
fi
cd repository
git status --short
git log --stat -n 20 >/dev/null
git grep -n 35 >/dev/null
git switch -q -c other
echo more >>d1/f1
git commit -q -a -m more
git switch -q main
git merge -q --no-edit other
git blame d1/f1 >/dev/null
git repack -q -a -d
git status --short
