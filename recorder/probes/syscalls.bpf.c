/* Enter and exit of a call are paired in the storage of the thread, so no loss can pair two different calls. */

#define KIND_RETURNED 0
#define KIND_NO_RETURN 1
#define KIND_AT_ATTACH 2
#define KIND_UNFINISHED 3
#define KIND_CHILD 4
#define KIND_INTERCEPTED 5

#define CALLS 1024
#define CALL_ARITY(info) ((info) & 7)
#define CALL_LISTED 8
#define CALL_STRINGS(info) ((info) >> 8) /* 8 bits a string: 3 argument, 2 kind, 3 argument with the length */

/* What is known of each call: numbers of the native ABI, then those of the compat ABI. */
MAP(calls, ARRAY, u32, u32, 2 * CALLS)

#ifdef __TARGET_ARCH_arm64
#define ABI_NATIVE 4
#define ABI_COMPAT 5
#define ABI_X32 4
#define TIF_32BIT (1 << 22)
INLINE int is_compat(u64 task) { return (*(u64 *)(ADDRESS(task, task_struct, thread_info) + OFFSET_thread_info__flags) & TIF_32BIT) != 0; }
INLINE void read_args(u64 *args, u64 regs, int compat, u32 arity) {
  u64 base = ADDRESS(regs, pt_regs, regs);
  if (arity > 0) args[0] = *(u64 *)base;
  if (arity > 1) args[1] = *(u64 *)(base + 8);
  if (arity > 2) args[2] = *(u64 *)(base + 16);
  if (arity > 3) args[3] = *(u64 *)(base + 24);
  if (arity > 4) args[4] = *(u64 *)(base + 32);
  if (arity > 5) args[5] = *(u64 *)(base + 40);
}
INLINE s64 number_of(u64 regs) { return READ(s32, regs, pt_regs, syscallno); }
INLINE u64 came_from(u64 regs) { return READ(u64, regs, pt_regs, pc); }
#define NR_EXECVE 221
#define NR_EXECVEAT 281
#else
#define ABI_NATIVE 1
#define ABI_COMPAT 2
#define ABI_X32 3
#define X32_BIT 0x40000000
#define TS_COMPAT 2
/* The code segment is no test: 64-bit code may call by int 0x80, which sets this flag alone. */
INLINE int is_compat(u64 task) { return *(u32 *)(ADDRESS(task, task_struct, thread_info) + OFFSET_thread_info__status) & TS_COMPAT; }
INLINE void read_args(u64 *args, u64 regs, int compat, u32 arity) {
  if (compat) {
    if (arity > 0) args[0] = (u32)READ(u64, regs, pt_regs, bx);
    if (arity > 1) args[1] = (u32)READ(u64, regs, pt_regs, cx);
    if (arity > 2) args[2] = (u32)READ(u64, regs, pt_regs, dx);
    if (arity > 3) args[3] = (u32)READ(u64, regs, pt_regs, si);
    if (arity > 4) args[4] = (u32)READ(u64, regs, pt_regs, di);
    if (arity > 5) args[5] = (u32)READ(u64, regs, pt_regs, bp);
    return;
  }
  if (arity > 0) args[0] = READ(u64, regs, pt_regs, di);
  if (arity > 1) args[1] = READ(u64, regs, pt_regs, si);
  if (arity > 2) args[2] = READ(u64, regs, pt_regs, dx);
  if (arity > 3) args[3] = READ(u64, regs, pt_regs, r10);
  if (arity > 4) args[4] = READ(u64, regs, pt_regs, r8);
  if (arity > 5) args[5] = READ(u64, regs, pt_regs, r9);
}
INLINE s64 number_of(u64 regs) { return READ(s64, regs, pt_regs, orig_ax); }
INLINE u64 came_from(u64 regs) { return READ(u64, regs, pt_regs, ip); }
#define NR_EXECVE 59
#define NR_EXECVEAT 322
#endif

INLINE u32 call_info(s64 nr, int compat) {
  u32 index = nr;
#ifdef X32_BIT
  if (nr > 0 && !compat) index &= ~X32_BIT;
#endif
  if (index >= CALLS) return CONFIG->only_listed_calls ? 6 : 6 | CALL_LISTED;
  if (compat) index += CALLS;
  u32 *info = map_lookup(MAP_calls, &index);
  return info ? *info : 0;
}

INLINE u8 abi_of(s64 nr, int compat) {
  if (compat) return ABI_COMPAT;
#ifdef X32_BIT
  if (nr > 0 && nr & X32_BIT) return ABI_X32;
#endif
  return ABI_NATIVE;
}

