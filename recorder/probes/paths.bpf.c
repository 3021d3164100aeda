/* String arguments, read where the calls are: the functions are used by the programs of syscalls.bpf.c. */

#define STRING_DESCRIPTORS 0
#define STRING_PATH 1
#define STRING_SOCKADDR_IN 2
#define STRING_SOCKADDR_OUT 3
#define STRING_MAX 8192 /* twice PATH_MAX: what the kernel refuses as too long is still seen */
#define SOCKADDR_MAX 128
#define EFAULT 14

struct paths_scratch {
  struct paths_record fixed;
  char value[STRING_MAX];
};
MAP(paths_scratch, PERCPU_ARRAY, u32, struct paths_scratch, 1)

/* Reads one string and sends it; 0 if user memory could not be read. */
INLINE int emit_string(u64 task, struct task_state *state, u32 string) {
  u32 zero = 0, cpu = this_cpu();
  u64 from = state->args[string & 7];
  u32 kind = string >> 3 & 3;
  if (!from) return 1;
  struct paths_scratch *scratch = map_lookup(MAP_paths_scratch, &zero);
  struct counters *counters = map_lookup(MAP_counters_paths, &cpu);
  if (!scratch || !counters) return 1;
  u32 length;
  u8 cut = 0;
  if (kind == STRING_PATH) {
    s64 got = read_user_string(scratch->value, STRING_MAX, from);
    if (got <= 0) return 0;
    length = got - 1;
    cut = length == STRING_MAX - 1;
  } else {
    u64 claimed = kind == STRING_DESCRIPTORS ? 2 * sizeof(s32) : state->args[string >> 5 & 7];
    if (kind == STRING_SOCKADDR_OUT) {
      u32 value = 0;
      if (!claimed) return 1;
      if (read_user(&value, sizeof(value), claimed) < 0) return 0;
      claimed = value;
    }
    length = claimed > SOCKADDR_MAX ? SOCKADDR_MAX : claimed;
    ONE_REGISTER(length);
    length &= 255;
    if (!length) return 1;
    if (read_user(scratch->value, length, from) < 0) return 0;
    cut = claimed > SOCKADDR_MAX;
  }
  struct paths_record *record = &scratch->fixed;
  record->cookie = CONFIG->cookie;
  record->ts = state->entered;
  record->seq = counters->attempted++;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->nr = state->nr;
  record->cpu = cpu;
  record->abi = state->abi;
  record->arg = string & 7;
  record->kind = kind == STRING_DESCRIPTORS ? 2 : kind != STRING_PATH;
  record->cut = cut;
  record->reserved0[0] = record->reserved0[1] = 0;
  ONE_REGISTER(length);
  length &= STRING_MAX - 1;
  record->value_len = length;
  void *ring = ring_of(MAP_rings_paths, cpu);
  if (!ring || ring_output(ring, scratch, sizeof(struct paths_record) + length, NO_WAKEUP) < 0) {
    counters->lost++;
    lose(TABLE_paths, CAUSE_RING_FULL, state->abi, state->nr, 0, now_ns());
  }
  return 1;
}

/* Whether the kernel fills it in. */
INLINE int given_back(u32 string) { return (string >> 3 & 3) == STRING_SOCKADDR_OUT || (string >> 3 & 3) == STRING_DESCRIPTORS; }

/* A page of a freshly started program may not be there yet; a program may not fault it in, the call itself will. */
INLINE void strings_at_enter(u64 task, struct task_state *state, u32 strings) {
#pragma unroll
  for (int i = 0; i < 3; i++) {
    u32 string = strings >> 8 * i & 255;
    if (string && !given_back(string) && !emit_string(task, state, string)) state->unread |= 1 << i;
  }
}

INLINE void strings_at_exit(u64 task, struct task_state *state, u32 strings, s64 ret) {
#pragma unroll
  for (int i = 0; i < 3; i++) {
    u32 string = strings >> 8 * i & 255;
    int out = given_back(string);
    if (!string || (out ? ret < 0 : !(state->unread & 1 << i) && !CONFIG->min_duration)) continue;
    /* A pointer that the call itself found bad is no loss. */
    if (emit_string(task, state, string) || ret == -EFAULT) continue;
    u32 cpu = this_cpu();
    struct counters *counters = map_lookup(MAP_counters_paths, &cpu);
    if (counters) counters->noted++;
    lose(TABLE_paths, CAUSE_UNREADABLE, state->abi, state->nr, 0, now_ns());
  }
}
