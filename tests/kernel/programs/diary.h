/* Makes system calls by hand and keeps a diary of them, which a recording of the program must repeat.
 *
 * The diary is a file that the test has made, mapped shared: processes that fork go on in it, and what a killed process
 * wrote stays. An entry is opened before its call and closed after it, so it also bounds when the call began and ended.
 * Threads are made without pthreads: a thread then makes no call that is not in the diary.
 */
#ifndef DIARY_H
#define DIARY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { X86_64 = 1, I386 = 2, X32 = 3 };
enum { RETURNED = 0, NO_RETURN = 1, AT_ATTACH = 2, UNFINISHED = 3, CHILD = 4 };

struct entry {
  long pid, tid, nr, abi, args[6], ret, before, after, kind;
};

struct diary {
  long used, reserved[13];
  struct entry entries[];
};

struct self {
  long pid, tid;
};

static struct diary *diary;

static long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time); /* in the vDSO: no system call */
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static long raw(long nr, long a, long b, long c, long d, long e, long f) {
  long ret;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return ret;
}

/* The 32-bit entry, from 64-bit code: arguments in ebx ecx edx esi edi ebp. */
static long raw_i386(long nr, long a, long b, long c, long d, long e, long f) {
  long ret;
  register long r13 asm("r13") = f;
  asm volatile("mov %%rbp, %%r12; mov %%r13, %%rbp; int $0x80; mov %%r12, %%rbp"
               : "=a"(ret)
               : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(r13)
               : "r8", "r9", "r10", "r11", "r12", "memory");
  return ret;
}

static struct entry *open_entry(struct self *self, long abi, long nr, long a, long b, long c, long d, long e, long f) {
  struct entry *entry = &diary->entries[__atomic_fetch_add(&diary->used, 1, __ATOMIC_SEQ_CST)];
  entry->pid = self->pid;
  entry->tid = self->tid;
  entry->nr = nr;
  entry->abi = abi;
  entry->args[0] = a, entry->args[1] = b, entry->args[2] = c, entry->args[3] = d, entry->args[4] = e, entry->args[5] = f;
  entry->before = now();
  return entry;
}

static long close_entry(struct entry *entry, long ret) {
  entry->after = now();
  entry->ret = ret;
  return ret;
}

/* Arguments that a program has left in the registers beyond those of the call. */
#define LEFT 0x6c65667400000000L
#define CALL_(self, nr, a, b, c, d, e, f, ...) call_(self, nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call(self, ...) CALL_(self, __VA_ARGS__, LEFT + 1, LEFT + 2, LEFT + 3, LEFT + 4, LEFT + 5, LEFT + 6)

static inline long call_(struct self *self, long nr, long a, long b, long c, long d, long e, long f) {
  struct entry *entry = open_entry(self, nr > 0 && nr & 0x40000000 ? X32 : X86_64, nr, a, b, c, d, e, f);
  return close_entry(entry, raw(nr, a, b, c, d, e, f));
}

static long call_i386(struct self *self, long nr, long a, long b, long c, long d, long e, long f) {
  struct entry *entry = open_entry(self, I386, nr, a, b, c, d, e, f);
  return close_entry(entry, raw_i386(nr, a, b, c, d, e, f));
}

/* exit and exit_group, which do not come back. */
static long last_call(struct self *self, long nr, long a, long b, long c, long d) {
  struct entry *entry = open_entry(self, X86_64, nr, a, b, c, d, LEFT, LEFT);
  entry->kind = NO_RETURN;
  entry->after = -1;
  return raw(nr, a, b, c, d, LEFT, LEFT);
}

/* A call in which the thread is killed: on its way out, where no signal is handled any more, it still returns a code of the kernel's own. */
static long killed_call(struct self *self, long ret, long nr, long a, long b, long c) {
  struct entry *entry = open_entry(self, X86_64, nr, a, b, c, LEFT, LEFT, LEFT);
  entry->ret = ret;
  entry->after = -1;
  return raw(nr, a, b, c, LEFT, LEFT, LEFT);
}

/* A successful exec: it returns, but in another program. */
static void exec_call(struct self *self, const char *path, const char **words) {
  struct entry *entry = open_entry(self, X86_64, SYS_execve, (long)path, (long)words, (long)environ, LEFT, LEFT, LEFT);
  entry->after = -1;
  entry->ret = raw(SYS_execve, (long)path, (long)words, (long)environ, LEFT, LEFT, LEFT);
}

