/* Runs a command and writes what it and its children used: wall ns, user ns, system ns. Nothing of whatever runs the meter is in it. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long ns(struct timeval time) { return time.tv_sec * 1000000000L + time.tv_usec * 1000L; }

int main(int count, char **args) {
  struct timespec begin, end;
  struct rusage usage;
  int status;
  if (count < 3) return 2;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  pid_t child = fork();
  if (child == 0) {
    execvp(args[2], args + 2);
    _exit(127);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) return 3;
  clock_gettime(CLOCK_MONOTONIC, &end);
  getrusage(RUSAGE_CHILDREN, &usage);
  FILE *file = fopen(args[1], "w");
  if (!file) return 4;
  fprintf(file, "%ld %ld %ld\n", (end.tv_sec - begin.tv_sec) * 1000000000L + end.tv_nsec - begin.tv_nsec, ns(usage.ru_utime), ns(usage.ru_stime));
  if (fclose(file)) return 5;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
