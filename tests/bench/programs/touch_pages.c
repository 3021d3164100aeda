/* Touches pages of fresh memory and gives them back, again and again: one page fault for each page.
 *
 * touch_pages ROUNDS [PAGES]
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

int main(int count, char **words) {
  if (count < 2) return 99;
  long rounds = atol(words[1]), pages = count > 2 ? atol(words[2]) : 10000;
  char *memory = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 98;
  madvise(memory, pages * 4096, MADV_NOHUGEPAGE);
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < pages; i++) *(volatile char *)(memory + i * 4096) = 1;
    madvise(memory, pages * 4096, MADV_DONTNEED);
  }
  return 0;
}
