/* Hands strings and addresses from a file to the kernel, byte for byte.
 *
 * strings FILE: records of two little-endian 32-bit numbers (what, length) and that many bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN, CONNECT, BIND, BAD_PATH, BAD_ADDRESS, RENAME, SENDTO, UNMAPPED_END };

int main(int count, char **words) {
  if (count != 2) return 99;
  int file = open(words[1], O_RDONLY);
  if (file < 0) return 98;
  off_t size = lseek(file, 0, SEEK_END); /* fstat would be a call with a path, an empty one */
  const char *at = mmap(0, size + 1, PROT_READ, MAP_PRIVATE, file, 0), *end = at + size;
  static char text[16384];
  while (at < end) {
    unsigned what, length;
    memcpy(&what, at, 4);
    memcpy(&length, at + 4, 4);
    at += 8;
    memcpy(text, at, length);
    text[length] = 0;
    at += length;
    int family = (unsigned char)text[0] | (unsigned char)text[1] << 8;
    int made = what == CONNECT || what == BIND || what == SENDTO ? socket(family, SOCK_DGRAM, 0) : -1;
    switch (what) {
      case OPEN: syscall(SYS_openat, AT_FDCWD, text, O_RDONLY, 0); break;
      case CONNECT: syscall(SYS_connect, made, text, length); break;
      case BIND: syscall(SYS_bind, made, text, length); break;
      case SENDTO: syscall(SYS_sendto, made, "x", 1, MSG_DONTWAIT, text, length); break;
      case BAD_PATH: syscall(SYS_openat, AT_FDCWD, 8L, O_RDONLY, 0); break;
      case BAD_ADDRESS: syscall(SYS_connect, socket(AF_UNIX, SOCK_DGRAM, 0), 8L, 16); break;
      case RENAME: syscall(SYS_rename, text, text + strlen(text) + 1); break;
      case UNMAPPED_END: {
        char *pages = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(pages + 4096, 4096);
        memcpy(pages + 4096 - length, text, length); /* no ending NUL before the hole */
        syscall(SYS_openat, AT_FDCWD, pages + 4096 - length, O_RDONLY, 0);
        break;
      }
    }
    if (made >= 0) close(made);
  }
  return 0;
}
