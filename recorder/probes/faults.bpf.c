/* Page faults. Their programs run in process context alone, so they cannot interrupt each other: a fault in an interrupt
 * (a profiler that walks a stack) is taken with page faults disabled, and left out. */

#define FAULT_USER 0
#define FAULT_KERNEL 1
#define FAULT_AT_ATTACH 2
#define FAULT_AT_DETACH 3

#define REGION_MAPPING 0
#define REGION_PROGRAM 1
#define REGION_HEAP 2
#define REGION_STACK 3
#define STACK_MOST (8ull << 30) /* below that far from its top nothing is taken for the stack */
#define BEFORE_TEXT (1ull << 30)
#define FAR_FROM_MAPPINGS (64ull << 30)
#define MOST_ABOVE_ENVIRONMENT 65536 /* the name of the program, and the vector */

/* Which part of the address space it is. Nothing but the stack is mapped above mmap_base, unless its size is not limited:
 * then mappings begin at a third of the address space and grow upwards. */
INLINE u8 region_of(u64 memory, u64 address) {
  u64 heap = READ(u64, memory, mm_struct, start_brk), top = READ(u64, memory, mm_struct, start_stack);
  if (address >= heap && address < READ(u64, memory, mm_struct, brk)) return REGION_HEAP;
  u64 data_end = READ(u64, memory, mm_struct, end_data);
  u64 end = heap > data_end ? heap : data_end; /* bss ends where the heap begins, or a random distance before it */
  u64 code = READ(u64, memory, mm_struct, start_code), base = READ(u64, memory, mm_struct, mmap_base);
  /* Linkers put read-only segments before the text, of which nothing is known but that nothing else is near there. */
  if (code + FAR_FROM_MAPPINGS < base) code = code > BEFORE_TEXT ? code - BEFORE_TEXT : 0;
  if (address >= code && address < end) return REGION_PROGRAM;
  u64 above = READ(u64, memory, mm_struct, env_end) + MOST_ABOVE_ENVIRONMENT;
  if (address >= base && address + STACK_MOST >= top && address < above) return REGION_STACK;
  return REGION_MAPPING;
}

INLINE u64 ip_of(u64 regs) {
#ifdef __TARGET_ARCH_arm64
  return READ(u64, regs, pt_regs, pc);
#else
  return READ(u64, regs, pt_regs, ip);
#endif
}

INLINE void emit_fault(u64 task, u64 address, u64 regs, u64 error, u8 kind) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_faults, &cpu);
  if (!counters) return;
  u64 seq = counters->attempted++;
  struct faults_record *record = free_slot(MAP_ring_faults, counters, cpu, CONFIG->slots[TABLE_faults]);
  if (!record) {
    counters->lost++;
    lose(TABLE_faults, CAUSE_RING_FULL, 0, -1, 0, now_ns());
    return;
  }
  u64 memory = READ(u64, task, task_struct, mm);
  record->ts = now_ns();
  record->address = address;
  record->ip = ip_of(regs);
  record->min_flt = READ(u64, task, task_struct, min_flt);
  record->maj_flt = READ(u64, task, task_struct, maj_flt);
  record->seq = seq;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->error = error;
  record->cpu = cpu;
  record->kind = kind;
  record->region = memory ? region_of(memory, address) : REGION_MAPPING;
  publish(counters);
}

PROBE(page_fault_user) {
  u64 task = current_task();
  if (is_recorded(task)) emit_fault(task, ctx[0], ctx[1], ctx[2], FAULT_USER);
  return 0;
}

/* A read or write of the program's memory by a system call. */
PROBE(page_fault_kernel) {
  u64 task = current_task();
  if ((s64)ctx[0] < 0 || READ(u32, task, task_struct, pagefault_disabled)) return 0;
  if (is_recorded(task)) emit_fault(task, ctx[0], ctx[1], ctx[2], FAULT_KERNEL);
  return 0;
}

INLINE int write_counters(u64 *ctx, u8 kind) {
  u64 task = ctx[1];
  if (!task || !is_recorded(task)) return 0;
  struct faults_record record = {
      .ts = now_ns(),
      .min_flt = READ(u64, task, task_struct, min_flt),
      .maj_flt = READ(u64, task, task_struct, maj_flt),
      .seq = -1,
      .pid = READ(u32, task, task_struct, tgid),
      .tid = READ(u32, task, task_struct, pid),
      .cpu = -1,
      .kind = kind,
  };
  seq_write(*(u64 *)(*(u64 *)ctx), &record, sizeof(record));
  return 0;
}

ITERATOR(faults_attach) { return write_counters(ctx, FAULT_AT_ATTACH); }
ITERATOR(faults_detach) { return write_counters(ctx, FAULT_AT_DETACH); }