/* Seccomp, and tracers that emulate calls, answer before sys_enter: such a call has a sys_exit only, or no event at all
 * if it kills the thread. Threads without seccomp cost nothing. */
#define SECCOMP_DEAD 3 /* since Linux 5.16: seccomp has killed this thread */
INLINE u32 seccomp_mode(u64 task) {
#ifdef OFFSET_seccomp__mode
  return *(u32 *)(ADDRESS(task, task_struct, seccomp) + OFFSET_seccomp__mode);
#else
  return 0;
#endif
}

INLINE struct counters *syscalls_counters(u32 cpu) { return map_lookup(MAP_counters_syscalls, &cpu); }

INLINE void emit_syscall(u64 task, struct task_state *state, s64 ret, u64 end, u8 kind) {
  u32 cpu = this_cpu();
  struct counters *counters = syscalls_counters(cpu);
  if (!counters) return;
  u64 duration = end - state->entered;
  if (duration < CONFIG->min_duration) {
    counters->filtered++;
    return;
  }
  u64 seq = counters->attempted++;
  struct syscalls_record *record = free_slot(MAP_ring_syscalls, counters, cpu, CONFIG->slots[TABLE_syscalls]);
  if (!record) {
    counters->lost++;
    lose(TABLE_syscalls, CAUSE_RING_FULL, state->abi, state->nr, duration, end);
    return;
  }
  record->ts = state->entered;
  record->dur = duration;
  record->ret = ret;
  record->arg0 = state->args[0];
  record->arg1 = state->args[1];
  record->arg2 = state->args[2];
  record->arg3 = state->args[3];
  record->arg4 = state->args[4];
  record->arg5 = state->args[5];
  record->seq = seq;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->nr = state->nr;
  record->cpu = cpu;
  record->abi = state->abi;
  record->kind = kind;
  publish(counters);
}

/* Fills in the call that the registers hold; 0 if it is not to be recorded. */
INLINE int describe_call(u64 task, struct task_state *state, u64 regs, int with_args) {
  if (CONFIG->select == SELECT_MARKED ? state->traced != TRACED : !matches(task)) return 0;
  int compat = is_compat(task);
  s64 nr = number_of(regs);
  u32 info = call_info(nr, compat);
  if (!(info & CALL_LISTED) || nr < 0) return 0;
  __builtin_memset(state->args, 0, sizeof(state->args));
  if (with_args) read_args(state->args, regs, compat, CALL_ARITY(info));
  state->nr = nr;
  state->abi = abi_of(nr, compat);
  state->strings = CALL_STRINGS(info);
  return 1;
}

INLINE int exit_without_entry(u64 task, struct task_state *state, u64 regs, s64 ret) {
  u64 attached = state->entered;
  int child = state->child, at_attach = state->at_attach, unselected = state->unselected;
  /* A thread that has been in user mode since the attachment cannot have been inside this call all the time. */
  if (at_attach && seccomp_mode(task) && READ(u64, task, task_struct, utime) != state->args[0]) at_attach = 0;
  state->child = state->at_attach = state->unselected = 0;
  if (unselected || seccomp_mode(task) == SECCOMP_DEAD) return 0;
  if (!describe_call(task, state, regs, !child)) return 0;
  u64 end = now_ns();
  state->entered = at_attach ? attached : end;
#ifdef TABLE_paths
  state->unread = 7;
  if (!child && !at_attach && state->strings && !many(state->strings) && !CONFIG->min_duration) strings_at_exit(task, state, state->strings, ret);
#endif
  emit_syscall(task, state, ret, end, child ? KIND_CHILD : at_attach ? KIND_AT_ATTACH : KIND_INTERCEPTED);
#ifdef TABLE_sockets
  socket_accepted(task, state, ret, end);
#endif
  return 0;
}

