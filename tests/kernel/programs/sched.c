/* Threads that do known things, and tell what the kernel counted for them meanwhile, a line each:
 * tid begin end voluntary involuntary run_ns wait_ns, between two instants of CLOCK_MONOTONIC. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct account {
  long time, voluntary, involuntary, run, wait;
};

static long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static struct account take(void) {
  struct account account = {0};
  usleep(1); /* the kernel brings its sums up to date when the thread leaves the CPU */
  struct rusage usage;
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", syscall(SYS_gettid));
  FILE *file = fopen(path, "r");
  if (!file || fscanf(file, "%ld %ld", &account.run, &account.wait) != 2) account.run = account.wait = -1;
  if (file) fclose(file);
  getrusage(RUSAGE_THREAD, &usage);
  account.voluntary = usage.ru_nvcsw;
  account.involuntary = usage.ru_nivcsw;
  account.time = now();
  return account;
}

static void tell(struct account begin, struct account end) {
  char line[256];
  int length = snprintf(line, sizeof(line), "%ld %ld %ld %ld %ld %ld %ld\n", syscall(SYS_gettid), begin.time, end.time, end.voluntary - begin.voluntary,
                        end.involuntary - begin.involuntary, end.run - begin.run, end.wait - begin.wait);
  if (write(1, line, length) != length) _exit(9);
}

static void spin(long ns) {
  for (long end = now() + ns; now() < end;) continue;
}

static int turn;
static int rounds;

static void pass(int me) {
  for (int i = 0; i < rounds; i++) {
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != me) syscall(SYS_futex, &turn, FUTEX_WAIT, 1 - me, 0, 0, 0);
    __atomic_store_n(&turn, 1 - me, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turn, FUTEX_WAKE, 1, 0, 0, 0);
  }
}

static void *ponger(void *unused) {
  struct account begin = take();
  pass(1);
  tell(begin, take());
  return unused;
}

static void *short_lived(void *unused) {
  sched_yield();
  return unused;
}

int main(int count, char **args) {
  const char *what = args[1];
  long amount = count > 2 ? atol(args[2]) : 0;
  struct account begin = take();
  if (!strcmp(what, "spin")) {
    spin(amount * 1000000);
  } else if (!strcmp(what, "sleep")) {
    for (int i = 0; i < 10; i++) usleep(amount * 1000);
  } else if (!strcmp(what, "futex")) {
    pthread_t thread;
    rounds = amount;
    pthread_create(&thread, 0, ponger, 0);
    pass(0);
    tell(begin, take());
    pthread_join(thread, 0);
    return 0;
  } else if (!strcmp(what, "pipe")) {
    int to[2], from[2];
    char byte = 0;
    if (pipe(to) || pipe(from)) return 9;
    if (fork() == 0) {
      begin = take();
      for (long i = 0; i < amount; i++)
        if (read(to[0], &byte, 1) != 1 || write(from[1], &byte, 1) != 1) return 9;
      tell(begin, take());
      return 0;
    }
    for (long i = 0; i < amount; i++)
      if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1) return 9;
    tell(begin, take());
    wait(0);
    return 0;
  } else if (!strcmp(what, "child")) {
    if (fork() == 0) {
      usleep(amount * 1000);
      _exit(0);
    }
    wait(0);
  } else if (!strcmp(what, "threads")) {
    pthread_t *threads = calloc(amount, sizeof(*threads));
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    for (long i = 0; i < amount; i++)
      if (pthread_create(&threads[i], &attributes, short_lived, 0)) return 9;
    for (long i = 0; i < amount; i++) pthread_join(threads[i], 0);
  } else if (!strcmp(what, "processes")) {
    for (long i = 0; i < amount; i++) {
      if (fork() == 0) _exit(0);
      if (i % 50 == 49) while (wait(0) > 0) continue;
    }
    while (wait(0) > 0) continue;
  }
  tell(begin, take());
  return 0;
}
