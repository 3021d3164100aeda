/* What every probe builds on. Assembled by recorder/program.py, which puts before it: the record structs made from the
 * table declarations, OFFSET_struct__member for every member that is read, MAP_name for every map that is declared.
 *
 * PROBE(tracepoint)      a typed raw tracepoint program; ctx[i] is the tracepoint's argument i
 * ITERATOR(name)         a task iterator program; ctx[0] is its meta data, ctx[1] the task, 0 after the last one
 * FILE_ITERATOR(name)    the same for each open file of each process: ctx[2] the descriptor, ctx[3] the file
 * TRACEPOINT(name)       a classic tracepoint program, loaded once for each event (recorder/events.py); ctx is the event's record
 * PER_CPU_name           where a per-CPU variable of the kernel lies in a CPU's area, if the kernel's types tell
 * SAMPLER(name)          a perf event program; ctx is its context, the current task the one that was found
 * MAP(name, KIND, key, value, entries)   a map; recorder/program.py learns the sizes from the code of map_key__*, map_value__*
 * READ(type, pointer, struct, member)    a direct read that the verifier checks against the kernel's own types
 * ARGS_tracepoint        how many arguments the tracepoint has on this kernel: newer ones have more
 * READ_BIT(pointer, struct, member)      the same for a bit field of one bit
 */
#define PROBE(tracepoint) PROBE_(PROBE_FILE, tracepoint) /* PROBE_FILE is the name of the file that follows */
#define PROBE_(file, tracepoint) PROBE__(file, tracepoint)
#define PROBE__(file, tracepoint) int file##__##tracepoint(u64 *ctx)
#define ITERATOR(name) int iterator__##name(u64 *ctx)
#define FILE_ITERATOR(name) ITERATOR(name)
#define TRACEPOINT(name) int template__##name(u64 *ctx) /* BCC loads what is called tracepoint__ */
#define SAMPLER(name) int sampler__##name(u64 *ctx)
#define MAP(name, kind, key, value, entries)                     \
  int map_key__##name(u64 *ctx) { return sizeof(key); }          \
  int map_value__##name(u64 *ctx) { return sizeof(value); }
#define READ(type, pointer, structure, member) (*(type *)((u64)(pointer) + OFFSET_##structure##__##member))
#define READ_BIT(pointer, structure, member) (READ(u8, pointer, structure, member) >> BIT_##structure##__##member & 1)
#define ADDRESS(pointer, structure, member) ((u64)(pointer) + OFFSET_##structure##__##member)
#define INLINE static __attribute__((always_inline)) inline
/* Keeps the compiler from reading a bounded value again, or from bounding a copy: the verifier follows one register. */
#define ONE_REGISTER(value) asm volatile("" : "+r"(value))

