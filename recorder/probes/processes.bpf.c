/* Life cycle of processes and threads. */

#define PROCESS_EXISTING 0
#define PROCESS_FORK 1
#define PROCESS_EXEC 2
#define PROCESS_EXIT 3
#define PROCESS_RENAME 4

INLINE void describe(struct processes_record *record, u64 task, u8 kind) {
  u64 cred = READ(u64, task, task_struct, cred);
  u64 css_set = READ(u64, task, task_struct, cgroups);
  u64 cgroup = READ(u64, css_set, css_set, dfl_cgrp);
  u64 node = READ(u64, cgroup, cgroup, kn);
  u64 parent = READ(u64, task, task_struct, real_parent);
  record->cookie = CONFIG->cookie;
  record->ts = now_ns();
  record->start = READ(u64, task, task_struct, start_time);
  record->uid = READ(u32, cred, cred, euid);
  record->gid = READ(u32, cred, cred, egid);
  record->cgroup = READ(u64, node, kernfs_node, id);
  record->clone_flags = 0;
  record->utime = record->stime = record->maxrss = record->min_flt = record->maj_flt = record->nvcsw = record->nivcsw = 0;
  record->seq = -1;
  *(u64 *)&record->comm[0] = *(u64 *)ADDRESS(task, task_struct, comm);
  *(u64 *)&record->comm[8] = *(u64 *)(ADDRESS(task, task_struct, comm) + 8);
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->ppid = READ(u32, parent, task_struct, tgid);
  record->creator = 0;
  record->exit_code = record->exit_signal = 0;
  record->cpu = this_cpu();
  record->kind = kind;
  record->group_dead = record->cut = 0;
  record->reserved0[0] = record->reserved0[1] = record->reserved0[2] = 0;
  record->file_len = record->argv_len = 0;
}

INLINE struct counters *processes_counters(u32 cpu) { return map_lookup(MAP_counters_processes, &cpu); }

INLINE void lose_process(struct counters *counters) {
  counters->lost++;
  lose(TABLE_processes, CAUSE_RING_FULL, 0, -1, 0, now_ns());
}

/* Reserves a record of the table's fixed part; 0 if it was lost. */
INLINE struct processes_record *reserve_process(u64 *seq) {
  u32 cpu = this_cpu();
  struct counters *counters = processes_counters(cpu);
  if (!counters) return 0;
  *seq = counters->attempted++;
  void *ring = ring_of(MAP_rings_processes, cpu);
  struct processes_record *record = ring ? ring_reserve(ring, sizeof(*record), 0) : 0;
  if (!record) lose_process(counters);
  return record;
}

PROBE(task_newtask) {
  u64 child = ctx[0], creator = current_task(), seq;
  if (!recorded(creator)) return 0;
  struct processes_record *record = reserve_process(&seq);
  if (!record) return 0;
  describe(record, child, PROCESS_FORK);
  record->seq = seq;
  record->clone_flags = ctx[1];
  record->creator = READ(u32, creator, task_struct, pid);
  ring_submit(record, NO_WAKEUP);
  return 0;
}

PROBE(task_rename) {
  u64 task = ctx[0], seq;
  /* An exec renames as well; its own row tells the name. */
  if (task != current_task() || READ_BIT(task, task_struct, in_execve) || !recorded(task)) return 0;
  struct processes_record *record = reserve_process(&seq);
  if (!record) return 0;
  describe(record, task, PROCESS_RENAME);
  record->seq = seq;
  /* The tracepoint comes before the change and its argument is the new name. */
  read_kernel_string(record->comm, sizeof(record->comm), ctx[1]);
  ring_submit(record, NO_WAKEUP);
  return 0;
}

