/* One record for each stay of a thread on a CPU, made when it leaves. Programs at sched_switch run with interrupts off, so
 * no other of them can come in between. */

#define TASK_DEAD 0x80
#define STAY_WHOLE 0
#define STAY_AT_ATTACH 1
#define STAY_RUNNING 2
#define STAY_WAITING 3
#define STAY_BLOCKED 4
#define STAY_UNSEEN 5

struct sched_state {
  u64 on;        /* on a CPU since; 0: not on one, or not seen to be put on one */
  u64 off;       /* left the CPU last; 0: never seen */
  u64 runnable;  /* runnable since; 0: blocked, or unknown */
  u64 wait;
  u64 sum;       /* CPU time of the thread when it left the CPU last, as the kernel accounts it */
  u64 run;       /* of the stay that ends */
  u32 waker;
  u32 waker_pid;
  u32 slice;
  u32 left;      /* state in which the CPU was left last */
  u16 migrations;
  u8 context;
  u8 leaving;    /* has ended, and is on its CPU for the last time */
  u8 reserved[4];
};
MAP(sched_state, TASK_STORAGE, u32, struct sched_state, 0)

#define CONTEXT_TASK 0
#define CONTEXT_SOFT 1
#define CONTEXT_HARD 2

/* What runs in the place of the current task. The kernel's own count is not to be had where its data has no symbols. */
#define SOFTIRQS 16 /* a power of two above the kernel's ten */
struct interrupts {
  s32 hard;
  s32 soft;
  u32 raised; /* kinds of soft interrupts that wait to be run, a bit each */
  u32 reserved;
  u64 working; /* who has asked for the soft interrupt that runs, as in raisers */
  u64 raisers[SOFTIRQS]; /* thread, and its process in the upper half; 0: an interrupt, or not seen */
};
MAP(sched_interrupts, PERCPU_ARRAY, u32, struct interrupts, 1)

INLINE struct interrupts *interrupts_here(void) {
  u32 zero = 0;
  return map_lookup(MAP_sched_interrupts, &zero);
}

INLINE int count_interrupt(s32 hard, s32 soft) {
  struct interrupts *here = interrupts_here();
  if (!here) return 0;
  here->hard += hard;
  here->soft += soft;
  if (here->hard < 0) here->hard = 0; /* its beginning was before the attachment */
  if (here->soft < 0) here->soft = 0;
  return 0;
}

PROBE(irq_handler_entry) { return count_interrupt(1, 0); }
PROBE(irq_handler_exit) { return count_interrupt(-1, 0); }

/* Of the soft interrupts for the network and for block devices, whoever asks for one has handed over what it is to do: a send
 * over loopback is received in one, also where that runs later, in the place of another thread. Where an interrupt has asked for
 * it, or several threads have before it ran, it is not known for whom it works. */
#define HANDS_OVER (1u << 2 | 1u << 3 | 1u << 4) /* NET_TX, NET_RX, BLOCK in include/linux/interrupt.h */

PROBE(softirq_raise) {
  u32 kind = ctx[0] & (SOFTIRQS - 1), bit = 1u << kind;
  struct interrupts *here = interrupts_here();
  if (!here || !(bit & HANDS_OVER)) return 0;
  u64 task = current_task();
  u64 raiser = here->hard || here->soft ? 0 : READ(u32, task, task_struct, pid) | (u64)READ(u32, task, task_struct, tgid) << 32;
  if (here->raised & bit && here->raisers[kind] != raiser) raiser = 0;
  here->raised |= bit;
  here->raisers[kind] = raiser;
  return 0;
}

PROBE(softirq_entry) {
  u32 kind = ctx[0] & (SOFTIRQS - 1), bit = 1u << kind;
  struct interrupts *here = interrupts_here();
  if (here) here->working = here->raised & bit ? here->raisers[kind] : 0;
  if (here) here->raised &= ~bit;
  return count_interrupt(0, 1);
}

PROBE(softirq_exit) {
  struct interrupts *here = interrupts_here();
  if (here) here->working = 0;
  return count_interrupt(0, -1);
}
#ifndef __TARGET_ARCH_arm64
PROBE(local_timer_entry) { return count_interrupt(1, 0); }
PROBE(local_timer_exit) { return count_interrupt(-1, 0); }
PROBE(call_function_entry) { return count_interrupt(1, 0); }
PROBE(call_function_exit) { return count_interrupt(-1, 0); }
PROBE(call_function_single_entry) { return count_interrupt(1, 0); }
PROBE(call_function_single_exit) { return count_interrupt(-1, 0); }
#endif

