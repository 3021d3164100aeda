/* Calls that sleep, and calls that do not come to their end; the test sends the signals when it sees us asleep. */
#include "diary.h"

#include <poll.h>

static struct self self;
static int ends[2];

static void handle(int number) {
  (void)number;
  call(&self, SYS_getppid);
}

static void on_signal(int number, int flags) {
  struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
  sigaction(number, &action, 0);
}

static void sleeps(void) {
  static const long times[] = {1000, 50000, 2000000, 60000000, 200000000};
  for (unsigned i = 0; i < sizeof(times) / sizeof(*times); i++) {
    struct timespec time = {0, times[i]};
    call(&self, SYS_nanosleep, &time, 0);
    call(&self, SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0);
    call(&self, SYS_futex, &ends, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, ends[0], &time, 0, 0);
    call(&self, SYS_ppoll, 0, 0, &time, 0, 8);
  }
}

/* A handler runs in the middle of each; the last call is made again after it. */
static void handled(void) {
  static char byte;
  struct timespec long_time = {1000, 0};
  call(&self, SYS_pause);
  call(&self, SYS_nanosleep, &long_time, 0);
  call(&self, SYS_read, ends[0], &byte, 1);
  call(&self, SYS_poll, 0, 0, 1000000);
  on_signal(SIGUSR1, SA_RESTART);
  call(&self, SYS_read, 0, &byte, 1);
}

static void stopped(void) {
  struct timespec time = {0, 400000000};
  call(&self, SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0);
}

static void thread_waits(struct self *me, void *argument) {
  struct timespec time = {1000, 0};
  switch ((long)argument) {
    case 0: killed_call(me, -514, SYS_pause, LEFT, LEFT, LEFT); break;
    case 1: killed_call(me, -512, SYS_read, ends[0], (long)&ends, 1); break;
    case 2: killed_call(me, -516, SYS_nanosleep, (long)&time, 0, LEFT); break;
  }
}

static void group(void) {
  static const long numbers[] = {SYS_pause, SYS_read, SYS_nanosleep};
  for (long i = 0; i < 3; i++) spawn(&self, thread_waits, (void *)i);
  for (long i = 0; i < 3; i++) {
    long tid = 0;
    while (!tid)
      for (long at = 0; at < __atomic_load_n(&diary->used, __ATOMIC_SEQ_CST); at++)
        if (diary->entries[at].nr == numbers[i] && __atomic_load_n(&diary->entries[at].after, __ATOMIC_SEQ_CST) == -1) tid = diary->entries[at].tid;
    wait_until_in(&self, tid, numbers[i]);
  }
}

int main(int count, char **words) {
  const char *mode = count > 1 ? words[1] : "";
  open_diary();
  on_signal(SIGUSR1, 0);
  if (pipe(ends) < 0) return 99;
  begin(&self);
  if (!strcmp(mode, "sleeps")) sleeps();
  if (!strcmp(mode, "handled")) handled();
  if (!strcmp(mode, "stopped")) stopped();
  if (!strcmp(mode, "killed")) killed_call(&self, -514, SYS_pause, LEFT, LEFT, LEFT);
  if (!strcmp(mode, "group")) group();
  last_call(&self, SYS_exit_group, 4, LEFT, LEFT, LEFT);
}
