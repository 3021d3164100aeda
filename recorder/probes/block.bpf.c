/* One record for each block I/O request, made when it ends.
 *
 * A request lies in a hash from its beginning to its end. It begins in the thread that submits it (a request is not made in
 * interrupts: that may sleep), which is what it is attributed to; it is issued by whoever runs the queue, and it ends in an
 * interrupt as a rule, where the current task means nothing. */

#define REQUEST_COMPLETE 0
#define REQUEST_AT_ATTACH 1
#define REQUEST_MERGED 2
#define REQUEST_UNFINISHED 3
#define REQUEST_END_UNSEEN 4

#define OPERATION_WRITE 1
#define OPERATION_FLUSH 2
#define FLAG_FUA 512
#define FLAG_PREFLUSH 1024

#define REQUESTS_IN_FLIGHT 16384

/* The record comes first: of what is left here when the probes are detached, the recorder makes rows. */
struct block_open {
  struct block_record record;
  u32 done;      /* bytes completed */
  u8 completed;  /* by the driver; a flush may still have to follow */
  u8 reserved[3];
};
MAP(block_open, HASH, u64, struct block_open, REQUESTS_IN_FLIGHT)

struct block_totals {
  u64 refused;
};
MAP(block_totals, ARRAY, u32, struct block_totals, 1)

static long (*block_forget)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;

INLINE void describe_request(struct block_record *record, u64 request, u64 now) {
  u64 queue = READ(u64, request, request, q), disk = READ(u64, queue, request_queue, disk);
  u64 bio = READ(u64, request, request, bio), device = READ(u64, bio, bio, bi_bdev);
  u32 operation = READ(u32, request, request, cmd_flags);
  record->cookie = CONFIG->cookie;
  record->ts = now;
  record->insert = record->issue = record->service = record->seq = -1;
  record->sector = READ(u64, request, request, __sector);
  record->bytes = READ(u32, request, request, __data_len);
  *(u32 *)&record->disk[0] = *(u32 *)ADDRESS(disk, gendisk, disk_name);
  *(u32 *)&record->disk[4] = *(u32 *)(ADDRESS(disk, gendisk, disk_name) + 4);
  *(u32 *)&record->disk[8] = *(u32 *)(ADDRESS(disk, gendisk, disk_name) + 8);
  *(u32 *)&record->disk[12] = *(u32 *)(ADDRESS(disk, gendisk, disk_name) + 12);
  record->dev = READ(u32, disk, gendisk, major) << 20 | READ(u32, disk, gendisk, first_minor);
  record->flags = operation >> 8;
  record->operation = operation;
  record->cpu = -1;
#ifdef OFFSET_block_device____bd_flags
  record->partition = READ(u32, device, block_device, __bd_flags) & 255; /* since Linux 6.10 */
#else
  record->partition = READ(u8, device, block_device, bd_partno);
#endif
}

INLINE void emit_request(struct block_record *record, u64 now) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_block, &cpu);
  if (!counters || !record->cookie) return; /* one that is followed, but not recorded */
  record->seq = __sync_fetch_and_add(&counters->attempted, 1);
  record->cpu = cpu;
  void *ring = ring_of(MAP_rings_block, cpu);
  if (!ring || ring_output(ring, record, sizeof(*record), NO_WAKEUP) < 0) {
    __sync_fetch_and_add(&counters->lost, 1);
    lose(TABLE_block, CAUSE_RING_FULL, 0, -1, record->dur, now);
  }
}

/* A request whose end nobody told of: the kernel skipped the probe, or it was given back before it was begun. */
INLINE void drop_stale(u64 request, struct block_open *open, u64 now) {
  if (!open->completed) {
    open->record.dur = now - open->record.ts;
    open->record.kind = REQUEST_END_UNSEEN;
  }
  emit_request(&open->record, now);
  block_forget(MAP_block_open, &request);
}

INLINE void begin_request(u64 request, u64 now) {
  u64 task = current_task();
  int wanted = is_recorded(task);
  struct block_open *stale = map_lookup(MAP_block_open, &request);
  if (stale) drop_stale(request, stale, now);
#ifdef ARGS_block_io_start
  /* Of the whole machine, whatever is not known at its end began before the attachment. */
  if (!wanted && CONFIG->select != SELECT_ALL) return;
#endif
  /* Else those of others are followed too: that they are issued by a recorded thread must not make them its own. */
  struct block_open open = {};
  describe_request(&open.record, request, now);
  open.record.pid = READ(u32, task, task_struct, tgid);
  open.record.tid = READ(u32, task, task_struct, pid);
  open.record.kind = REQUEST_UNFINISHED;
  if (!wanted) open.record.cookie = 0;
  if (map_update(MAP_block_open, &request, &open, 0) == 0) return;
  u32 zero = 0, cpu = this_cpu();
  struct block_totals *totals = map_lookup(MAP_block_totals, &zero);
  struct counters *counters = map_lookup(MAP_counters_block, &cpu);
  if (totals) __sync_fetch_and_add(&totals->refused, 1);
  if (!wanted || !counters) return;
  __sync_fetch_and_add(&counters->noted, 1);
  lose(TABLE_block, CAUSE_NO_STORAGE, 0, -1, 0, now);
}

