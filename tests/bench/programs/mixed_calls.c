/* Many calls of several kinds, some of which fail, by several processes: mixed_calls PROCESSES ROUNDS
 *
 * Ten calls a round. What a report has to tell apart: names, processes, errors, short and long calls.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int work(long rounds) {
  char page[4096];
  struct stat status;
  int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
  if (zero < 0 || null < 0) return 1;
  for (long i = 0; i < rounds; i++) {
    syscall(SYS_getppid);
    syscall(SYS_gettid);
    syscall(SYS_getuid);
    syscall(SYS_read, zero, page, 1 + i % sizeof page);
    syscall(SYS_write, null, page, 1 + i % sizeof page);
    syscall(SYS_lseek, null, i, SEEK_SET);
    syscall(SYS_fstat, zero, &status);
    syscall(SYS_fcntl, null, F_GETFL);
    syscall(SYS_close, -1);
    syscall(SYS_dup, 4096 + (int)(i % 7));
  }
  return 0;
}

int main(int count, char **words) {
  if (count != 3) return 2;
  int processes = atoi(words[1]), failed = 0, status;
  for (int i = 0; i < processes; i++) {
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) return work(atol(words[2]));
  }
  while (wait(&status) > 0) failed |= status != 0;
  return failed;
}
