/* Direct I/O of known truth. Every thread says at its end: tid, requests, bytes.
 *
 * block io DEVICE read|write SIZE COUNT sequential|random THREADS   each thread in a region of its own; writers sync at the end
 * block batch DEVICE SIZE INDEX...                                  writes of SIZE at these places, submitted in one call
 * block orders DEVICE SIZE                                          a line on stdin: another thread writes SIZE; at its end all are joined
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST 64

static int device;
static long size, count, writes, random_order;

struct worker {
  pthread_t thread;
  long number, tid, requests, bytes;
};

static void *memory(void) {
  void *made;
  if (posix_memalign(&made, 4096, size)) exit(3);
  memset(made, 'x', size);
  return made;
}

static void *works(void *argument) {
  struct worker *self = argument;
  void *buffer = memory();
  self->tid = syscall(SYS_gettid);
  for (long i = 0; i < count; i++) {
    /* 7 is prime to the counts that tests use, and no two neighbours follow each other. */
    long place = random_order ? (7 * i + 3) % count : i;
    off_t at = (self->number * count + place) * size;
    long got = writes ? pwrite(device, buffer, size, at) : pread(device, buffer, size, at);
    if (got < 0) fprintf(stderr, "%s\n", strerror(errno));
    self->requests++;
    if (got > 0) self->bytes += got;
  }
  free(buffer);
  return 0;
}

static void tell(struct worker *worker) {
  pthread_join(worker->thread, 0);
  printf("%ld %ld %ld\n", worker->tid, worker->requests, worker->bytes);
  fflush(stdout);
}

static int batch(int places, char **place) {
  struct iocb blocks[MOST] = {0}, *all[MOST];
  struct io_event events[MOST];
  aio_context_t context = 0;
  if (places > MOST || syscall(SYS_io_setup, MOST, &context)) return 4;
  for (int i = 0; i < places; i++) {
    blocks[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = device, .aio_buf = (unsigned long)memory(), .aio_nbytes = size,
                              .aio_offset = atol(place[i]) * size};
    all[i] = &blocks[i];
  }
  if (syscall(SYS_io_submit, context, places, all) != places) return 5;
  long bytes = 0;
  if (syscall(SYS_io_getevents, context, places, places, events, 0) != places) return 6;
  for (int i = 0; i < places; i++) bytes += events[i].res;
  printf("%ld %d %ld\n", syscall(SYS_gettid), places, bytes);
  return 0;
}

int main(int argc, char **argv) {
  struct worker workers[MOST] = {0};
  if (argc < 4) return 2;
  int orders = !strcmp(argv[1], "orders");
  device = open(argv[2], O_RDWR | O_DIRECT);
  if (device < 0) return 7;
  if (!strcmp(argv[1], "batch")) {
    size = atol(argv[3]);
    return batch(argc - 4, argv + 4);
  }
  int threads = 0;
  if (orders) {
    char line[16];
    size = atol(argv[3]);
    count = writes = 1;
    while (threads < MOST && fgets(line, sizeof(line), stdin)) {
      workers[threads].number = threads;
      pthread_create(&workers[threads].thread, 0, works, &workers[threads]);
      threads++;
    }
  } else {
    if (argc < 8) return 2;
    writes = !strcmp(argv[3], "write");
    size = atol(argv[4]);
    count = atol(argv[5]);
    random_order = !strcmp(argv[6], "random");
    for (; threads < atoi(argv[7]); threads++) {
      workers[threads].number = threads;
      pthread_create(&workers[threads].thread, 0, works, &workers[threads]);
    }
  }
  for (int i = 0; i < threads; i++) tell(&workers[i]);
  if (writes && fdatasync(device)) return 8;
  return 0;
}