/* Every request comes here in the thread that submits it, but for the flushes that the kernel makes of those asked for. */
PROBE(block_io_start) {
  begin_request(ctx[0], now_ns());
  return 0;
}

/* Whether a request that is not known begins here. */
INLINE int begins_late(u64 request) {
#ifdef ARGS_block_io_start
  return CONFIG->select == SELECT_ALL && (u8)READ(u32, request, request, cmd_flags) == OPERATION_FLUSH;
#else
  return 1;
#endif
}

PROBE(block_rq_insert) {
  u64 request = ctx[0], now = now_ns();
  struct block_open *open = map_lookup(MAP_block_open, &request);
  if (!open && begins_late(request)) {
    begin_request(request, now);
    open = map_lookup(MAP_block_open, &request);
  }
  if (open && open->record.insert < 0) open->record.insert = now - open->record.ts;
  return 0;
}

PROBE(block_rq_issue) {
  u64 request = ctx[0], now = now_ns();
  struct block_open *open = map_lookup(MAP_block_open, &request);
  if (!open && begins_late(request)) {
    begin_request(request, now);
    open = map_lookup(MAP_block_open, &request);
  }
  if (!open) return 0;
  struct block_record *record = &open->record;
  record->issue = now - record->ts;
  record->issuer = READ(u32, current_task(), task_struct, pid);
  if (!open->done) {
    record->sector = READ(u64, request, request, __sector); /* as merging has made it */
    record->bytes = READ(u32, request, request, __data_len);
  }
  return 0;
}

PROBE(block_rq_requeue) {
  u64 request = ctx[0];
  struct block_open *open = map_lookup(MAP_block_open, &request);
  if (!open) return 0;
  open->record.requeues++;
  open->record.issue = -1;
  open->record.issuer = 0;
  return 0;
}

/* Of two requests that lie side by side, this one is given up: the other goes on with the bytes of both. */
PROBE(block_rq_merge) {
  u64 request = ctx[0], now = now_ns();
  struct block_open *open = map_lookup(MAP_block_open, &request);
  if (!open) return 0;
  open->record.dur = now - open->record.ts;
  open->record.kind = REQUEST_MERGED;
  emit_request(&open->record, now);
  block_forget(MAP_block_open, &request);
  return 0;
}

INLINE void complete_unknown(u64 request, u8 status, u32 bytes) {
  u32 zero = 0;
  struct block_totals *totals = map_lookup(MAP_block_totals, &zero);
  if (CONFIG->select != SELECT_ALL || !totals || totals->refused) return;
  u64 now = now_ns(), start = READ(u64, request, request, start_time_ns), issue = READ(u64, request, request, io_start_time_ns);
  struct block_record record = {};
  describe_request(&record, request, now);
  if (start && start < now) {
    record.ts = start;
    record.dur = now - start;
    if (issue >= start && issue < now) {
      record.issue = issue - start;
      record.service = now - issue;
    }
  }
  record.bytes = bytes;
  record.status = status;
  record.kind = REQUEST_AT_ATTACH;
#ifndef ARGS_block_io_start
  if (!bytes && record.operation == OPERATION_WRITE) {
    /* A flush that was asked for comes by nowhere else, and has lost its flag by now. */
    record.kind = REQUEST_COMPLETE;
    record.flags |= FLAG_PREFLUSH;
    record.issue = record.service = -1;
  }
#endif
  emit_request(&record, now);
}

/* Whether a request may be part of a flush sequence: the flags are those that it was made with, the sequence takes them off. */
INLINE int flushes_around(struct block_record *record) {
#ifdef ARGS_block_io_start
  return record->operation == OPERATION_WRITE && (record->flags & (FLAG_FUA | FLAG_PREFLUSH));
#else
  return record->operation == OPERATION_WRITE;
#endif
}

PROBE(block_rq_complete) {
  u64 request = ctx[0];
  u32 bytes = ctx[2], left = READ(u32, request, request, __data_len);
  u8 status = ctx[1];
  struct block_open *open = map_lookup(MAP_block_open, &request);
  if (!open) {
    if (bytes >= left) complete_unknown(request, status, bytes);
    return 0;
  }
  u64 now = now_ns();
  struct block_record *record = &open->record;
  open->done += bytes;
  if (status) record->status = status;
  if (bytes < left) return 0; /* a part of it */
  if (!open->completed && record->issue >= 0) record->service = now - record->ts - record->issue;
  record->bytes = open->done;
  record->dur = now - record->ts;
  record->kind = REQUEST_COMPLETE;
  if (!open->completed && flushes_around(record) && READ(u64, request, request, end_io)) {
    open->completed = 1; /* part of a flush sequence, which completes it once more at its end */
    return 0;
  }
  emit_request(record, now);
  block_forget(MAP_block_open, &request);
  return 0;
}