INLINE u64 sched_since(u64 task) {
  struct task_state *state = task_storage(MAP_state, task, 0, 0);
  return state ? state->since : 0;
}

INLINE void fill_stay(struct sched_record *record, u64 task, struct sched_state *state, u8 kind) {
  record->wait = state->wait;
  record->run = state->run;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->waker = state->waker;
  record->waker_pid = state->waker_pid;
  record->slice = state->slice;
  record->migrations = state->migrations;
  record->context = state->context;
  record->kind = kind;
}

INLINE void emit_stay(u64 task, struct sched_state *state, u64 on, u64 off, u32 left, u8 preempt, u8 kind) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_sched, &cpu);
  if (!counters) return;
  u64 seq = counters->attempted++;
  struct sched_record *record = free_slot(MAP_ring_sched, counters, cpu, CONFIG->slots[TABLE_sched]);
  if (!record) {
    counters->lost++;
    lose(TABLE_sched, CAUSE_RING_FULL, 0, -1, off - on, off);
    return;
  }
  record->ts = on;
  record->dur = off - on;
  record->seq = seq;
  record->cpu = cpu;
  record->state = left;
  record->preempt = preempt;
  fill_stay(record, task, state, kind);
  publish(counters);
}

/* The waking, not the wake-up: the latter may come from an interrupt on the CPU of the woken, where the waker is not known. */
PROBE(sched_waking) {
  u64 task = ctx[0];
  if (!is_recorded(task)) return 0;
  struct sched_state *state = task_storage(MAP_sched_state, task, 0, CREATE);
  if (!state || state->runnable) return 0;
  if (state->on || !state->off) {
    /* Awake still, or gone to sleep a moment ago and not yet off its CPU. Since Linux 6.12 a sleeper may stay queued. */
    u8 delayed = 0;
#ifdef OFFSET_sched_entity__sched_delayed
    u64 entity = ADDRESS(task, task_struct, se);
    delayed = READ_BIT(entity, sched_entity, sched_delayed);
#endif
    if (READ(u32, task, task_struct, on_rq) && !delayed) return 0;
  }
  u64 waker = current_task();
  state->runnable = now_ns();
  state->waker = READ(u32, waker, task_struct, pid);
  state->waker_pid = READ(u32, waker, task_struct, tgid);
  struct interrupts *here = interrupts_here();
  state->context = here && here->hard ? CONTEXT_HARD : here && here->soft ? CONTEXT_SOFT : CONTEXT_TASK;
  if (state->context == CONTEXT_SOFT && here->working) {
    state->waker = here->working;
    state->waker_pid = here->working >> 32;
    state->context = CONTEXT_TASK;
  }
  return 0;
}

PROBE(sched_wakeup_new) {
  u64 task = ctx[0], waker = current_task();
  if (!is_recorded(task)) return 0;
  struct sched_state *state = task_storage(MAP_sched_state, task, 0, CREATE);
  if (!state) return 0;
  state->runnable = now_ns();
  state->waker = READ(u32, waker, task_struct, pid);
  state->waker_pid = READ(u32, waker, task_struct, tgid);
  state->context = CONTEXT_TASK;
  return 0;
}

PROBE(sched_migrate_task) {
  struct sched_state *state = task_storage(MAP_sched_state, ctx[0], 0, 0);
  if (state) state->migrations++;
  return 0;
}

INLINE void count_leaving(s64 change) {
  u32 zero = 0;
  struct status *status = map_lookup(MAP_status, &zero);
  if (status) __sync_fetch_and_add(&status->leaving, change);
}

/* A thread goes on to give back its memory: its last stay is over later, and the recording must not end before. */
PROBE(sched_process_exit) {
  u64 task = ctx[0];
  if (!is_recorded(task)) return 0;
  struct sched_state *state = task_storage(MAP_sched_state, task, 0, CREATE);
  if (!state || state->leaving) return 0;
  state->leaving = 1;
  count_leaving(1);
  return 0;
}

