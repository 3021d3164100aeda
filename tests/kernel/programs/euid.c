/* Installed setuid root: says who it is, and starts a program that inherits it. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
  printf("real %d effective %d\n", getuid(), geteuid());
  return 0;
}
