/* Uses files in every way that descriptors can be passed on, and keeps its own account by name in a file that it has mapped. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct row {
  char name[256];
  long calls, opens, reads, writes, bytes_read, bytes_written, errors, placed, sequential;
};
#define ROWS 64
static struct row *rows;
static const char *folder, *account;
static char buffer[4096];

static struct row *of(const char *name) {
  for (struct row *row = rows; row < rows + ROWS; row++) {
    if (!row->name[0]) strcpy(row->name, name);
    if (!strcmp(row->name, name)) return row;
  }
  abort();
}

static const char *in(const char *name) {
  static char text[4][256];
  static int next;
  next = (next + 1) % 4;
  snprintf(text[next], sizeof(text[next]), "%s/%s", folder, name);
  return text[next];
}

static void open_account(void) {
  int fd = open(account, O_RDWR | O_CLOEXEC);
  rows = mmap(0, ROWS * sizeof(*rows), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (rows == MAP_FAILED) exit(99);
  close(fd);
}

/* Every call goes through one of these: what it was for, and what came back. */
static long call(const char *name, long ret) {
  struct row *row = of(name);
  row->calls++;
  row->errors += ret < 0;
  return ret;
}
static long opened(const char *name, long ret) {
  of(name)->opens += ret >= 0;
  return call(name, ret);
}
static void placed(const char *name, long ret, int sequential) {
  if (ret > 0 && sequential >= 0) {
    of(name)->placed += ret;
    of(name)->sequential += sequential ? ret : 0;
  }
}
static void got(const char *name, long ret, int sequential) {
  struct row *row = of(name);
  call(name, ret);
  row->reads++;
  row->bytes_read += ret > 0 ? ret : 0;
  placed(name, ret, sequential);
}
static void gave(const char *name, long ret, int sequential) {
  struct row *row = of(name);
  call(name, ret);
  row->writes++;
  row->bytes_written += ret > 0 ? ret : 0;
  placed(name, ret, sequential);
}

static long open_at(const char *name, const char *path, int flags) { return opened(name, syscall(SYS_openat, AT_FDCWD, path, flags, 0600)); }
static long make(const char *name) { return open_at(in(name), in(name), O_RDWR | O_CREAT); }
static void shut(const char *name, long fd) { call(name, syscall(SYS_close, fd)); }
static void put(const char *name, long fd, long count, int sequential) { gave(name, syscall(SYS_write, fd, buffer, count), sequential); }
static void get(const char *name, long fd, long count, int sequential) { got(name, syscall(SYS_read, fd, buffer, count), sequential); }

static void plain(void) {
  const char *name = in("data");
  long fd = make("data");
  for (int i = 0; i < 3; i++) put(name, fd, 100, 1);
  call(name, syscall(SYS_lseek, fd, 0, SEEK_SET));
  for (int i = 0; i < 3; i++) get(name, fd, 100, i > 0);
  get(name, fd, 100, 1);
  got(name, syscall(SYS_pread64, fd, buffer, 50, 200), 0);
  got(name, syscall(SYS_pread64, fd, buffer, 50, 250), 1);
  got(name, syscall(SYS_pread64, fd, buffer, 50, 0), 0);
  call(name, syscall(SYS_fsync, fd));
  call(name, syscall(SYS_ftruncate, fd, 10));
  void *memory = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  call(name, memory == MAP_FAILED ? -1 : 0);
  munmap(memory, 4096);
  shut(name, fd);
}

static void duplicates(void) {
  const char *name = in("dup");
  long fd = make("dup"), copy = call(name, syscall(SYS_dup, fd));
  shut(name, fd);
  put(name, copy, 10, 1);
  long fifty = call(name, syscall(SYS_dup3, copy, 50, 0)), sixty = call(name, syscall(SYS_fcntl, copy, F_DUPFD, 60));
  put(name, fifty, 10, 1);
  put(name, sixty, 10, 1);
  shut(name, copy);
  shut(name, fifty);
  shut(name, sixty);
}

static void children(void) {
  const char *name = in("data"), *other = in("other");
  long fd = open_at(name, name, O_RDONLY);
  long child = syscall(SYS_fork);
  if (child == 0) {
    get(name, fd, 5, 1);
    shut(name, fd);
    long again = make("other");
    put(other, again, 7, 1);
    _exit(again == fd ? 0 : 1);
  }
  waitpid(child, 0, 0);
  get(name, fd, 5, 1);
  shut(name, fd);
  const char *shared = in("shared");
  child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(syscall(SYS_dup2, make("shared"), 40) == 40 ? 0 : 1);
  waitpid(child, 0, 0);
  of(shared)->calls++; /* the dup2 of the child */
  put(shared, 40, 9, 1);
  shut(shared, 40);
}