/* Finds out who we are, by calls that are in the diary as well. */
static void begin(struct self *self) {
  self->pid = self->tid = 0;
  struct entry *first = open_entry(self, X86_64, SYS_getpid, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT);
  self->pid = close_entry(first, raw(SYS_getpid, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT));
  struct entry *second = open_entry(self, X86_64, SYS_gettid, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT);
  self->tid = close_entry(second, raw(SYS_gettid, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT));
  first->pid = second->pid = self->pid;
  first->tid = second->tid = self->tid;
}

/* In a new thread or process: what it returned from is its first row. */
static void begin_child(struct self *self, long nr, long before) {
  struct entry *entry = open_entry(self, X86_64, nr, 0, 0, 0, 0, 0, 0);
  entry->kind = CHILD;
  entry->before = before;
  close_entry(entry, 0);
  begin(self);
  entry->pid = self->pid;
  entry->tid = self->tid;
}

static long fork_with(struct self *self, long nr, long a, long b, long c, long d, long e) {
  struct entry *entry = open_entry(self, X86_64, nr, a, b, c, d, e, LEFT);
  long before = entry->before;
  long ret = raw(nr, a, b, c, d, e, LEFT);
  if (ret == 0) begin_child(self, nr, before);
  else close_entry(entry, ret);
  return ret;
}

#define fork_child(self) fork_with(self, SYS_fork, LEFT, LEFT, LEFT, LEFT, LEFT)

static void await(struct self *self, long pid) {
  int status;
  call(self, SYS_wait4, pid, &status, __WALL, 0);
}

struct thread {
  void (*body)(struct self *self, void *argument);
  void *argument;
  long before;
  int alive;
  int reserved;
};

static __attribute__((noreturn, used)) void thread_main(struct thread *thread) {
  struct self self = {0, 0};
  begin_child(&self, SYS_clone, thread->before);
  thread->body(&self, thread->argument);
  last_call(&self, SYS_exit, 0, LEFT, LEFT, LEFT);
  __builtin_unreachable();
}

#define STACK (64 << 10)
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID)

/* Memory for the stack comes from the program's own data: making it is no call. */
static struct thread *spawn(struct self *self, void (*body)(struct self *, void *), void *argument) {
  static char stacks[16][STACK] __attribute__((aligned(4096)));
  static struct thread threads[16];
  static int used;
  struct thread *thread = &threads[used];
  char *top = stacks[used++] + STACK;
  thread->body = body;
  thread->argument = argument;
  thread->alive = 1;
  struct entry *entry = open_entry(self, X86_64, SYS_clone, THREAD_FLAGS, (long)top, 0, (long)&thread->alive, 0, LEFT);
  thread->before = entry->before;
  long ret;
  register long r10 asm("r10") = (long)&thread->alive;
  register long r8 asm("r8") = 0;
  register long r12 asm("r12") = (long)thread;
  asm volatile("syscall; test %%rax, %%rax; jnz 1f; xor %%ebp, %%ebp; mov %%r12, %%rdi; call thread_main; ud2; 1:"
               : "=a"(ret)
               : "a"(SYS_clone), "D"(THREAD_FLAGS), "S"(top), "d"(0), "r"(r10), "r"(r8), "r"(r12)
               : "rcx", "r11", "memory");
  close_entry(entry, ret);
  return thread;
}

/* Waits without a call, so that the diary does not depend on who was first. */
static void join(struct thread *thread) {
  while (__atomic_load_n(&thread->alive, __ATOMIC_SEQ_CST)) asm volatile("pause");
}

/* Waits until a thread of this process sleeps in a call, as the kernel tells. */
static void wait_until_in(struct self *self, long tid, long nr) {
  char path[64], text[32], wanted[32];
  snprintf(path, sizeof(path), "/proc/self/task/%ld/syscall", tid);
  int length = snprintf(wanted, sizeof(wanted), "%ld ", nr);
  do {
    struct timespec pause = {0, 1000000};
    call(self, SYS_nanosleep, &pause, 0);
    long file = call(self, SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
    memset(text, 0, sizeof(text));
    call(self, SYS_read, file, text, sizeof(text) - 1);
    call(self, SYS_close, file);
  } while (strncmp(text, wanted, length));
}

static void open_diary(void) {
  const char *path = getenv("DIARY");
  int file = open(path ? path : "/nonexistent", O_RDWR | O_CLOEXEC);
  off_t size = lseek(file, 0, SEEK_END);
  diary = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (diary == MAP_FAILED) {
    perror("diary");
    exit(99);
  }
}
#endif
