/* Programs that take a known number of page faults, or hold a known amount of memory. What the kernel's own accounts say at
 * each mark is written to standard output at the end, a line of name=value for each mark.
 *
 * memory touch|kernel|populate|shrink|wait N, memory cow N, memory threads N, memory file N PATH, memory regions N,
 * memory wild N, memory fill N, memory read N PATH: N is a number of pages
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096l
#define MARKS 64

struct mark {
  const char *name;
  long time, pid, tid, minor, major, base, rss, peak, mapped, mapped_peak;
};
static struct mark *marks; /* shared, so that children and threads leave theirs */
static long *count;

static long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000l + time.tv_nsec;
}

static long status(const char *text, const char *name) {
  const char *at = strstr(text, name);
  return at ? 1024 * atol(at + strlen(name)) : -1;
}

/* The counters are read between two readings of the clock that take no fault of their own. */
static struct mark *mark(const char *name, void *base, int with_memory) {
  static __thread char text[8192];
  struct rusage used;
  struct mark *here = &marks[__sync_fetch_and_add(count, 1)];
  if (with_memory) {
    int file = open("/proc/self/status", O_RDONLY);
    long got = read(file, text, sizeof(text) - 1);
    close(file);
    text[got > 0 ? got : 0] = 0;
    here->rss = status(text, "VmRSS:");
    here->peak = status(text, "VmHWM:");
    here->mapped = status(text, "VmSize:");
    here->mapped_peak = status(text, "VmPeak:");
  }
  here->name = name;
  here->base = (long)base;
  here->pid = getpid();
  here->tid = syscall(SYS_gettid);
  here->time = now();
  syscall(SYS_getrusage, RUSAGE_THREAD, &used);
  here->minor = used.ru_minflt;
  here->major = used.ru_majflt;
  return here;
}

static void *map(long pages, int flags) {
  void *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (memory == MAP_FAILED) exit(98);
  madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
  return memory;
}

static void touch(char *memory, long pages) {
  for (long i = 0; i < pages; i++) *(volatile char *)(memory + i * PAGE) = 1;
}

static void warm(void) { /* everything that mark() uses has been there once */
  mark("warm", 0, 1);
  mark("warm", 0, 1);
}

static long pages;

static void *in_thread(void *argument) {
  (void)argument;
  char *memory = map(pages, 0);
  warm();
  mark("begin", memory, 0);
  touch(memory, pages);
  mark("end", memory, 0);
  return 0;
}

static sigjmp_buf back;
static void on_fault(int number) {
  (void)number;
  siglongjmp(back, 1);
}

static char in_bss[64 * PAGE];

