/* Is found running: threads inside calls of known numbers, and a main thread that takes orders from its standard input.
 *
 * Each byte read is an order: 'c' makes 50 calls, 'f' forks a child that makes 50 and ends, 't' a thread, 'r' renames, 'q' ends.
 */
#include "diary.h"

#include <sys/prctl.h>

#define COUNT 50
static int ends[2];

static void work(struct self *self) {
  for (int i = 0; i < COUNT; i++) call(self, SYS_getppid);
}

static void works(struct self *self, void *argument) {
  (void)argument;
  work(self);
}

static void waits(struct self *self, void *argument) {
  static char byte;
  (void)argument;
  call(self, SYS_read, ends[0], &byte, 1);
  work(self);
  killed_call(self, -514, SYS_pause, LEFT, LEFT, LEFT);
}

int main(int count, char **words) {
  struct self self;
  char order = 0;
  open_diary();
  if (pipe(ends) < 0) return 99;
  if (count > 1) prctl(PR_SET_NAME, words[1]);
  begin(&self);
  spawn(&self, waits, 0);
  while (order != 'q' && call(&self, SYS_read, 0, &order, 1) == 1) {
    if (order == 'c') work(&self);
    if (order == 't') join(spawn(&self, works, 0));
    if (order == 'w') call(&self, SYS_write, ends[1], "w", 1);
    if (order == 'r') call(&self, SYS_prctl, PR_SET_NAME, "renamed", 0, 0, 0);
    if (order == 'f') {
      long child = fork_child(&self);
      if (child == 0) {
        work(&self);
        last_call(&self, SYS_exit_group, 0, LEFT, LEFT, LEFT);
      }
      await(&self, child);
    }
  }
  last_call(&self, SYS_exit_group, 9, LEFT, LEFT, LEFT);
}
