"""Writes a small C program of many files, and a Makefile for it: something to compile that needs nothing but a compiler.

python3 sources.py FOLDER [FILES]
"""

import sys
from pathlib import Path

BODY = """#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "all.h"

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int part_%d(int count) {
  int *values = malloc(sizeof(int) * count), sum = 0;
  for (int i = 0; i < count; i++) values[i] = (i * 7919 + %d) %% 1009;
  qsort(values, count, sizeof(int), compare);
  for (int i = 0; i < count; i += 3) sum += values[i] * (int)sqrt(i);
  char text[64];
  snprintf(text, sizeof(text), "%%d of part %d", sum);
  free(values);
  return sum ^ (int)strlen(text);
}
"""


def main(folder, count):
    """Write them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"part_{number}" for number in range(count)]
    (folder / "all.h").write_text("".join(f"int {name}(int count);\n" for name in names))
    for number, name in enumerate(names):
        (folder / f"{name}.c").write_text(BODY % (number, number, number))
    calls = "".join(f"  sum ^= {name}(1000);\n" for name in names)
    (folder / "main.c").write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{\n  int sum = 0;\n{calls}  printf("%d\\n", sum);\n  return 0;\n}}\n'
    )
    objects = " ".join(f"{name}.o" for name in ["main", *names])
    (folder / "Makefile").write_text(f"CFLAGS = -O1\nprogram: {objects}\n\t$(CC) -o $@ {objects} -lm\n{objects}: all.h\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24)
