/* Any tracepoint. One program text; it is loaded once for each event, with a map of its own that holds the event's layout. That map
 * is frozen, so to the verifier all of it is constant: what an event does not have is no code. */

#define EVENT_WORDS 8
#define EVENT_STRINGS 8
#define EVENT_MAX 8184 /* PERF_MAX_TRACE_SIZE less the common fields */
#define EVENT_RELATIVE 0x10000
#define EVENT_USER 0x10000
#define EVENT_KERNEL_STRING 64
#define EVENT_USER_STRING 254
#define EVENT_UNREADABLE 255

struct events_layout {
  u32 event;
  u32 fixed;                  /* bytes of the fixed fields, behind the common ones */
  u32 words;                  /* dynamic arrays */
  u32 strings;                /* pointers to strings */
  u32 word[EVENT_WORDS];      /* offset of the word of each dynamic array in the kernel's record; EVENT_RELATIVE */
  u32 string[EVENT_STRINGS];  /* offset of each pointer; EVENT_USER */
};
MAP(events_layout, ARRAY, u32, struct events_layout, 1)
#define LAYOUT ((const volatile struct events_layout *)bpf_pseudo_fd(PSEUDO_MAP_VALUE, MAP_NUMBER_events_layout))

/* Programs of this kind never interrupt each other on a CPU: the kernel skips the second one, and counts it. */
struct events_scratch {
  struct events_record fixed;
  u8 data[2 * 8192];
};
MAP(events_scratch, PERCPU_ARRAY, u32, struct events_scratch, 1)

#define CONTEXT_UNKNOWN -1
#define CONTEXT_TASK 0
#define CONTEXT_SOFTIRQ 1
#define CONTEXT_HARDIRQ 2
#define CONTEXT_NMI 3

/* Bits of the preemption count as in include/linux/preempt.h; softirqs that are only disabled count by two. On x86 it is a per-CPU
 * variable, whose address only kernels with all symbols tell: the distance from another one of this CPU does as well. */
INLINE s8 context_of(u64 task) {
  u32 count = 0;
#if defined(PER_CPU___preempt_count) && defined(PER_CPU_runqueues) && defined(OFFSET_cfs_rq__rq)
  u64 queue = *(u64 *)(ADDRESS(task, task_struct, se) + OFFSET_sched_entity__cfs_rq);
  u64 runqueue = READ(u64, queue, cfs_rq, rq);
  if (!runqueue) return CONTEXT_UNKNOWN;
  if (read_kernel(&count, sizeof(count), runqueue - PER_CPU_runqueues + PER_CPU___preempt_count) < 0) return CONTEXT_UNKNOWN;
#elif defined(PER_CPU_pcpu_hot) && defined(PER_CPU_runqueues) && defined(OFFSET_pcpu_hot__preempt_count) && defined(OFFSET_cfs_rq__rq)
  u64 queue = *(u64 *)(ADDRESS(task, task_struct, se) + OFFSET_sched_entity__cfs_rq);
  u64 runqueue = READ(u64, queue, cfs_rq, rq);
  if (!runqueue) return CONTEXT_UNKNOWN;
  u64 hot = runqueue - PER_CPU_runqueues + PER_CPU_pcpu_hot; /* Linux 6.2 to 6.14 */
  if (read_kernel(&count, sizeof(count), hot + OFFSET_pcpu_hot__preempt_count) < 0) return CONTEXT_UNKNOWN;
#elif defined(__TARGET_ARCH_arm64) && defined(OFFSET_thread_info__preempt_count)
  count = *(u64 *)(ADDRESS(task, task_struct, thread_info) + OFFSET_thread_info__preempt_count);
#else
  return CONTEXT_UNKNOWN;
#endif
  if (count & 0xf00000) return CONTEXT_NMI;
  if (count & 0xf0000) return CONTEXT_HARDIRQ;
  return count & 0x100 ? CONTEXT_SOFTIRQ : CONTEXT_TASK;
}

/* With --all whatever happens is wanted, in idle tasks too; the recorder's own doings are not, but interrupts that fall on it are. */
INLINE int event_is_wanted(u64 task, s8 context) {
  if (CONFIG->select != SELECT_ALL) return is_recorded(task);
  return !is_own(READ(u32, task, task_struct, tgid)) || context > CONTEXT_TASK;
}

