/* Calls getppid for about so many seconds, and prints how many calls it made a second. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at); /* by the vDSO: no system call */
  return at.tv_sec + at.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  double length = argc > 1 ? atof(argv[1]) : 1, begin = now(), last = begin;
  long calls = 0;
  while (last - begin < length) {
    for (int i = 0; i < 100; i++) syscall(SYS_getppid);
    calls += 100;
    last = now();
  }
  printf("%.0f calls a second\n", calls / (last - begin));
  return 0;
}
