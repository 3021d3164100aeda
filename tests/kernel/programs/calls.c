/* Known calls: results, errors, arguments in all six places, odd numbers, 32-bit entry. */
#include "diary.h"

#include <poll.h>
#include <sys/socket.h>

static void plain(struct self *self) {
  static char text[4096];
  int ends[2];
  for (int i = 0; i < 1000; i++) call(self, SYS_getppid);
  for (int i = 0; i < 10; i++) call(self, SYS_close, -1 - i);
  call(self, SYS_openat, AT_FDCWD, "/nonexistent/file", O_RDONLY, 0);
  call(self, SYS_openat, AT_FDCWD, "/etc/passwd/file", O_RDONLY, 0);
  call(self, SYS_openat, AT_FDCWD, (char *)8, O_RDONLY, 0);
  call(self, SYS_openat, AT_FDCWD, "/dev/null", 0x40000000 | O_RDWR, 0);
  call(self, SYS_kill, 0x7ffffffe, 0);
  call(self, SYS_lseek, 99, -12345678901L, SEEK_END);
  call(self, SYS_pipe2, ends, O_CLOEXEC);
  call(self, SYS_write, ends[1], text, 4096);
  call(self, SYS_read, ends[0], text, 1000);
  call(self, SYS_read, ends[0], text, 4000);
  call(self, SYS_fcntl, ends[0], F_GETFL, LEFT);
  call(self, SYS_close, ends[0]);
  call(self, SYS_close, ends[1]);
  call(self, SYS_socket, 12345, -1, -2);
  call(self, SYS_mmap, 0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  call(self, SYS_mmap, 0x123000, -1L, 0x7fffffffffffffff, 4, 5, 0x7000);
  call(self, SYS_sendto, 98, text, 1234, 0x4000, 0, 17);
  call(self, SYS_pwrite64, 97, text, 55, 0x1122334455667788);
  call(self, SYS_futex, text, 0x7f, -3, 4, text + 64, 0x55);
  call(self, SYS_getpriority, 0, 0);
}

static void numbers(struct self *self) {
  static char text[16] = "0123456789abcde";
  call(self, 9999, 1, 2, 3, 4, 5, 6);
  call(self, -1, -1, -2, -3, -4, -5, -6);
  call(self, 1023, 1, 2, 3, 4, 5, 6);
  call(self, 1024, 6, 5, 4, 3, 2, 1);
  call(self, 0x7fffffff, 1, 2, 3, 4, 5, 6);
  call(self, 0x40000000 | SYS_getppid, 1, 2, 3, 4, 5, 6);
  call_i386(self, 20, 1, 2, 3, 4, 5, 6);                   /* getpid */
  call_i386(self, 6, 0xfffffff0, 2, 3, 4, 5, 6);           /* close: EBADF */
  call_i386(self, 20, LEFT, LEFT, LEFT, LEFT, LEFT, LEFT); /* halves of registers that a 32-bit call cannot see */
  call_i386(self, 192, 0, 0xfffff000, 3, 0x22, 0xffffffff, 7); /* mmap2: ENOMEM */
  call_i386(self, 9999, 1, 2, 3, 4, 5, 6);
  call_i386(self, 4, 96, (long)text, 5, 4, 5, 6); /* write: EBADF */
  call(self, SYS_getppid);
}

/* Numbers 512 to 547 are of x32 alone: here ioctl, execve and recvfrom. */
static void x32(struct self *self) {
  call(self, 0x40000000 | 514, 1, 2, 3, 4, 5, 6);
  call(self, 0x40000000 | 520, 1, 2, 3, 4, 5, 6);
  call(self, 0x40000000 | 517, 1, 2, 3, 4, 5, 6);
}

int main(int count, char **words) {
  struct self self;
  open_diary();
  begin(&self);
  if (count > 1 && !strcmp(words[1], "plain")) plain(&self);
  if (count > 1 && !strcmp(words[1], "numbers")) numbers(&self);
  if (count > 1 && !strcmp(words[1], "x32")) x32(&self);
  last_call(&self, SYS_exit_group, 7, LEFT, LEFT, LEFT);
}
