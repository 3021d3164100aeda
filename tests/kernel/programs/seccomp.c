/* Calls that a seccomp filter answers, one action for each number; every call is told by the parent's expectation in the test. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DENY(number, action)                               \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),       \
  BPF_STMT(BPF_RET | BPF_K, action)

static void restrict_calls(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      DENY(SYS_mkdir, SECCOMP_RET_ERRNO | EACCES),
      DENY(SYS_getppid, SECCOMP_RET_ERRNO | 0),
      DENY(SYS_getpgid, SECCOMP_RET_TRAP),
      DENY(SYS_umask, SECCOMP_RET_KILL_PROCESS),
      DENY(SYS_getsid, SECCOMP_RET_KILL_THREAD),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(99);
}

static void trapped(int number) { (void)number; }

static void *dies(void *unused) {
  syscall(SYS_getsid, 5);
  return unused;
}

int main(int count, char **args) {
  const char *what = args[1];
  signal(SIGSYS, trapped);
  if (!strcmp(what, "wait")) { /* spins in user mode until the file is there, then denied calls only */
    int fd = open(args[2], O_RDONLY | O_CREAT, 0666);
    restrict_calls();
    printf("ready\n");
    fflush(stdout);
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end); /* vDSO: no call */
    end.tv_sec += 2;
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    for (int i = 0; i < 10; i++) syscall(SYS_mkdir, "/nowhere/denied", 7);
    return fd < 0 || count < 0;
  }
  restrict_calls();
  if (!strcmp(what, "errno")) {
    for (int i = 0; i < 100; i++) syscall(SYS_mkdir, "/nowhere/denied", 7);
    for (int i = 0; i < 50; i++) syscall(SYS_getppid);
  } else if (!strcmp(what, "trap")) {
    for (int i = 0; i < 20; i++) syscall(SYS_getpgid, 3);
  } else if (!strcmp(what, "thread")) {
    pthread_t thread;
    pthread_create(&thread, 0, dies, 0);
    usleep(200000);
    syscall(SYS_exit_group, 0);
  } else if (!strcmp(what, "kill")) {
    syscall(SYS_umask, 9);
  }
  return 0;
}
