/* Known functions in code of every kind: of a library loaded late, of another program, made at run time, of the kernel's own page. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMED __attribute__((noinline))

static int64_t used(void) {
  struct timespec at;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static volatile uint64_t sink;

#ifdef PLUGIN
NAMED void plugin_turn(void) {
  for (long i = 0; i < 20000; i++) sink = sink * 6364136223846793005ULL + 1442695040888963407ULL;
}
#else
NAMED void own_turn(void) {
  for (long i = 0; i < 20000; i++) sink = sink * 6364136223846793005ULL + 1442695040888963407ULL;
}
NAMED void clock_turn(void) {
  struct timespec at;
  for (long i = 0; i < 2000; i++) clock_gettime(CLOCK_MONOTONIC, &at), sink += at.tv_nsec;
}
NAMED void spin(void (*turn)(void), long ms) {
  int64_t end = used() + ms * 1000000LL;
  while (used() < end) turn();
  __asm__ volatile("");
}

static void (*made_at_run_time(void))(void) {
#if defined(__x86_64__)
  /* push %rbp; mov %rsp,%rbp; mov $20000,%ecx; 1: dec %ecx; jnz 1b; pop %rbp; ret */
  static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0x20, 0x4e, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};
#else
  /* mov w0, #20000; 1: subs w0, w0, #1; b.ne 1b; ret */
  static const uint32_t code[] = {0x5289c400, 0x71000400, 0x54ffffe1, 0xd65f03c0};
#endif
  char *area = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(area + 64, code, sizeof code);
  mprotect(area, 4096, PROT_READ | PROT_EXEC);
  __builtin___clear_cache(area, area + 4096);
  char name[64];
  snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
  FILE *map = fopen(name, "w");
  /* The name that came last for an address is the one that holds; a name may be anything. */
  fprintf(map, "%lx %zx outdated\n", (long)area + 64, sizeof code);
  fprintf(map, "%lx %zx py::<module> </script>\x1b[31m;made.js:3\n", (long)area + 64, sizeof code);
  fprintf(map, "no line of a map\n");
  fclose(map);
  return (void (*)(void))(area + 64);
}

int main(int count, char **arguments) {
  const char *what = arguments[1];
  if (!strcmp(what, "own")) spin(own_turn, 400);
  if (!strcmp(what, "clock")) spin(clock_turn, 400);
  if (!strcmp(what, "made")) spin(made_at_run_time(), 400);
  if (!strcmp(what, "library")) {
    spin(own_turn, 100);
    void (*turn)(void) = (void (*)(void))dlsym(dlopen(arguments[2], RTLD_NOW), "plugin_turn");
    spin(turn, 400);
  }
  if (!strcmp(what, "exec")) {
    spin(own_turn, 400);
    execv(arguments[2], arguments + 2);
  }
  if (!strcmp(what, "twice")) {
    for (int i = 0; i < 2; i++)
      if (!fork()) execv(arguments[0], (char *[]){arguments[0], "own", 0});
    while (wait(0) > 0) {}
  }
  return 0;
}
#endif
