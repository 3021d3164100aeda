/* Which threads are recorded: the mark is inherited at clone, and the threads that bear it are counted. */

MAP(targets, HASH, u32, u32, 1024)

INLINE void count_live(s64 change) {
  u32 zero = 0;
  struct status *status = map_lookup(MAP_status, &zero);
  if (status) __sync_fetch_and_add(&status->live, change);
}

/* Runs in the creator before the child can run; sched_process_fork would not tell of io_uring workers. */
PROBE(task_newtask) {
  u64 child = ctx[0];
  struct task_state *parent = recorded(current_task());
  if (!parent) return 0;
  struct task_state *state = task_storage(MAP_state, child, 0, CREATE);
  if (!state) return 0;
  state->traced = parent->traced;
  state->child = 1;
  if (state->traced == TRACED) count_live(1);
  return 0;
}

PROBE(sched_process_exit) {
  u64 task = ctx[0];
  struct task_state *state = task_storage(MAP_state, task, 0, 0);
  if (state && state->traced) count_live(-1);
  return 0;
}

/* Run once when the newtask probe is attached: marks the threads of --pid, and every thread that may be inside a call. */
ITERATOR(attach) {
  u64 task = ctx[1];
  if (!task) return 0;
  u32 process = READ(u32, task, task_struct, tgid);
  if (is_own(process) || READ(u32, task, task_struct, pid) == 0) return 0;
  if (CONFIG->select == SELECT_MARKED && !map_lookup(MAP_targets, &process)) return 0;
  struct task_state *state = task_storage(MAP_state, task, 0, CREATE);
  if (!state) return 0;
  if (state->traced || state->at_attach) return 0; /* an earlier pass was here */
  state->at_attach = 1;
  state->entered = state->since = now_ns();
  state->args[0] = READ(u64, task, task_struct, utime);
  if (CONFIG->select == SELECT_MARKED) {
    state->traced = TRACED;
    count_live(1);
  }
  u64 seq = *(u64 *)(*(u64 *)ctx);
#ifdef TABLE_processes
  struct processes_record record = {};
  describe(&record, task, PROCESS_EXISTING);
  record.ts = state->since; /* so that all tables tell of the same beginning */
  seq_write(seq, &record, sizeof(record));
#else
  u64 one = 1;
  seq_write(seq, &one, sizeof(one));
#endif
  return 0;
}
