/* The cheapest system call in a loop that times itself: null_calls RESULT CALLS CPU [CPU ...]
 *
 * One process per CPU, pinned to it; all begin together. A line for each is written to RESULT:
 * cpu, calls, wall ns, CPU ns of the thread, ns that it was ready to run but did not, involuntary context switches.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long run_delay(void) {
  unsigned long long ran, waited = 0;
  FILE *file = fopen("/proc/self/schedstat", "r");
  if (!file) return 0;
  if (fscanf(file, "%llu %llu", &ran, &waited) != 2) waited = 0;
  fclose(file);
  return waited;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void loop(int result, long calls, int cpu, atomic_int *ready, int all) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set)) fail("sched_setaffinity");
  for (long i = 0; i < 1000; i++) syscall(SYS_getppid);
  atomic_fetch_add(ready, 1);
  while (atomic_load(ready) < all) sched_yield();
  struct rusage before, after;
  long long waited = run_delay();
  getrusage(RUSAGE_SELF, &before);
  long long wall = now(CLOCK_MONOTONIC), used = now(CLOCK_THREAD_CPUTIME_ID);
  for (long i = 0; i < calls; i++) syscall(SYS_getppid);
  used = now(CLOCK_THREAD_CPUTIME_ID) - used;
  wall = now(CLOCK_MONOTONIC) - wall;
  getrusage(RUSAGE_SELF, &after);
  char line[256];
  int length = snprintf(line, sizeof line, "%d %ld %lld %lld %lld %ld\n", cpu, calls, wall, used, run_delay() - waited, after.ru_nivcsw - before.ru_nivcsw);
  if (write(result, line, length) != length) fail("write");
}

int main(int count, char **words) {
  if (count < 4) return 2;
  int result = open(words[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (result < 0) fail(words[1]);
  long calls = atol(words[2]);
  int all = count - 3;
  atomic_int *ready = mmap(NULL, sizeof *ready, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ready == MAP_FAILED) fail("mmap");
  for (int i = 1; i < all; i++) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      loop(result, calls, atoi(words[3 + i]), ready, all);
      return 0;
    }
  }
  loop(result, calls, atoi(words[3]), ready, all);
  int failed = 0, status;
  while (wait(&status) > 0) failed |= status != 0;
  return failed;
}