/* The helpers under names of our own: BCC rewrites calls of its own names into map operations of its own. */
static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)BPF_FUNC_map_update_elem;
static u64 (*now_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static u32 (*this_cpu)(void) = (void *)BPF_FUNC_get_smp_processor_id;
static u64 (*current_task)(void) = (void *)BPF_FUNC_get_current_task_btf;
static void *(*task_storage)(void *map, u64 task, void *value, u64 flags) = (void *)BPF_FUNC_task_storage_get;
static void *(*ring_reserve)(void *ring, u64 size, u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*ring_submit)(void *record, u64 flags) = (void *)BPF_FUNC_ringbuf_submit;
static long (*ring_output)(void *ring, void *record, u64 size, u64 flags) = (void *)BPF_FUNC_ringbuf_output;
static long (*read_user)(void *to, u32 size, u64 from) = (void *)BPF_FUNC_probe_read_user;
static long (*read_user_string)(void *to, u32 size, u64 from) = (void *)BPF_FUNC_probe_read_user_str;
static long (*read_kernel)(void *to, u32 size, u64 from) = (void *)BPF_FUNC_probe_read_kernel;
static long (*read_kernel_string)(void *to, u32 size, u64 from) = (void *)BPF_FUNC_probe_read_kernel_str;
static u64 (*ancestor_cgroup)(int level) = (void *)BPF_FUNC_get_current_ancestor_cgroup_id;
static u64 (*task_registers)(u64 task) = (void *)BPF_FUNC_task_pt_regs;
static long (*seq_write)(u64 seq, const void *data, u32 length) = (void *)BPF_FUNC_seq_write;

/* A wake-up costs an inter-processor interrupt, more than the event; the drain looks at a timer instead. */
#define NO_WAKEUP 1
#define CREATE 1 /* BPF_LOCAL_STORAGE_GET_F_CREATE */
#define NOEXIST 1 /* BPF_NOEXIST */

#define SELECT_MARKED 0
#define SELECT_ALL 1
#define SELECT_COMM 2
#define SELECT_UID 3
#define SELECT_CGROUP 4
#define CHOICES 8

/* What the user asked for. The map is frozen before any program is loaded, so the verifier takes every field for a
 * constant and removes the branches that are not needed: one bytecode serves all options at no cost. */
struct config {
  u64 cookie;
  u64 min_duration;
  u64 cgroup;
  u32 cgroup_level;
  u32 select;
  u32 self;
  u32 viewer; /* process of `record --live` that shows the recording; the recorder itself where there is none */
  u32 shards;
  u32 only_listed_calls;
  u32 choices;
  u32 slots[TABLE_COUNT];
  u64 uids[CHOICES];
  u64 comms[CHOICES][2];
  u64 offcpu_min;
};
#define CONFIG ((const volatile struct config *)bpf_pseudo_fd(PSEUDO_MAP_VALUE, MAP_NUMBER_config))
#define PSEUDO_MAP_VALUE 2

/* Of each CPU and table. User space maps it and sees the totals without a call. */
struct counters {
  u64 attempted;
  u64 lost;
  u64 filtered;
  u64 noted; /* entries of the ledger that are no lost record of this table */
  u64 head; /* slots filled, for tables of constant stride; written here */
  u64 tail; /* slots given back; written by user space */
  u64 reserved[2];
};

struct status {
  s64 live; /* recorded threads that have not ended (command and --pid) */
  u64 stopped; /* the errno for which the recorder gave up; written by user space, read by `recover` */
  s64 leaving; /* recorded threads that have ended and not yet left their CPU; only the table sched counts them */
};

#define UNTRACED 0
#define TRACED 1
#define ARMED 2 /* the launcher of the command: traced from its execve on */

/* Of each thread. */
struct task_state {
  u64 entered;
  u64 args[8]; /* six are used; a power of two lets an index be bounded by a mask */
  s32 nr;
  u8 abi;
  u8 pending;    /* a call is going on */
  u8 traced;
  u8 child;      /* made by a recorded clone, which it has not yet returned from */
  u8 at_attach;  /* not seen to enter a call since the probes were attached; entered holds the time of
                     attachment, args[0] the user CPU time at it */
  u8 unread;     /* strings of the pending call that could not be read at its entry, a bit each */
  u8 unselected; /* entered a call while it was not selected */
  u8 reserved;
  u32 strings;   /* which arguments of the pending call are strings (CALL_STRINGS) */
  u64 since;     /* from when on the thread is recorded; 0: since it was made, or was first seen to be selected */
};

#define CAUSE_RING_FULL 0
#define CAUSE_NO_STORAGE 1
#define CAUSE_UNREADABLE 2
/* 3: the kernel skipped the probe, because another instance of it was running on the CPU; told by the kernel's own counter. */

struct loss_key {
  s32 nr;
  u8 table;
  u8 cause;
  u8 abi;
  u8 bucket;
};

struct loss {
  u64 count;
  u64 sum;
  u64 first;
  u64 last;
};

MAP(config, ARRAY, u32, struct config, 1)
MAP(status, ARRAY, u32, struct status, 1)
MAP(state, TASK_STORAGE, u32, struct task_state, 0)
MAP(losses, PERCPU_HASH, struct loss_key, struct loss, 4096)

INLINE u8 log2_bucket(u64 value) {
  u8 bucket = 0;
  if (value >> 32) { value >>= 32; bucket += 32; }
  if (value >> 16) { value >>= 16; bucket += 16; }
  if (value >> 8) { value >>= 8; bucket += 8; }
  if (value >> 4) { value >>= 4; bucket += 4; }
  if (value >> 2) { value >>= 2; bucket += 2; }
  if (value >> 1) bucket += 1;
  return bucket;
}

INLINE void lose(u8 table, u8 cause, u8 abi, s32 nr, u64 duration, u64 time) {
  struct loss_key key = {.nr = nr, .table = table, .cause = cause, .abi = abi, .bucket = log2_bucket(duration)};
  struct loss *loss = map_lookup(MAP_losses, &key);
  if (!loss) {
    struct loss first = {.count = 1, .sum = duration, .first = time, .last = time};
    if (map_update(MAP_losses, &key, &first, NOEXIST) == 0) return;
    loss = map_lookup(MAP_losses, &key); /* another CPU has just made it */
    if (!loss) return; /* the ledger is full: counters.lost still counts it */
  }
  if (!loss->count) loss->first = time;
  __sync_fetch_and_add(&loss->count, 1); /* an interrupt may lose a record of the same kind in between */
  __sync_fetch_and_add(&loss->sum, duration);
  loss->last = time;
}

/* Records of one size lie in an array that user space maps, one stretch of it for each CPU: reserving and submitting in
 * a BPF ring buffer costs 41 ns more per event, a fifth of everything (its lock saves nothing where only one CPU writes
 * and programs are not preempted). A slot is published by head, after its content. */
INLINE void *free_slot(void *ring, struct counters *counters, u32 cpu, u32 slots) {
  u64 head = counters->head;
  if (head - *(volatile u64 *)&counters->tail >= slots) return 0;
  u32 index = cpu * slots + ((u32)head & (slots - 1));
  return map_lookup(ring, &index);
}

INLINE void publish(struct counters *counters) {
  asm volatile("" ::: "memory");
  *(volatile u64 *)&counters->head = counters->head + 1;
}

/* Records of varying size lie in BPF ring buffers; on machines with many CPUs some share one. */
INLINE void *ring_of(void *rings, u32 cpu) {
  u32 index = cpu;
  if (CONFIG->shards) index %= CONFIG->shards;
  return map_lookup(rings, &index);
}

/* The recorder, and its viewer: to record what shows the recording would make more of it to show. */
INLINE int is_own(u32 process) { return process == CONFIG->self || process == CONFIG->viewer; }

/* One comparison per event, against values that the verifier has made constants. */
INLINE int matches(u64 task) {
  if (CONFIG->select == SELECT_ALL) return 1;
  if (CONFIG->select == SELECT_COMM) {
    u64 low = *(u64 *)ADDRESS(task, task_struct, comm), high = *(u64 *)(ADDRESS(task, task_struct, comm) + 8);
#pragma unroll
    for (int i = 0; i < CHOICES; i++)
      if (i < CONFIG->choices && low == CONFIG->comms[i][0] && high == CONFIG->comms[i][1]) return 1;
    return 0;
  }
  if (CONFIG->select == SELECT_UID) {
    u64 cred = READ(u64, task, task_struct, cred);
    u32 uid = READ(u32, cred, cred, euid);
#pragma unroll
    for (int i = 0; i < CHOICES; i++)
      if (i < CONFIG->choices && uid == CONFIG->uids[i]) return 1;
    return 0;
  }
  if (CONFIG->select == SELECT_CGROUP) return ancestor_cgroup(CONFIG->cgroup_level) == CONFIG->cgroup;
  return 0;
}

/* The same for a thread that is not the current one. Of such the cgroup cannot be told cheaply on every kernel. */
INLINE int selects(u64 task) {
  return !is_own(READ(u32, task, task_struct, tgid)) && CONFIG->select != SELECT_CGROUP && matches(task);
}

/* For any task: its ancestor at the level of the cgroup that was asked for. */
INLINE int in_cgroup(u64 task) {
#ifdef OFFSET_cgroup__ancestors
  u64 css_set = READ(u64, task, task_struct, cgroups), ancestor = 0, id = 0;
  u64 cgroup = READ(u64, css_set, css_set, dfl_cgrp), node = 0;
  if (READ(u32, cgroup, cgroup, level) < CONFIG->cgroup_level) return 0;
  read_kernel(&ancestor, sizeof(ancestor), ADDRESS(cgroup, cgroup, ancestors) + 8 * CONFIG->cgroup_level);
  read_kernel(&node, sizeof(node), ADDRESS(ancestor, cgroup, kn));
  read_kernel(&id, sizeof(id), ADDRESS(node, kernfs_node, id));
  return id == CONFIG->cgroup;
#else
  return 0; /* before Linux 6.1 */
#endif
}

/* Whether a task is recorded, current or not; 0 for idle tasks, which have no storage. */
INLINE int is_recorded(u64 task) {
  if (CONFIG->select == SELECT_MARKED) {
    struct task_state *state = task_storage(MAP_state, task, 0, 0);
    return state && state->traced == TRACED;
  }
  u32 process = READ(u32, task, task_struct, tgid);
  if (is_own(process) || process == 0) return 0;
  return CONFIG->select == SELECT_CGROUP ? in_cgroup(task) : matches(task);
}

/* The state of the current task if it is to be recorded, else 0. */
INLINE struct task_state *recorded(u64 task) {
  if (CONFIG->select == SELECT_MARKED) {
    struct task_state *state = task_storage(MAP_state, task, 0, 0);
    return state && state->traced == TRACED ? state : 0;
  }
  if (is_own(READ(u32, task, task_struct, tgid)) || !matches(task)) return 0;
  return task_storage(MAP_state, task, 0, CREATE);
}
