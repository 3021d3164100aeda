/* String arguments, read where the calls are: the functions are used by the programs of syscalls.bpf.c. */

#define STRING_STRUCTURE 0 /* which stands in the bits of the length */
#define STRING_PATH 1
#define STRING_SOCKADDR_IN 2
#define STRING_SOCKADDR_OUT 3
#define STRING_MAX 8192 /* twice PATH_MAX: what the kernel refuses as too long is still seen */
#define SOCKADDR_MAX 128
#define EFAULT 14

#define STRUCTURE_DESCRIPTORS 1
#define STRUCTURE_MESSAGE_IN 2
#define STRUCTURE_MESSAGE_OUT 3
#define STRUCTURE_MESSAGES_IN 4
#define STRUCTURE_MESSAGES_OUT 5
#define VALUE_DESCRIPTORS 2
#define VALUE_ADDRESSES 3

#define MESSAGES 64
#define MESSAGE_SLOT 32 /* of each message the length of its address, and what an IPv6 address has of bytes */
#define ABI_I386 2
#define ABI_ARM 5

struct paths_scratch {
  struct paths_record fixed;
  char value[STRING_MAX];
};
MAP(paths_scratch, PERCPU_ARRAY, u32, struct paths_scratch, 1)

struct message_name {
  u64 name;
  u32 length;
  u32 reserved;
};

/* The first two members of a struct msghdr: they are narrower in 32-bit programs. */
INLINE int read_message(struct message_name *message, u64 from, u8 abi) {
  if (abi == ABI_I386 || abi == ABI_ARM) {
    u32 narrow[2] = {};
    if (read_user(narrow, sizeof(narrow), from) < 0) return 0;
    message->name = narrow[0];
    message->length = narrow[1];
    return 1;
  }
  return read_user(message, sizeof(*message), from) == 0;
}

INLINE void send_string(u64 task, struct task_state *state, struct paths_scratch *scratch, struct counters *counters, u32 cpu, u8 arg, u8 kind,
                        u8 cut, u32 length) {
  struct paths_record *record = &scratch->fixed;
  record->cookie = CONFIG->cookie;
  record->ts = state->entered;
  record->seq = counters->attempted++;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->nr = state->nr;
  record->cpu = cpu;
  record->abi = state->abi;
  record->arg = arg;
  record->kind = kind;
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
}

/* Reads the addresses of many messages and sends them as one string, if there is any; 0 if user memory could not be read. */
INLINE int emit_messages(u64 task, struct task_state *state, u32 string, u64 count) {
  u32 zero = 0, cpu = this_cpu(), at = 0;
  u64 from = state->args[string & 7], narrow = -(u64)(state->abi == ABI_I386 || state->abi == ABI_ARM), stride = 64 - (narrow & 32);
  struct paths_scratch *scratch = map_lookup(MAP_paths_scratch, &zero);
  struct counters *counters = map_lookup(MAP_counters_paths, &cpu);
  if (!from || !scratch || !counters) return 1;
  /* Without branches, each of which would double what the verifier has to follow. */
  u64 any = 0, longer = (s64)(MESSAGES - count) >> 63;
  ONE_REGISTER(narrow);
  ONE_REGISTER(stride);
#pragma clang loop unroll(disable)
  for (at = 0; at < MESSAGES; at++) {
    ONE_REGISTER(at);
    if (at >= count) break;
    u32 head[4];
    if (read_user(head, sizeof(head), from) < 0) return 0;
    from += stride;
    u64 name = head[0] | (u64)head[1] << 32 & ~narrow, length = (head[1] & narrow) | (head[2] & ~narrow);
    length &= (s64)(name | -name) >> 63;
    any |= length;
    *(u32 *)&scratch->value[at * MESSAGE_SLOT] = length;
    u64 beyond = (s64)(MESSAGE_SLOT - 4 - length) >> 63;
    longer |= beyond;
    length = (length & ~beyond) | (beyond & (MESSAGE_SLOT - 4));
    ONE_REGISTER(length);
    length &= MESSAGE_SLOT - 1;
    if (read_user(&scratch->value[at * MESSAGE_SLOT + 4], length, name) < 0) return 0;
  }
  /* By way of memory: else the verifier follows what comes next once for every number of messages. */
  *(volatile u32 *)&scratch->fixed.value_len = at * MESSAGE_SLOT;
  u32 size = *(volatile u32 *)&scratch->fixed.value_len;
  if (any) send_string(task, state, scratch, counters, cpu, string & 7, VALUE_ADDRESSES, longer & 1, size);
  return 1;
}

