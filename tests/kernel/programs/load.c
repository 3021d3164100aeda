/* Threads that make numbered calls until they are told to stop; the control file tells at any moment how many have returned.
 * Now and then one opens a path and one forks, so that every table grows.
 *
 * load CONTROL THREADS PAUSE LIMIT: PAUSE is how long a thread spins between two calls, LIMIT the calls of each, 0 for no end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NUMBER 9999
#define EVERY 500
#define PATIENCE 120

struct control {
  volatile long stop, pid, finished, limit, reserved[4];
  struct {
    volatile long returned, reserved[7];
  } threads[8];
};

static struct control *control;
static long pause_length, limit;

static void *work(void *argument) {
  long index = (long)argument;
  time_t began = time(0);
  for (long i = 0; !control->stop && (!limit || i < limit); i++) {
    syscall(NUMBER, index, i, -i, 4, 5, 6);
    control->threads[index].returned = i + 1;
    if (i % EVERY == EVERY - 1) {
      char path[64];
      snprintf(path, sizeof(path), "/nonexistent/%ld/%ld", index, i);
      int file = open(path, O_RDONLY);
      if (file >= 0) close(file);
      if (time(0) - began > PATIENCE) break;
    }
    if (!limit && i % (100 * EVERY) == 0) {
      pid_t child = fork();
      if (child == 0) _exit(3);
      waitpid(child, 0, 0);
    }
    for (long spin = 0; spin < pause_length; spin++) asm volatile("pause");
  }
  return 0;
}

int main(int count, char **words) {
  if (count != 5) return 99;
  int file = open(words[1], O_RDWR);
  control = mmap(0, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (control == MAP_FAILED) return 98;
  long threads = atol(words[2]);
  pause_length = atol(words[3]);
  limit = atol(words[4]);
  control->pid = getpid();
  pthread_t made[8];
  for (long i = 0; i < threads; i++) pthread_create(&made[i], 0, work, (void *)i);
  for (long i = 0; i < threads; i++) pthread_join(made[i], 0);
  control->finished = 1;
  return 42;
}