PROBE(sched_switch) {
  u64 prev = ctx[1], next = ctx[2];
  u8 preempt = ctx[0] & 1;
#if ARGS_sched_switch > 3
  u32 left = ctx[3]; /* since Linux 5.18; the task itself may have been woken meanwhile */
#else
  u32 left = READ(u32, prev, task_struct, __state);
#endif
  int leaves = is_recorded(prev), comes = is_recorded(next);
  if (!leaves && !comes) return 0;
  struct interrupts *here = interrupts_here();
  if (here) here->hard = here->soft = here->working = 0; /* whatever was missed: nothing is scheduled in an interrupt */
  u64 now = now_ns();
  struct sched_state *state = leaves ? task_storage(MAP_sched_state, prev, 0, CREATE) : 0;
  if (state) {
    u64 since = state->on;
    u8 kind = STAY_WHOLE;
    u64 entity = ADDRESS(prev, task_struct, se);
    u64 sum = READ(u64, entity, sched_entity, sum_exec_runtime);
    u64 run = sum - state->sum;
    u64 earliest = state->off ? state->off : state->runnable;
    if (!since && earliest) {
      /* Some kernels hide switches of some threads (a guest's agent, say), and with them the coming of whoever runs next, which
       * may be its first: the CPU time that the kernel accounts tells. */
      since = run < now - earliest ? now - run : earliest;
      kind = STAY_UNSEEN;
      state->wait = state->runnable && state->runnable < since ? since - state->runnable : 0;
      state->runnable = 0;
    } else if (!since) {
      since = sched_since(prev);
      kind = STAY_AT_ATTACH;
      state->wait = -1;
    }
    state->run = state->sum ? run : since ? now - since : 0;
    state->sum = sum;
    if (since) {
      emit_stay(prev, state, since, now, left, preempt, kind);
      state->slice++;
    }
    if (state->leaving && left & TASK_DEAD) {
      state->leaving = 0;
      count_leaving(-1);
    }
    state->on = 0;
    state->off = now;
    state->left = left;
    state->migrations = 0;
    if (preempt || !left) { /* still runnable; a waking that came before it slept is none */
      state->runnable = now;
      state->waker = state->waker_pid = state->context = 0;
    } else if (state->runnable) { /* woken on its way out */
      state->runnable = now;
    }
  }
  state = comes ? task_storage(MAP_sched_state, next, 0, CREATE) : 0;
  if (state) {
    u64 runnable = state->runnable;
    if (!runnable && !state->off) runnable = sched_since(next); /* was in the queue when the probes were attached */
    state->wait = runnable && runnable <= now ? now - runnable : -1;
    state->on = now;
    state->runnable = 0;
  }
  return 0;
}

/* Where every thread was when the probes were detached. */
ITERATOR(sched_detach) {
  u64 task = ctx[1];
  if (!task) return 0;
  u64 now = now_ns();
  struct sched_state *state = task_storage(MAP_sched_state, task, 0, 0);
  if (!state || (!state->on && !state->off && !state->runnable)) {
    /* Recorded, and never seen to run: it has slept all the time. */
    if (!sched_since(task) || !is_recorded(task)) return 0;
    struct sched_record sleeper = {.ts = now, .seq = -1, .cpu = -1, .state = READ(u32, task, task_struct, __state), .kind = STAY_BLOCKED};
    sleeper.pid = READ(u32, task, task_struct, tgid);
    sleeper.tid = READ(u32, task, task_struct, pid);
    seq_write(*(u64 *)(*(u64 *)ctx), &sleeper, sizeof(sleeper));
    return 0;
  }
  struct sched_record record = {.ts = now, .seq = -1, .cpu = -1, .state = state->left};
  u8 kind = STAY_BLOCKED;
  if (state->on) {
    kind = STAY_RUNNING;
    record.ts = state->on;
    record.dur = now - state->on;
    state->run = record.dur; /* the kernel brings its sum up to date when the thread leaves */
  } else {
    state->wait = state->run = 0;
    if (state->runnable) {
      kind = STAY_WAITING;
      state->wait = now - state->runnable;
    }
  }
  fill_stay(&record, task, state, kind);
  seq_write(*(u64 *)(*(u64 *)ctx), &record, sizeof(record));
  return 0;
}
