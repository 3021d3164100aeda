/* Stacks. Samplers run in the interrupt of a timer, the probe at sched_switch with interrupts off: neither comes into the
 * other on a CPU, so plain counters are right. */

#define SAMPLE_ON 0
#define SAMPLE_OFF 1
#define SAMPLE_AT_DETACH 2
#define USER_STACK 256 /* BPF_F_USER_STACK */
#define KERNEL_STACK_BYTES 504 /* 63 addresses */
#define USER_STACK_BYTES 1016 /* 127: what the kernel keeps at most by default */
#define TASK_DEAD_STATE 128
#define NO_STACKS ~0ull /* --offcpu-stacks was not asked for */
/* The program itself and what runs it. Where several programs hang on the tracepoint a frame of its own follows, which is
 * left to the analysis. */
#define OFFCPU_SKIP 2

static long (*get_stack)(u64 context, void *to, u32 size, u64 flags) = (void *)BPF_FUNC_get_stack;
static long (*stack_of)(u64 task, void *to, u32 size, u64 flags) = (void *)BPF_FUNC_get_task_stack;
static long (*read_user_of)(void *to, u32 size, u64 from, u64 task, u64 flags) = (void *)191; /* copy_from_user_task, since Linux 5.18 */

struct sample {
  struct samples_record fixed;
  u64 frames[191]; /* the mask of the kernel's part (511 bytes) and the user's part */
};
/* In the thread's own storage from its leaving of the CPU until its return: what is short costs no copy and no record. */
struct samples_off {
  u64 since; /* 0: on a CPU, or not seen to leave it */
  struct sample sample;
};
MAP(samples_scratch, PERCPU_ARRAY, u32, struct sample, 1)
MAP(samples_off, TASK_STORAGE, u32, struct samples_off, 0)

INLINE void take_stacks(u64 context, struct sample *sample, u64 skip) {
  s64 kernel = get_stack(context, sample->frames, KERNEL_STACK_BYTES, skip);
  if (kernel < 0) kernel = 0;
  u32 kernel_bytes = kernel;
  ONE_REGISTER(kernel_bytes);
  kernel_bytes &= 511;
  s64 user = get_stack(context, (char *)sample->frames + kernel_bytes, USER_STACK_BYTES, USER_STACK);
  sample->fixed.kernel_len = kernel_bytes;
  sample->fixed.user_len = user < 0 ? 0 : user;
}

INLINE void describe_sample(struct sample *sample, u64 task, u64 ts, u64 duration, u8 kind, u32 state) {
  struct samples_record *record = &sample->fixed;
  record->cookie = CONFIG->cookie;
  record->ts = ts;
  record->dur = duration;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->state = state;
  record->kind = kind;
  record->reserved0[0] = 0;
}

INLINE u32 tail_bytes(struct sample *sample) {
  u32 length = sample->fixed.kernel_len + sample->fixed.user_len;
  ONE_REGISTER(length);
  length &= 2047;
  if (length > sizeof(sample->frames)) length = sizeof(sample->frames);
  return length;
}

INLINE void emit_sample(struct sample *sample, u64 now) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_samples, &cpu);
  if (!counters) return;
  sample->fixed.cpu = cpu;
  sample->fixed.seq = counters->attempted++;
  void *ring = ring_of(MAP_rings_samples, cpu);
  if (!ring || ring_output(ring, sample, sizeof(sample->fixed) + tail_bytes(sample), NO_WAKEUP) < 0) {
    counters->lost++;
    lose(TABLE_samples, CAUSE_RING_FULL, 0, -1, sample->fixed.dur, now);
  }
}

SAMPLER(samples) {
  u64 task = current_task();
  u32 zero = 0;
  if (!is_recorded(task)) return 0;
  struct sample *sample = map_lookup(MAP_samples_scratch, &zero);
  if (!sample) return 0;
  u64 now = now_ns();
  take_stacks((u64)ctx, sample, 0);
  describe_sample(sample, task, now, 0, SAMPLE_ON, 0);
  emit_sample(sample, now);
  return 0;
}