static void *thread(void *argument) { return (void *)(make(argument)); }

static void threads(void) {
  pthread_t one;
  void *fd;
  pthread_create(&one, 0, thread, "thread");
  pthread_join(one, &fd);
  put(in("thread"), (long)fd, 11, 1);
  shut(in("thread"), (long)fd);
}

static void ranges(void) {
  const char *none = "(descriptor that is not open)";
  long first = make("range"), last = make("range");
  syscall(SYS_close_range, first, last, 0);
  get(none, first, 1, -1);
  get(none, last, 1, -1);
}

static void places(void) {
  mkdir(in("sub"), 0700);
  call(in("sub"), syscall(SYS_chdir, in("sub")));
  of(in("sub"))->calls++; /* mkdir */
  long fd = open_at(in("sub/relative"), "./relative", O_RDWR | O_CREAT);
  put(in("sub/relative"), fd, 3, 1);
  shut(in("sub/relative"), fd);
  long at = open_at(folder, folder, O_RDONLY | O_DIRECTORY);
  fd = opened(in("at"), syscall(SYS_openat, at, "at", O_RDWR | O_CREAT, 0600));
  call(in("at"), syscall(SYS_newfstatat, fd, "", buffer, AT_EMPTY_PATH));
  shut(in("at"), fd);
  call(folder, syscall(SYS_fchdir, at));
  shut(folder, at);
  for (int i = 0; i < 3; i++) open_at(in("none"), "none", O_RDONLY);
  open_at(folder, folder, O_WRONLY);
}

static void pipes(void) {
  int ends[2], pair[2], passed;
  char name[64], control[CMSG_SPACE(sizeof(int))] = {}, byte = 'x';
  snprintf(name, sizeof(name), "pipe made by %d", getpid());
  call(name, syscall(SYS_pipe2, ends, 0));
  of(name)->opens += 2;
  put(name, ends[1], 20, -1);
  get(name, ends[0], 20, -1);
  shut(name, ends[0]);
  shut(name, ends[1]);
  /* A descriptor that comes in a message is one of which nothing tells. */
  snprintf(name, sizeof(name), "socket:UNIX pair made by %d", getpid());
  call(name, syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair));
  of(name)->opens += 2;
  long fd = open_at(in("data"), in("data"), O_RDONLY);
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
  memcpy(CMSG_DATA(header), &fd, sizeof(int));
  gave(name, syscall(SYS_sendmsg, pair[0], &message, 0), -1);
  got(name, syscall(SYS_recvmsg, pair[1], &message, 0), -1);
  memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  shut(name, pair[0]);
  shut(name, pair[1]);
  shut(in("data"), fd);
  snprintf(name, sizeof(name), "fd %d (unknown)", passed);
  get(name, passed, 4, -1);
  shut(name, passed);
}

static void waits(void) {
  char order;
  long before = make("before");
  if (write(before, buffer, 100) != 100 || lseek(before, 30, SEEK_SET) != 30 || chdir(folder)) exit(98);
  memset(rows, 0, ROWS * sizeof(*rows));
  while (read(0, &order, 1) == 1 && order == 'g') {
    get(in("before"), before, 10, 1);
    open_at(in("late"), "late", O_RDWR | O_CREAT);
    long child = syscall(SYS_fork);
    if (child == 0) {
      get(in("before"), before, 10, 1);
      _exit(0);
    }
    waitpid(child, 0, 0);
  }
}

int main(int count, char **words) {
  folder = words[1], account = words[2];
  open_account();
  if (!strcmp(words[3], "wait")) {
    waits();
  } else if (!strcmp(words[3], "all")) {
    plain();
    duplicates();
    children();
    threads();
    ranges();
    places();
    pipes();
    long kept = make("kept"), gone = open_at(in("gone"), in("gone"), O_RDWR | O_CREAT | O_CLOEXEC), set = make("set");
    call(in("set"), syscall(SYS_fcntl, set, F_SETFD, FD_CLOEXEC));
    char text[3][16];
    snprintf(text[0], 16, "%ld", kept);
    snprintf(text[1], 16, "%ld", gone);
    snprintf(text[2], 16, "%ld", set);
    execl("/proc/self/exe", words[0], folder, account, "again", text[0], text[1], text[2], (char *)0);
    return 97;
  } else {
    put(in("kept"), atol(words[4]), 5, 1);
    put("(descriptor that is not open)", atol(words[5]), 5, -1);
    put("(descriptor that is not open)", atol(words[6]), 5, -1);
  }
  return count > 100;
}