PROBE(sched_process_exit) {
  u64 task = ctx[0], seq;
  if (!recorded(task)) return 0;
  struct processes_record *record = reserve_process(&seq);
  if (!record) return 0;
  describe(record, task, PROCESS_EXIT);
  u64 signals = READ(u64, task, task_struct, signal);
  record->seq = seq;
  record->utime = READ(u64, task, task_struct, utime);
  record->stime = READ(u64, task, task_struct, stime);
  record->maxrss = READ(u64, signals, signal_struct, maxrss) * PAGE_BYTES;
  record->min_flt = READ(u64, task, task_struct, min_flt);
  record->maj_flt = READ(u64, task, task_struct, maj_flt);
  record->nvcsw = READ(u64, task, task_struct, nvcsw);
  record->nivcsw = READ(u64, task, task_struct, nivcsw);
  u32 code = READ(u32, task, task_struct, exit_code);
  record->exit_code = code >> 8 & 0xff;
  record->exit_signal = code & 0x7f;
#if ARGS_sched_process_exit > 1
  record->group_dead = (u8)ctx[1];
#else
  /* Linux before 6.16 does not say; the count of live threads has been lowered by then. */
  record->group_dead = READ(u32, signals, signal_struct, live) == 0;
#endif
  ring_submit(record, NO_WAKEUP);
  return 0;
}

#define FILE_MAX 4096
struct exec_scratch {
  char file[FILE_MAX];
};
MAP(exec_scratch, PERCPU_ARRAY, u32, struct exec_scratch, 1)

/* A record of constant size for each class of argument length: a reservation cannot be of a size known only at run time.
 * Arguments up to 128 KiB go the direct way; the largest class takes what the kernel accepts by default (2 MiB). */
#define EXEC_CLASS(file_room, argv_room)                                                                            \
  if (!record && file_len < (file_room) && argv_len <= (argv_room)) {                                               \
    struct {                                                                                                        \
      struct processes_record fixed;                                                                                \
      char tail[(file_room) + (argv_room)];                                                                         \
    } *slot = ring_reserve(ring, sizeof(*slot), 0);                                                                 \
    if (slot) {                                                                                                     \
      record = &slot->fixed;                                                                                        \
      describe(record, task, PROCESS_EXEC);                                                                         \
      u32 file_part = file_len;                                                                                     \
      ONE_REGISTER(file_part);                                                                                      \
      file_part &= (file_room) - 1;                                                                                 \
      read_kernel(slot->tail, file_part, (u64)scratch->file);                                                       \
      u32 argv_part = argv_len;                                                                                     \
      ONE_REGISTER(argv_part);                                                                                      \
      if (argv_part > (argv_room)) argv_part = (argv_room);                                                         \
      record->file_len = file_part;                                                                                 \
      record->argv_len = argv_part;                                                                                 \
      if (read_user(slot->tail + file_part, argv_part, argv_at) < 0) {                                              \
        record->argv_len = 0;                                                                                       \
        cut = 1;                                                                                                    \
      }                                                                                                             \
    }                                                                                                               \
  }

PROBE(sched_process_exec) {
  u64 task = ctx[0], binary = ctx[2];
  u32 zero = 0, cpu = this_cpu();
  if (!recorded(task)) return 0;
  struct counters *counters = processes_counters(cpu);
  struct exec_scratch *scratch = map_lookup(MAP_exec_scratch, &zero);
  if (!counters || !scratch) return 0;
  u64 seq = counters->attempted++;
  void *ring = ring_of(MAP_rings_processes, cpu);
  if (!ring) return 0;
  s64 got = read_kernel_string(scratch->file, FILE_MAX, READ(u64, binary, linux_binprm, filename));
  u32 file_len = got > 0 ? got - 1 : 0;
  u64 memory = READ(u64, task, task_struct, mm), argv_at = 0, argv_len = 0;
  if (memory) {
    argv_at = READ(u64, memory, mm_struct, arg_start);
    argv_len = READ(u64, memory, mm_struct, arg_end) - argv_at;
  }
  u8 cut = argv_len > (2 << 20);
  if (cut) argv_len = 2 << 20;
  struct processes_record *record = 0;
  EXEC_CLASS(256, 1024)
  EXEC_CLASS(4096, 16384)
  EXEC_CLASS(4096, 256 << 10)
  EXEC_CLASS(4096, 2 << 20)
  if (!record) {
    /* The ring has no room for the whole: the beginning is better than nothing, and the row says that it was cut. */
    cut = argv_len > 1024;
    if (cut) argv_len = 1024;
    EXEC_CLASS(4096, 1024)
  }
  if (!record) {
    lose_process(counters);
    return 0;
  }
  record->seq = seq;
  record->cut = cut;
  record->creator = (u32)ctx[1];
  ring_submit(record, NO_WAKEUP);
  return 0;
}