/* Reads one string and sends it; 0 if user memory could not be read. */
INLINE int emit_string(u64 task, struct task_state *state, u32 string) {
  u32 zero = 0, cpu = this_cpu();
  u64 from = state->args[string & 7];
  u32 kind = string >> 3 & 3, structure = string >> 5 & 7;
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
    u64 claimed = kind == STRING_STRUCTURE ? 2 * sizeof(s32) : state->args[structure];
    if (kind == STRING_STRUCTURE && structure != STRUCTURE_DESCRIPTORS) {
      struct message_name message = {};
      if (!read_message(&message, from, state->abi)) return 0;
      from = message.name;
      claimed = message.length;
      if (!from) return 1;
    } else if (kind == STRING_SOCKADDR_OUT) {
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
  u8 pair = kind == STRING_STRUCTURE && structure == STRUCTURE_DESCRIPTORS;
  send_string(task, state, scratch, counters, cpu, string & 7, pair ? VALUE_DESCRIPTORS : kind != STRING_PATH, cut, length);
  return 1;
}

INLINE u32 structure_of(u32 string) { return string >> 3 & 3 ? 0 : string >> 5 & 7; }

/* Whether the kernel fills it in. */
INLINE int given_back(u32 string) {
  u32 structure = structure_of(string);
  return (string >> 3 & 3) == STRING_SOCKADDR_OUT || (structure && structure != STRUCTURE_MESSAGE_IN && structure != STRUCTURE_MESSAGES_IN);
}

INLINE int many(u32 string) { return structure_of(string & 255) >= STRUCTURE_MESSAGES_IN; }

/* A page of a freshly started program may not be there yet; a program may not fault it in, the call itself will. */
INLINE void strings_at_enter(u64 task, struct task_state *state, u32 strings) {
  if (many(strings)) { /* the only string of such a call */
    if (!given_back(strings & 255) && !emit_messages(task, state, strings, (u32)state->args[2])) state->unread = 1;
    return;
  }
#pragma unroll
  for (int i = 0; i < 3; i++) {
    u32 string = strings >> 8 * i & 255;
    if (string && !given_back(string) && !emit_string(task, state, string)) state->unread |= 1 << i;
  }
}

INLINE void lose_unreadable(struct task_state *state) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_paths, &cpu);
  if (counters) counters->noted++;
  lose(TABLE_paths, CAUSE_UNREADABLE, state->abi, state->nr, 0, now_ns());
}

/* Whether a string is due at the exit: what the kernel has filled in, and what could not be read before. */
INLINE int due_at_exit(struct task_state *state, u32 string, int number, s64 ret) {
  return given_back(string) ? ret >= 0 : state->unread & 1 << number || CONFIG->min_duration;
}

INLINE void strings_at_exit(u64 task, struct task_state *state, u32 strings, s64 ret) {
  if (many(strings)) {
    if (!due_at_exit(state, strings & 255, 0, ret)) return;
    if (!emit_messages(task, state, strings, given_back(strings & 255) ? ret : (u32)state->args[2]) && ret != -EFAULT) lose_unreadable(state);
    return;
  }
#pragma unroll
  for (int i = 0; i < 3; i++) {
    u32 string = strings >> 8 * i & 255;
    if (!string || !due_at_exit(state, string, i, ret)) continue;
    /* A pointer that the call itself found bad is no loss. */
    if (!emit_string(task, state, string) && ret != -EFAULT) lose_unreadable(state);
  }
}
