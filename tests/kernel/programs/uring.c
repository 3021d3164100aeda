/* Sends and receives by io_uring: once on the spot, once by a worker thread. Says cookies and bytes as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) { perror(#condition); exit(1); } } while (0)

static struct io_uring_params params;
static char *rings;
static struct io_uring_sqe *entries;
static int ring;

static void set_up(void) {
  ring = syscall(SYS_io_uring_setup, 4, &params);
  if (ring < 0) {
    perror("io_uring_setup");
    exit(77);
  }
  CHECK(params.features & IORING_FEAT_SINGLE_MMAP);
  size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe) + params.sq_off.array + params.sq_entries * 4;
  rings = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  CHECK(rings != MAP_FAILED);
  entries = mmap(0, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
  CHECK(entries != MAP_FAILED);
}

static int do_one(int operation, int fd, void *data, int length, int flags) {
  unsigned *tail = (unsigned *)(rings + params.sq_off.tail), mask = *(unsigned *)(rings + params.sq_off.ring_mask);
  unsigned index = *tail & mask;
  struct io_uring_sqe *entry = &entries[index];
  memset(entry, 0, sizeof(*entry));
  entry->opcode = operation;
  entry->fd = fd;
  entry->addr = (uintptr_t)data;
  entry->len = length;
  entry->flags = flags;
  ((unsigned *)(rings + params.sq_off.array))[index] = index;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  CHECK(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) == 1);
  unsigned *head = (unsigned *)(rings + params.cq_off.head);
  CHECK(__atomic_load_n((unsigned *)(rings + params.cq_off.tail), __ATOMIC_ACQUIRE) != *head);
  struct io_uring_cqe *done = (struct io_uring_cqe *)(rings + params.cq_off.cqes) + (*head & *(unsigned *)(rings + params.cq_off.ring_mask));
  int result = done->res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return result;
}

static uint64_t cookie(int fd) {
  uint64_t value = 0;
  socklen_t size = sizeof(value);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &value, &size) == 0);
  return value;
}

int main(void) {
  static char data[4000];
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(here);
  set_up();
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(listener, (struct sockaddr *)&here, sizeof(here)) == 0 && listen(listener, 1) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&here, &size) == 0 && connect(one, (struct sockaddr *)&here, size) == 0);
  int other = accept(listener, 0, 0);
  CHECK(other >= 0);
  uint64_t from = cookie(one), to = cookie(other);
  CHECK(do_one(IORING_OP_SEND, one, data, 1111, 0) == 1111);
  CHECK(do_one(IORING_OP_RECV, other, data, sizeof(data), 0) == 1111);
  CHECK(do_one(IORING_OP_SEND, one, data, 2222, IOSQE_ASYNC) == 2222);
  CHECK(do_one(IORING_OP_RECV, other, data, sizeof(data), IOSQE_ASYNC) == 2222);
  printf("{\"pid\": %d, \"sender\": %llu, \"receiver\": %llu}\n", getpid(), (unsigned long long)from, (unsigned long long)to);
  return 0;
}