PROBE(sched_switch) {
  u64 prev = ctx[1], next = ctx[2];
#if ARGS_sched_switch > 3
  u32 left = ctx[3]; /* since Linux 5.18; the task itself may have been woken meanwhile */
#else
  u32 left = READ(u32, prev, task_struct, __state);
#endif
  struct samples_off *off;
  if (!(ctx[0] & 1) && left && !(left & TASK_DEAD_STATE) && is_recorded(prev)) {
    off = task_storage(MAP_samples_off, prev, 0, CREATE);
    if (off) {
      off->since = now_ns();
      describe_sample(&off->sample, prev, off->since, 0, SAMPLE_OFF, left);
      take_stacks((u64)ctx, &off->sample, OFFCPU_SKIP);
    } else {
      u32 cpu = this_cpu();
      struct counters *counters = map_lookup(MAP_counters_samples, &cpu);
      if (counters) counters->noted++;
      lose(TABLE_samples, CAUSE_NO_STORAGE, 0, -1, 0, now_ns());
    }
  }
  if (!READ(u32, next, task_struct, pid)) return 0; /* an idle task */
  off = task_storage(MAP_samples_off, next, 0, 0);
  if (!off || !off->since) return 0;
  u64 now = now_ns(), duration = now - off->since;
  off->since = 0;
  if (duration < CONFIG->offcpu_min) return 0;
  off->sample.fixed.dur = duration;
  emit_sample(&off->sample, now);
  return 0;
}

/* The stack of a thread's program, by its frame pointers. The kernel's own walk knows the current task alone. */
INLINE u32 walk_program(u64 task, u64 *frames) {
  u64 registers = task_registers(task);
  if (!registers || !READ(u64, task, task_struct, mm)) return 0;
#ifdef __TARGET_ARCH_arm64
  frames[0] = READ(u64, registers, pt_regs, pc);
  return sizeof(u64);
#else
  frames[0] = READ(u64, registers, pt_regs, ip);
  u64 frame = READ(u64, registers, pt_regs, bp), pair[2];
  u32 count = 1;
  for (; count < USER_STACK_BYTES / sizeof(u64); count++) {
    if (read_user_of(pair, sizeof(pair), frame, task, 0) || !pair[1]) break;
    frames[count] = pair[1];
    if (pair[0] <= frame) return (count + 1) * sizeof(u64);
    frame = pair[0];
  }
  return count * sizeof(u64);
#endif
}

/* Who slept already when the probes were attached: off its CPU from then on. */
ITERATOR(samples_attach) {
  u64 task = ctx[1];
  if (CONFIG->offcpu_min == NO_STACKS || !task) return 0;
  u32 state = READ(u32, task, task_struct, __state);
  if (!state || state & TASK_DEAD_STATE || !is_recorded(task)) return 0;
  struct samples_off *off = task_storage(MAP_samples_off, task, 0, CREATE);
  if (!off || off->since) return 0; /* the probe has seen it since */
  struct sample *sample = &off->sample;
  s64 kernel = stack_of(task, sample->frames, KERNEL_STACK_BYTES, 0);
  if (kernel < 0) kernel = 0;
  u32 bytes = kernel;
  ONE_REGISTER(bytes);
  bytes &= 511;
  sample->fixed.kernel_len = bytes;
  sample->fixed.user_len = walk_program(task, (u64 *)((char *)sample->frames + bytes));
  u64 now = now_ns();
  describe_sample(sample, task, now, 0, SAMPLE_OFF, state);
  *(volatile u64 *)&off->since = now;
  /* It may have been woken meanwhile, and not have been met by the probe: then nothing is to be told of it. */
  if (!*(volatile u32 *)ADDRESS(task, task_struct, __state)) *(volatile u64 *)&off->since = 0;
  return 0;
}

/* Who was off its CPU when the probes were detached. */
ITERATOR(samples_detach) {
  u64 task = ctx[1];
  if (!task) return 0;
  struct samples_off *off = task_storage(MAP_samples_off, task, 0, 0);
  if (!off || !off->since) return 0;
  struct sample *sample = &off->sample;
  sample->fixed.dur = now_ns() - off->since;
  sample->fixed.seq = -1;
  sample->fixed.cpu = -1;
  sample->fixed.kind = SAMPLE_AT_DETACH;
  off->since = 0;
  if (sample->fixed.dur < CONFIG->offcpu_min) return 0;
  seq_write(*(u64 *)(*(u64 *)ctx), sample, sizeof(sample->fixed) + tail_bytes(sample));
  return 0;
}