/* Not 0, or perf would not see the event that it asked for as well. */
#define GO_ON 1

INLINE void fill_event(struct events_record *record, u64 task, struct counters *counters, u64 now, u32 cpu, s8 context) {
  record->cookie = CONFIG->cookie;
  record->ts = now;
  record->seq = __sync_fetch_and_add(&counters->attempted, 1);
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->event = LAYOUT->event;
  record->cpu = cpu;
  record->context = context;
  record->cut = 0;
}

INLINE void lose_event(struct counters *counters, u64 now) {
  __sync_fetch_and_add(&counters->lost, 1);
  lose(TABLE_events, CAUSE_RING_FULL, 0, LAYOUT->event, 0, now);
}

TRACEPOINT(event) {
  u64 task = current_task();
  s8 context = context_of(task);
  if (!event_is_wanted(task, context)) return GO_ON;
  u32 zero = 0, cpu = this_cpu(), fixed = LAYOUT->fixed;
  struct counters *counters = map_lookup(MAP_counters_events, &cpu);
  void *ring = ring_of(MAP_rings_events, cpu);
  if (!counters || !ring || fixed > EVENT_MAX) return GO_ON;
  u64 now = now_ns();

  if (!LAYOUT->words && !LAYOUT->strings) {
    /* All records of the event are of one size: it is written where it stays. */
    struct events_record *record = ring_reserve(ring, sizeof(struct events_record) + fixed, 0);
    if (!record) {
      __sync_fetch_and_add(&counters->attempted, 1);
      lose_event(counters, now);
      return GO_ON;
    }
    fill_event(record, task, counters, now, cpu, context);
    record->raw_len = fixed;
    record->strings_len = 0;
    read_kernel(record + 1, fixed, (u64)ctx + 8);
    ring_submit(record, NO_WAKEUP);
    return GO_ON;
  }

  struct events_scratch *scratch = map_lookup(MAP_events_scratch, &zero);
  if (!scratch) return GO_ON;
  struct events_record *record = &scratch->fixed;
  fill_event(record, task, counters, now, cpu, context);
  read_kernel(scratch->data, fixed, (u64)ctx + 8);

  /* The arrays follow the fixed part one after the other: where the last one ends the record ends. */
  u32 end = fixed;
#pragma unroll
  for (int i = 0; i < EVENT_WORDS; i++) {
    if (i >= LAYOUT->words) continue;
    u32 at = LAYOUT->word[i] & 0xffff;
    if (at < 8 || at > EVENT_MAX) continue;
    u32 word = *(u32 *)(scratch->data + at - 8);
    u32 ends = (word & 0xffff) + (word >> 16) + (LAYOUT->word[i] & EVENT_RELATIVE ? at + 4 : 0);
    if (ends > end + 8) end = ends - 8;
  }
  if (end > EVENT_MAX) {
    end = EVENT_MAX;
    record->cut = 1;
  }
  u32 rest = end - fixed;
  ONE_REGISTER(rest);
  rest &= 8191;
  if (rest) read_kernel(scratch->data + fixed, rest, (u64)ctx + 8 + fixed);
  record->raw_len = end;

  u32 to = end;
#pragma unroll
  for (int i = 0; i < EVENT_STRINGS; i++) {
    if (i >= LAYOUT->strings) continue;
    u32 at = LAYOUT->string[i] & 0xffff;
    if (at < 8 || at > EVENT_MAX) continue;
    u64 from = *(u64 *)(scratch->data + at - 8);
    ONE_REGISTER(to);
    to &= 16383;
    if (to > 16384 - 256) continue;
    s64 got = LAYOUT->string[i] & EVENT_USER ? read_user_string(scratch->data + to + 1, EVENT_USER_STRING, from)
                                             : read_kernel_string(scratch->data + to + 1, EVENT_KERNEL_STRING, from);
    u32 length = got > 0 ? (got - 1) & 255 : 0;
    scratch->data[to] = got > 0 ? length : EVENT_UNREADABLE;
    to += 1 + length;
  }
  record->strings_len = to - end;
  ONE_REGISTER(to);
  to &= 16383;
  if (ring_output(ring, scratch, sizeof(struct events_record) + to, NO_WAKEUP) < 0) lose_event(counters, now);
  return GO_ON;
}
