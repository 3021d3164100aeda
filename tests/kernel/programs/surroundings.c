/* Prints everything that a program finds on its start, so that two starts can be compared. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

int main(int count, char **words) {
  char text[65536];
  uid_t uids[3], gids[3];
  gid_t groups[64];
  getresuid(&uids[0], &uids[1], &uids[2]);
  getresgid(&gids[0], &gids[1], &gids[2]);
  printf("uid %d %d %d gid %d %d %d groups", uids[0], uids[1], uids[2], gids[0], gids[1], gids[2]);
  int groups_count = getgroups(64, groups);
  for (int i = 0; i < groups_count; i++) printf(" %d", groups[i]);
  printf("\ncwd %s\n", getcwd(text, sizeof(text)));
  mode_t mask = umask(0);
  printf("umask %o nice %d\n", mask, getpriority(PRIO_PROCESS, 0));
  for (int i = 0; i < RLIMIT_NLIMITS; i++) {
    struct rlimit limit;
    getrlimit(i, &limit);
    printf("limit %d %lx %lx\n", i, limit.rlim_cur, limit.rlim_max);
  }
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(text, sizeof(text), status))
    if ((!strncmp(text, "Sig", 3) && text[3] != 'Q') || !strncmp(text, "Cap", 3) || !strncmp(text, "NoNewPrivs", 10) ||
        !strncmp(text, "Cpus_allowed:", 13) || !strncmp(text, "Seccomp:", 8))
      fputs(text, stdout);
  fclose(status);
  for (int fd = 0; fd < 64; fd++) {
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) printf("fd %d flags %d mode %x\n", fd, flags, fcntl(fd, F_GETFL));
  }
  for (int i = 1; i < count; i++) printf("word %s\n", words[i]);
  for (char **one = environ; *one; one++) printf("env %s\n", *one);
  int length = read(7, text, sizeof(text));
  if (length > 0) printf("fd 7 says %.*s\n", length, text);
  length = read(0, text, sizeof(text));
  if (length > 0) printf("stdin says %.*s\n", length, text);
  fflush(stdout);
  dprintf(2, "on stderr\n");
  return 0;
}
