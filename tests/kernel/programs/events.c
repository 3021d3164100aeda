/* Does things whose tracepoints are known, and says what it did: events MODE FOLDER [COUNT]. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void count(int number) { caught++; }

static void check(int good, const char *what) {
  if (!good) {
    perror(what);
    exit(1);
  }
}

static void say(const char *name, long value) { printf("%s %ld\n", name, value); }

static void calls(long times) {
  for (long i = 0; i < times; i++) syscall(SYS_getppid);
}

/* Every family once, with numbers that the test knows. */
static void everything(const char *folder) {
  char path[4096];
  say("pid", getpid());
  calls(1234);
  for (long i = 0; i < 50; i++) syscall(9999, i, -i, 3L << 40, 4, 5, -6);

  struct sigaction action = {.sa_handler = count};
  sigaction(SIGUSR1, &action, 0);
  for (int i = 0; i < 7; i++) kill(getpid(), SIGUSR1);
  check(caught == 7, "signals");

  for (int i = 0; i < 5; i++) {
    pid_t child = fork();
    if (!child) _exit(30 + i);
    int status;
    check(waitpid(child, &status, 0) == child, "wait");
    say("child", child);
  }
  prctl(PR_SET_NAME, "known\nname");

  snprintf(path, sizeof(path), "%s/synced", folder);
  int file = open(path, O_CREAT | O_RDWR, 0640);
  check(file >= 0, path);
  struct stat status;
  fstat(file, &status);
  say("inode", status.st_ino);
  say("device", status.st_dev);
  for (int i = 0; i < 3; i++) {
    check(write(file, path, 100) == 100, "write");
    check(fsync(file) == 0, "fsync");
  }
  check(fdatasync(file) == 0, "fdatasync");
  struct flock lock = {.l_type = F_WRLCK, .l_start = 11, .l_len = 22};
  check(fcntl(file, F_SETLK, &lock) == 0, "lock");

  struct itimerval timer = {.it_value = {12345, 678}, .it_interval = {9, 10}}, none = {0};
  setitimer(ITIMER_REAL, &timer, 0);
  setitimer(ITIMER_REAL, &none, 0);

  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
  socklen_t length = sizeof(address);
  check(bind(listener, (void *)&address, length) == 0 && listen(listener, 1) == 0, "listen");
  getsockname(listener, (void *)&address, &length);
  say("port", ntohs(address.sin_port));
  int client = socket(AF_INET, SOCK_STREAM, 0);
  check(connect(client, (void *)&address, length) == 0, "connect");
  getsockname(client, (void *)&address, &length);
  say("client", ntohs(address.sin_port));
  int served = accept(listener, 0, 0);
  close(client);
  close(served);
  close(listener);

  int datagram = socket(AF_INET, SOCK_DGRAM, 0);
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000003), .sin_port = htons(9)};
  for (int i = 0; i < 4; i++) sendto(datagram, path, 100 + i, MSG_NOSIGNAL, (void *)&address, sizeof(address));
  close(datagram);

  long page = sysconf(_SC_PAGESIZE);
  char *memory = mmap(0, 64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(memory, 64 * page, MADV_NOHUGEPAGE);
  say("memory", (long)memory);
  fflush(stdout);
  for (int i = 0; i < 64; i++) memory[i * page] = 1;
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (!strcmp(argv[1], "everything")) everything(argv[2]);
  if (!strcmp(argv[1], "calls") && argc > 3) {
    calls(atol(argv[3]));
    return 0;
  }
  if (!strcmp(argv[1], "line")) { /* calls, once something is to be read */
    char byte;
    while (read(0, &byte, 1) == 1) {
      calls(1000);
      check(write(1, &byte, 1) == 1, "answer");
    }
    return 0;
  }
  if (!strcmp(argv[1], "for ever")) for (;;) calls(100), usleep(1000);
  return 2;
}