int main(int words, char **word) {
  if (words < 3) return 99;
  const char *mode = word[1];
  pages = atol(word[2]);
  marks = mmap(0, MARKS * sizeof(struct mark) + PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  count = (long *)(marks + MARKS);
  for (long i = 0; i < MARKS; i++) marks[i].time = 0;
  *count = 0;
  warm();
  if (!strcmp(mode, "touch")) {
    char *memory = map(pages, 0);
    mark("begin", memory, 0);
    touch(memory, pages);
    mark("end", memory, 0);
  } else if (!strcmp(mode, "kernel")) {
    char *memory = map(pages, 0);
    int zero = open("/dev/zero", O_RDONLY);
    mark("begin", memory, 0);
    if (read(zero, memory, pages * PAGE) != pages * PAGE) return 97;
    mark("end", memory, 0);
  } else if (!strcmp(mode, "populate")) {
    mark("begin", 0, 0);
    char *memory = map(pages, MAP_POPULATE);
    mark("end", memory, 0);
    touch(memory, pages);
    mark("touched", memory, 0);
  } else if (!strcmp(mode, "cow")) {
    char *memory = map(pages, 0);
    touch(memory, pages);
    pid_t child = fork();
    if (child == 0) {
      warm();
      mark("begin", memory, 0);
      touch(memory, pages);
      mark("end", memory, 0);
      _exit(0);
    }
    waitpid(child, 0, 0);
  } else if (!strcmp(mode, "threads")) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, in_thread, 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  } else if (!strcmp(mode, "file")) {
    int file = open(word[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
    static char block[PAGE];
    for (long i = 0; i < pages; i++)
      if (write(file, block, PAGE) != PAGE) return 97;
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    char *memory = mmap(0, pages * PAGE, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return 98;
    madvise(memory, pages * PAGE, MADV_RANDOM); /* no page is read ahead */
    mark("begin", memory, 0);
    for (long i = 0; i < pages; i++) (void)*(volatile char *)(memory + i * PAGE);
    mark("end", memory, 0);
    munmap(memory, pages * PAGE);
    memory = mmap(0, pages * PAGE, PROT_READ, MAP_SHARED, file, 0);
    mark("again", memory, 0);
    for (long i = 0; i < pages; i++) (void)*(volatile char *)(memory + i * PAGE);
    mark("cached", memory, 0);
  } else if (!strcmp(mode, "regions")) {
    char *heap = sbrk(pages * PAGE + PAGE); /* what malloc has got of the heap before may end inside of a page */
    heap = (char *)(((long)heap + PAGE - 1) & -PAGE);
    mark("heap", heap, 0);
    touch(heap, pages);
    char *memory = map(pages, 0);
    mark("mapping", memory, 0);
    touch(memory, pages);
    char *bss = (char *)(((long)in_bss + PAGE - 1) & -PAGE);
    mark("program", bss, 0);
    touch(bss, 63);
    char *top = (char *)((long)__builtin_frame_address(0) & -PAGE), *stack = top - pages * PAGE;
    mark("stack", stack, 0);
    for (long i = pages - 1; i >= 0; i--) *(volatile char *)(stack + i * PAGE) = 1;
    mark("end", 0, 0);
  } else if (!strcmp(mode, "wild")) {
    char *memory = map(pages, 0);
    munmap(memory, pages * PAGE);
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    if (!sigsetjmp(back, 1)) *(volatile char *)memory = 1;
    mark("begin", memory, 0);
    for (volatile long i = 0; i < pages; i++)
      if (!sigsetjmp(back, 1)) *(volatile char *)(memory + i * PAGE) = 1;
    mark("end", memory, 0);
  } else if (!strcmp(mode, "shrink")) {
    mark("start", 0, 1);
    char *memory = map(pages, 0);
    touch(memory, pages);
    mark("grown", memory, 1);
    madvise(memory, pages / 2 * PAGE, MADV_DONTNEED);
    mark("halved", memory, 1);
    munmap(memory, pages * PAGE);
    mark("gone", memory, 1);
    char *heap = sbrk(pages * PAGE);
    touch(heap, pages / 4);
    mark("heap", heap, 1);
    if (mmap(0, 1l << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) return 96;
    sbrk(-pages * PAGE);
    mark("end", 0, 1);
  } else if (!strcmp(mode, "wait")) { /* for a file to appear, then touch, then wait for it to go */
    char *memory = map(pages, 0);
    touch(memory, pages / 2);
    mark("waiting", memory, 1);
    while (access(word[3], F_OK)) usleep(1000);
    mark("begin", memory, 1);
    touch(memory + pages / 2 * PAGE, pages - pages / 2);
    mark("end", memory, 1);
  } else if (!strcmp(mode, "fill")) { /* more than it is allowed */
    touch(map(pages, 0), pages);
  } else if (!strcmp(mode, "read")) { /* files through a page cache that is too small */
    static char block[1 << 16];
    int file = open(word[3], O_RDONLY);
    for (long left = pages * PAGE; left > 0;) {
      long got = read(file, block, sizeof(block));
      if (got <= 0) lseek(file, 0, SEEK_SET);
      left -= got;
    }
  } else {
    return 95;
  }
  for (long i = 0; i < *count; i++) {
    struct mark *at = &marks[i];
    printf("name=%s time=%ld pid=%ld tid=%ld minor=%ld major=%ld base=%ld rss=%ld peak=%ld mapped=%ld mapped_peak=%ld\n", at->name, at->time,
           at->pid, at->tid, at->minor, at->major, at->base, at->rss, at->peak, at->mapped, at->mapped_peak);
  }
  return 0;
}
