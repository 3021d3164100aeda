/* Processes and threads of every sort; each makes calls of its own, all in one diary. */
#include "diary.h"

#define COUNT 200
static const char *program;

static void work(struct self *self) {
  for (int i = 0; i < COUNT; i++) call(self, SYS_getppid);
}

static void thread_works(struct self *self, void *argument) {
  (void)argument;
  work(self);
}

static __attribute__((noreturn)) void leave(struct self *self, int status) {
  last_call(self, SYS_exit_group, status, LEFT, LEFT, LEFT);
  __builtin_unreachable();
}

static void threads(struct self *self) {
  struct thread *made[4];
  for (int i = 0; i < 4; i++) made[i] = spawn(self, thread_works, 0);
  work(self);
  for (int i = 0; i < 4; i++) join(made[i]);
}

/* Three children, each with a child; each ends with a status of its own. */
static void forks(struct self *self) {
  for (int i = 0; i < 3; i++) {
    long child = fork_child(self);
    if (child == 0) {
      long grandchild = fork_child(self);
      if (grandchild == 0) {
        work(self);
        leave(self, 20 + i);
      }
      await(self, grandchild);
      leave(self, 10 + i);
    }
    await(self, child);
  }
}

/* The classic daemon: it outlives its parent, and the command itself. */
static void daemonise(struct self *self) {
  long command = self->pid, child = fork_child(self);
  if (child == 0) {
    call(self, SYS_setsid);
    if (fork_child(self) == 0) {
      struct timespec pause = {0, 2000000};
      while (call(self, SYS_kill, command, 0) == 0) call(self, SYS_nanosleep, &pause, 0);
      call(self, SYS_chdir, "/");
      work(self);
      leave(self, 33);
    }
    leave(self, 0);
  }
  await(self, child);
}

/* A child that becomes a child of our own parent. */
static void sibling(struct self *self) {
  if (fork_with(self, SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) {
    work(self);
    leave(self, 44);
  }
}

static void thread_forks(struct self *self, void *argument) {
  (void)argument;
  long child = fork_child(self);
  if (child == 0) {
    work(self);
    leave(self, 55);
  }
  await(self, child);
}

static void thread_execs(struct self *self, void *argument) {
  wait_until_in(self, self->pid, SYS_pause);
  self->tid = self->pid; /* the thread that execs takes the number of the process */
  const char *words[] = {program, "leaf", 0};
  exec_call(self, program, words);
}

static void vfork_exec(struct self *self) {
  const char *words[] = {program, "leaf", 0};
  struct entry *entry = open_entry(self, X86_64, SYS_vfork, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT);
  long child = vfork();
  if (child == 0) {
    struct self other;
    begin_child(&other, SYS_vfork, entry->before);
    exec_call(&other, program, words);
    _exit(99);
  }
  close_entry(entry, child);
  await(self, child);
}

int main(int count, char **words) {
  struct self self;
  program = words[0];
  const char *mode = count > 1 ? words[1] : "leaf";
  open_diary();
  begin(&self);
  if (!strcmp(mode, "threads")) threads(&self);
  if (!strcmp(mode, "forks")) forks(&self);
  if (!strcmp(mode, "daemon")) daemonise(&self);
  if (!strcmp(mode, "sibling")) sibling(&self);
  if (!strcmp(mode, "thread-forks")) join(spawn(&self, thread_forks, 0));
  if (!strcmp(mode, "vfork")) vfork_exec(&self);
  if (!strcmp(mode, "thread-exec")) {
    spawn(&self, thread_execs, 0);
    killed_call(&self, -514, SYS_pause, LEFT, LEFT, LEFT);
  }
  if (!strcmp(mode, "chain") && words[2][0] > '0') {
    char left[2] = {words[2][0] - 1, 0};
    const char *next[] = {program, "chain", left, 0};
    const char *none[] = {program, 0};
    call(&self, SYS_execve, "/nonexistent/program", none, 0);
    exec_call(&self, program, next);
  }
  if (!strcmp(mode, "leaf")) {
    work(&self);
    leave(&self, 5);
  }
  leave(&self, 0);
}
