/* Memory of processes. All of these tracepoints lie in process context, and none of their programs can interrupt another. */

static u64 (*jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static void *(*lookup_of_cpu)(void *map, const void *key, u32 cpu) = (void *)195; /* map_lookup_percpu_elem, since Linux 5.19 */

#define MEMORY_SAMPLE 0
#define MEMORY_DIRECT 1
#define MEMORY_CGROUP 2
#define MEMORY_NODE 3
#define MEMORY_COMPACTION 4
#define MEMORY_OOM 5

#define RSS_FILE 0 /* include/linux/mm_types_task.h: MM_FILEPAGES and so on */
#define RSS_ANON 1
#define RSS_SWAP 2
#define RSS_SHMEM 3
#define RSS_KINDS 4
#define NEWS 128 /* pages by which a kind must have changed to be news at once */
#define NEWS_SHARE 6 /* or a 64th of what it was, if that is more */
#define CLONE_VM 0x100

/* Of the thread that owns an address space, and of each thread that had to wait. */
struct memory_state {
  u64 memory; /* address space that was sampled last */
  u64 sampled; /* in jiffies */
  s64 pages[RSS_KINDS];
  u64 begun; /* stall that is going on */
  u32 gfp;
  s8 order;
  u8 stall;
  u8 reserved[2];
};
MAP(memory_state, TASK_STORAGE, u32, struct memory_state, 0)

/* How far the parts of a CPU lie from the address that all CPUs have in common is the same for everything that is per CPU;
 * here it is learnt from a map. */
MAP(memory_compass, PERCPU_ARRAY, u32, u64, 1)

#ifdef OFFSET_mm_rss_stat__count
/* Before Linux 6.2: plain counters, to which each thread adds what it has gathered after 64 faults. */
INLINE s64 rss_hint(u64 memory, u32 kind) { return *(s64 *)(ADDRESS(memory, mm_struct, rss_stat) + OFFSET_mm_rss_stat__count + 8 * kind); }
INLINE void rss_of(u64 memory, s64 *pages) {
#pragma unroll
  for (int i = 0; i < RSS_KINDS; i++) pages[i] = rss_hint(memory, i);
}
#else
/* The verifier does not let pointers be compared or subtracted, but read as bytes. */
INLINE u64 as_number(void *pointer) {
  void *volatile slot = pointer;
  u64 number = 0;
  read_kernel(&number, sizeof(number), (u64)&slot);
  return number;
}

/* Counters of which each CPU holds a part, added to the whole when it reaches 32 pages or twice the number of CPUs. */
#define COUNTER(memory, kind) (ADDRESS(memory, mm_struct, rss_stat) + (kind) * (OFFSET_percpu_counter__counters + 8))
INLINE s64 rss_hint(u64 memory, u32 kind) { return *(s64 *)(COUNTER(memory, kind) + OFFSET_percpu_counter__count); }
INLINE void rss_of(u64 memory, s64 *pages) {
#pragma unroll
  for (int i = 0; i < RSS_KINDS; i++) pages[i] = rss_hint(memory, i);
  u64 parts[RSS_KINDS], common = 0, together = 1;
  u32 zero = 0;
#pragma unroll
  for (int i = 0; i < RSS_KINDS; i++) {
    parts[i] = *(u64 *)(COUNTER(memory, i) + OFFSET_percpu_counter__counters);
    together &= parts[i] == parts[0] + i * sizeof(s32); /* since Linux 6.6 */
  }
  read_kernel(&common, sizeof(common), as_number(MAP_memory_compass) + OFFSET_bpf_array__pptrs);
  for (u32 cpu = 0; cpu < CPUS; cpu++) {
    s32 part[RSS_KINDS] = {};
    void *here = lookup_of_cpu(MAP_memory_compass, &zero, cpu);
    if (!here || !common) break;
    u64 distance = as_number(here) - common;
    if (together) {
      read_kernel(part, sizeof(part), parts[0] + distance);
    } else {
#pragma unroll
      for (int i = 0; i < RSS_KINDS; i++) read_kernel(&part[i], sizeof(s32), parts[i] + distance);
    }
#pragma unroll
    for (int i = 0; i < RSS_KINDS; i++) pages[i] += part[i];
  }
}
#endif

INLINE s64 bytes_of(s64 pages) { return pages > 0 ? pages * PAGE_BYTES : 0; }
INLINE s64 larger(s64 one, s64 other) { return one > other ? one : other; }

INLINE void describe_memory(struct memory_record *record, u64 task, u64 memory, u8 kind) {
  s64 pages[RSS_KINDS] = {};
  __builtin_memset(record, 0, sizeof(*record));
  record->seq = -1;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->cpu = -1;
  record->kind = kind;
  if (!memory) return; /* a kernel thread, or the memory has been given back */
  rss_of(memory, pages);
  record->anon = bytes_of(pages[RSS_ANON]);
  record->file = bytes_of(pages[RSS_FILE]);
  record->shmem = bytes_of(pages[RSS_SHMEM]);
  record->swap = bytes_of(pages[RSS_SWAP]);
  s64 mapped = READ(u64, memory, mm_struct, total_vm);
  record->mapped = mapped * PAGE_BYTES;
  record->mapped_peak = larger(mapped, READ(u64, memory, mm_struct, hiwater_vm)) * PAGE_BYTES;
  record->peak = larger(record->anon + record->file + record->shmem, READ(u64, memory, mm_struct, hiwater_rss) * PAGE_BYTES);
}

/* Reserves a record about a task; what only one kind has is for the caller to fill in before publish(). */
INLINE struct memory_record *reserve_memory(struct counters **counters, u64 task, u64 memory, u8 kind, u64 time, u64 duration) {
  u32 cpu = this_cpu();
  struct counters *here = map_lookup(MAP_counters_memory, &cpu);
  if (!here) return 0;
  *counters = here;
  u64 seq = here->attempted++;
  struct memory_record *record = free_slot(MAP_ring_memory, here, cpu, CONFIG->slots[TABLE_memory]);
  if (!record) {
    here->lost++;
    lose(TABLE_memory, CAUSE_RING_FULL, 0, -1, duration, time + duration);
    return 0;
  }
  describe_memory(record, task, memory, kind);
  record->ts = time;
  record->dur = duration;
  record->seq = seq;
  record->actor = READ(u32, current_task(), task_struct, pid);
  record->cpu = cpu;
  return record;
}

INLINE void sample_memory(u64 task, u64 memory, u64 time) {
  struct counters *counters;
  if (reserve_memory(&counters, task, memory, MEMORY_SAMPLE, time, 0)) publish(counters);
}

INLINE u64 owner_of(u64 memory, u64 current) {
#ifdef OFFSET_mm_struct__owner
  return READ(u64, memory, mm_struct, owner);
#else
  return READ(u64, current, task_struct, mm) == memory ? current : 0;
#endif
}

INLINE int is_news(s64 now, s64 before) {
  s64 change = now > before ? now - before : before - now, least = before >> NEWS_SHARE;
  return change >= (least > NEWS ? least : NEWS);
}

/* Comes after each change of a counter: about once for each page that is touched, and once for each 2 MiB given back. A
 * sample is taken at the first change in a jiffy (1 to 10 ms), and of large changes at once, so that what is known of a
 * process that then sleeps for an hour is not far from the truth. */
PROBE(rss_stat) {
  u64 memory = ctx[0], current = current_task();
  if (READ(u64, current, task_struct, mm) == memory && !is_recorded(current)) return 0;
  u64 owner = owner_of(memory, current);
  /* A new address space that is being filled by fork or exec belongs to nobody yet, one that is torn down no longer. */
  if (!owner || READ(u64, owner, task_struct, mm) != memory) return 0;
  if (READ(u64, current, task_struct, mm) != memory && !is_recorded(owner)) return 0;
  struct memory_state *state = task_storage(MAP_memory_state, owner, 0, CREATE);
  u64 jiffies = jiffies64();
  if (!state) {
    u32 cpu = this_cpu();
    struct counters *counters = map_lookup(MAP_counters_memory, &cpu);
    if (counters) counters->noted++;
    lose(TABLE_memory, CAUSE_NO_STORAGE, 0, -1, 0, now_ns());
    return 0;
  }
  if (state->memory == memory && state->sampled == jiffies) {
    int news = 0;
#pragma unroll
    for (int i = 0; i < RSS_KINDS; i++) news |= is_news(rss_hint(memory, i), state->pages[i]);
    if (!news) return 0;
  }
  state->memory = memory;
  state->sampled = jiffies;
#pragma unroll
  for (int i = 0; i < RSS_KINDS; i++) state->pages[i] = rss_hint(memory, i);
  sample_memory(owner, memory, now_ns());
  return 0;
}

/* What a new process has of its parent's. */
PROBE(task_newtask) {
  u64 child = ctx[0], memory = READ(u64, child, task_struct, mm);
  if (ctx[1] & CLONE_VM || !memory || !is_recorded(current_task())) return 0;
  sample_memory(child, memory, now_ns());
  return 0;
}

/* Since Linux 6.16 the memory is still there, and the tracepoint says whether this was the last thread. */
PROBE(sched_process_exit) {
#if ARGS_sched_process_exit > 1
  u64 task = ctx[0], memory = READ(u64, task, task_struct, mm);
  if (!(u8)ctx[1] || !memory || !is_recorded(task)) return 0;
  sample_memory(task, memory, now_ns());
#endif
  return 0;
}

INLINE int begin_stall(u8 kind, s32 order, u32 gfp) {
  u64 task = current_task();
  if (!is_recorded(task)) return 0;
  struct memory_state *state = task_storage(MAP_memory_state, task, 0, CREATE);
  if (!state) {
    u32 cpu = this_cpu();
    struct counters *counters = map_lookup(MAP_counters_memory, &cpu);
    if (counters) counters->noted++;
    lose(TABLE_memory, CAUSE_NO_STORAGE, 0, -1, 0, now_ns());
    return 0;
  }
  state->stall = kind;
  state->order = order;
  state->gfp = gfp;
  state->begun = now_ns();
  return 0;
}

INLINE int end_stall(u8 kind, u64 reclaimed, s32 result) {
  u64 task = current_task();
  struct memory_state *state = task_storage(MAP_memory_state, task, 0, 0);
  struct counters *counters;
  if (!state || state->stall != kind) return 0; /* not recorded, or it began before the probes were attached */
  state->stall = 0;
  u64 begun = state->begun;
  struct memory_record *record =
      reserve_memory(&counters, task, READ(u64, task, task_struct, mm), kind, begun, now_ns() - begun);
  if (!record) return 0;
  record->reclaimed = reclaimed * PAGE_BYTES;
  record->gfp = state->gfp;
  record->order = state->order;
  record->result = result;
  publish(counters);
  return 0;
}

PROBE(mm_vmscan_direct_reclaim_begin) { return begin_stall(MEMORY_DIRECT, ctx[0], ctx[1]); }
PROBE(mm_vmscan_direct_reclaim_end) { return end_stall(MEMORY_DIRECT, ctx[0], 0); }
PROBE(mm_vmscan_memcg_reclaim_begin) { return begin_stall(MEMORY_CGROUP, ctx[0], ctx[1]); }
PROBE(mm_vmscan_memcg_reclaim_end) { return end_stall(MEMORY_CGROUP, ctx[0], 0); }
PROBE(mm_vmscan_node_reclaim_begin) { return begin_stall(MEMORY_NODE, ctx[1], ctx[2]); }
PROBE(mm_vmscan_node_reclaim_end) { return end_stall(MEMORY_NODE, ctx[0], 0); }

/* Of each zone. On newer kernels the first argument is struct compact_control, on older ones a page number. */
PROBE(mm_compaction_begin) {
#if defined(OFFSET_compact_control__order) && ARGS_mm_compaction_begin == 4
  u64 control = ctx[0];
  return begin_stall(MEMORY_COMPACTION, READ(s32, control, compact_control, order), READ(u32, control, compact_control, gfp_mask));
#else
  return begin_stall(MEMORY_COMPACTION, 0, 0);
#endif
}

PROBE(mm_compaction_end) {
#if ARGS_mm_compaction_end > 0
  return end_stall(MEMORY_COMPACTION, 0, ctx[ARGS_mm_compaction_end - 1]);
#else
  return 0;
#endif
}

PROBE(mark_victim) {
  struct counters *counters;
#if ARGS_mark_victim > 1
  u64 victim = ctx[0];
  if (!is_recorded(victim)) return 0;
  if (reserve_memory(&counters, victim, READ(u64, victim, task_struct, mm), MEMORY_OOM, now_ns(), 0)) publish(counters);
#else
  /* Older kernels tell the number alone: whether the victim was recorded is known from the table processes. */
  struct memory_record *record = reserve_memory(&counters, current_task(), 0, MEMORY_OOM, now_ns(), 0);
  if (!record) return 0;
  record->pid = record->tid = ctx[0];
  publish(counters);
#endif
  return 0;
}

/* Of each process one sample: of its first thread, or of that which owns its memory where the first one has ended. */
INLINE int stands_for_process(u64 task, u64 memory) {
  u64 leader = READ(u64, task, task_struct, group_leader);
  return READ(u64, leader, task_struct, mm) ? leader == task : owner_of(memory, task) == task;
}

INLINE int write_memory(u64 *ctx, int at_end) {
  u64 task = ctx[1];
  if (!task || !is_recorded(task)) return 0;
  u64 memory = READ(u64, task, task_struct, mm), seq = *(u64 *)(*(u64 *)ctx);
  struct memory_record record;
  if (memory && stands_for_process(task, memory)) {
    describe_memory(&record, task, memory, MEMORY_SAMPLE);
    record.ts = now_ns();
    seq_write(seq, &record, sizeof(record));
  }
  struct memory_state *state = task_storage(MAP_memory_state, task, 0, 0);
  if (!at_end || !state || !state->stall) return 0;
  describe_memory(&record, task, memory, state->stall);
  record.ts = state->begun;
  record.dur = now_ns() - state->begun;
  record.actor = record.tid;
  record.gfp = state->gfp;
  record.order = state->order;
  record.unfinished = 1;
  seq_write(seq, &record, sizeof(record));
  return 0;
}

ITERATOR(memory_attach) { return write_memory(ctx, 0); }
ITERATOR(memory_detach) { return write_memory(ctx, 1); }