PROBE(sys_enter) {
  u64 task = current_task();
  s64 nr = ctx[1];
  struct task_state *state;
  if (CONFIG->select == SELECT_MARKED) {
    state = task_storage(MAP_state, task, 0, 0);
    if (!state || !state->traced) return 0;
    if (state->traced == ARMED) {
      if (nr != NR_EXECVE && nr != NR_EXECVEAT) return 0;
      state->traced = TRACED;
      state->since = now_ns();
    }
  } else {
    if (is_own(READ(u32, task, task_struct, tgid))) return 0;
    if (!matches(task)) {
      /* What is selected may change before the call returns: its exit then must not pass for an intercepted call. */
      state = task_storage(MAP_state, task, 0, seccomp_mode(task) ? CREATE : 0);
      if (state) {
        state->at_attach = state->pending = 0;
        state->unselected = 1;
      }
      return 0;
    }
    state = task_storage(MAP_state, task, 0, CREATE);
    if (!state) {
      struct counters *counters = syscalls_counters(this_cpu());
      if (counters) counters->noted++;
      lose(TABLE_syscalls, CAUSE_NO_STORAGE, ABI_NATIVE, nr, 0, now_ns());
      return 0;
    }
  }
  state->at_attach = 0;
  state->child = 0;
  state->unselected = 0;
  int compat = is_compat(task);
  u32 info = call_info(nr, compat);
  if (!(info & CALL_LISTED)) {
    state->pending = 0;
    return 0;
  }
  u32 arity = CALL_ARITY(info);
  u64 *args = state->args;
  if (arity < 6) {
    args[5] = 0;
    if (arity < 5) args[4] = 0;
    if (arity < 4) args[3] = 0;
    if (arity < 3) args[2] = 0;
    if (arity < 2) args[1] = 0;
    if (arity < 1) args[0] = 0;
  }
  read_args(args, ctx[0], compat, arity);
  state->nr = nr;
  state->abi = abi_of(nr, compat);
  state->pending = 1;
  state->unread = 0;
  state->strings = CALL_STRINGS(info);
  state->entered = now_ns();
#ifdef TABLE_paths
  if (CALL_STRINGS(info) && !CONFIG->min_duration) strings_at_enter(task, state, CALL_STRINGS(info));
#endif
  return 0;
}

PROBE(sys_exit) {
  u64 task = current_task();
  struct task_state *state = task_storage(MAP_state, task, 0, 0);
  s64 ret = ctx[1];
  if (!state) {
    if (CONFIG->select == SELECT_MARKED || !seccomp_mode(task) || is_own(READ(u32, task, task_struct, tgid)) || !matches(task)) return 0;
    state = task_storage(MAP_state, task, 0, CREATE); /* the first call since it was selected, and intercepted */
    if (!state) return 0;
  }
  if (state->pending) {
    u64 end = now_ns();
    state->pending = 0;
#ifdef TABLE_paths
    u32 strings = state->strings;
    if (strings && end - state->entered >= CONFIG->min_duration) strings_at_exit(task, state, strings, ret);
#endif
    emit_syscall(task, state, ret, end, KIND_RETURNED);
#ifdef TABLE_sockets
    socket_accepted(task, state, ret, end);
#endif
    return 0;
  }
  return exit_without_entry(task, state, ctx[0], ret);
}

/* exit, exit_group, and whatever the thread was in when it was killed, have no sys_exit. */
PROBE(sched_process_exit) {
  u64 task = ctx[0];
  struct task_state *state = task_storage(MAP_state, task, 0, 0);
  if (!state) return 0;
  u64 end = now_ns();
  if (!state->pending) {
    if (seccomp_mode(task) != SECCOMP_DEAD || !describe_call(task, state, task_registers(task), 1)) return 0;
    state->entered = end;
    emit_syscall(task, state, 0, end, KIND_INTERCEPTED);
    return 0;
  }
  state->pending = 0;
  emit_syscall(task, state, 0, end, KIND_NO_RETURN);
  return 0;
}

/* Run once after the probes are detached: calls that have not returned. A thread that was not seen since the probes were
 * attached, and sleeps in a call, has been in it all the time; one that runs may be anywhere. */
ITERATOR(syscalls_detach) {
  u64 task = ctx[1];
  if (!task) return 0;
  struct task_state *state = task_storage(MAP_state, task, 0, 0);
  if (!state) return 0;
  if (!state->pending) {
    if (!state->at_attach || !READ(u32, task, task_struct, __state)) return 0;
    if (CONFIG->select != SELECT_MARKED && !selects(task)) return 0;
    /* Threads of the kernel, io_uring's workers among them, have registers of a user mode that they never were in: all 0, as if in call 0. */
    u64 regs = task_registers(task);
    if (!came_from(regs) || !describe_call(task, state, regs, 1)) return 0;
  }
  struct syscalls_record record = {
      .ts = state->entered,
      .dur = now_ns() - state->entered,
      .arg0 = state->args[0],
      .arg1 = state->args[1],
      .arg2 = state->args[2],
      .arg3 = state->args[3],
      .arg4 = state->args[4],
      .arg5 = state->args[5],
      .seq = -1,
      .pid = READ(u32, task, task_struct, tgid),
      .tid = READ(u32, task, task_struct, pid),
      .nr = state->nr,
      .cpu = -1,
      .abi = state->abi,
      .kind = KIND_UNFINISHED,
  };
  if (record.dur < (s64)CONFIG->min_duration) return 0;
  seq_write(*(u64 *)(*(u64 *)ctx), &record, sizeof(record));
  return 0;
}
