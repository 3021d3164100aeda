#!/bin/sh
# A program and a library of eight C files built by make with two jobs, then run: it sorts, then hashes, then sums, then waits.
# options: --tables syscalls,paths,processes,sched,memory,faults --profile 999 --offcpu-stacks 100us
# needs: gcc libc6-dev make binutils
# setup: sh compile.sh write
# keep: work
set -eu
if [ "${1-}" = write ]; then
    for part in 1 2 3 4 5 6; do
        {
            echo '#include <math.h>'
            echo '#include <stdio.h>'
            echo '#include <stdlib.h>'
            echo '#include <string.h>'
            seq 1 120 | sed "s/.*/double part_${part}_&(double x) { char b[32]; snprintf(b, sizeof b, \"%f\", x * &); return sqrt(strlen(b) + atof(b)); }/"
        } >part$part.c
    done
    cat >work.c <<'END'
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#define COUNT 300000
static uint32_t values[COUNT], scratch[COUNT];
static int by_value(const void *a, const void *b) { return (*(uint32_t *)a > *(uint32_t *)b) - (*(uint32_t *)a < *(uint32_t *)b); }
void fill(void) { uint32_t x = 1; for (int i = 0; i < COUNT; i++) values[i] = x = x * 1664525u + 1013904223u; }
void merge_sort(uint32_t *from, uint32_t *to, int count) {
  if (count < 2) return;
  int half = count / 2, left = 0, right = half;
  merge_sort(from, to, half);
  merge_sort(from + half, to + half, count - half);
  for (int i = 0; i < count; i++) to[i] = right >= count || (left < half && by_value(&from[left], &from[right]) <= 0) ? from[left++] : from[right++];
  for (int i = 0; i < count; i++) from[i] = to[i];
}
void sort_all(void) { for (int i = 0; i < 10; i++) { fill(); merge_sort(values, scratch, COUNT); } }
uint64_t hash_all(void) { uint64_t h = 14695981039346656037u; for (int k = 0; k < 400; k++) for (int i = 0; i < COUNT; i++) h = (h ^ values[i]) * 1099511628211u; return h; }
uint64_t sum_all(void) { uint64_t s = 0; for (int k = 0; k < 400; k++) for (int i = 0; i < COUNT; i++) s += values[i] ^ k; return s; }
void wait_a_little(void) { for (int i = 0; i < 20; i++) usleep(5000); }
END
    cat >main.c <<'END'
#include <stdint.h>
#include <stdio.h>
void sort_all(void); uint64_t hash_all(void); uint64_t sum_all(void); void wait_a_little(void);
int main(void) { sort_all(); uint64_t h = hash_all(), s = sum_all(); wait_a_little(); return printf("%llx %llx\n", (unsigned long long)h, (unsigned long long)s) < 0; }
END
    # shellcheck disable=SC2016  # make's variable
    printf 'CFLAGS = -O1 -fno-omit-frame-pointer -fno-inline -fno-optimize-sibling-calls\nall: work parts.a\nwork: main.o work.o\n\t$(CC) -o $@ $^\nparts.a: part1.o part2.o part3.o part4.o part5.o part6.o\n\tar rc $@ $^\n' >Makefile
    exit
fi
make -s -j 2
./work >/dev/null
