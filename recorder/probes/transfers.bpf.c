/* Sends and receives, at the one place where all families pass: sock_sendmsg() and sock_recvmsg(). They are called by
 * threads, never from interrupts; should one come in between another all the same, it is counted as lost: by itself in
 * `reserved`, and by the one that it interrupted in the counters. */

#include "socket.bpf.h"

#define DIRECTION_SEND 0
#define DIRECTION_RECEIVE 1
#define SOCK_STREAM 1

/* Raw memory: the peer may go away at any time. */
INLINE u64 unix_peer(u64 socket) {
  u64 peer = 0, cookie = 0;
#ifdef OFFSET_unix_sock__peer
  read_kernel(&peer, sizeof(peer), ADDRESS(socket, unix_sock, peer));
  if (peer) read_kernel(&cookie, sizeof(cookie), ADDRESS(peer, sock_common, skc_cookie));
#endif
  return cookie;
}

INLINE int emit_transfer(u64 socket, s32 result, s32 flags, u8 direction) {
  u64 task = current_task();
  if (!socket) return 0;
  struct task_state *state = 0;
  if (CONFIG->select == SELECT_MARKED) {
    state = task_storage(MAP_state, task, 0, 0);
    if (!state || state->traced != TRACED) return 0;
  } else {
    if (!is_recorded(task)) return 0;
    state = task_storage(MAP_state, task, 0, 0);
  }
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_transfers, &cpu);
  if (!counters) return 0;
#ifdef TABLE_sockets
  u16 sort = READ(u16, socket, sock_common, skc_family);
  if (sort == AF_INET || sort == AF_INET6) touch_socket(socket, task);
#endif
  volatile u64 *busy = &counters->reserved[0], *interrupting = &counters->reserved[1];
  if (*busy) {
    *interrupting += 1;
    lose(TABLE_transfers, CAUSE_RING_FULL, 0, -1, 0, now_ns());
    return 0;
  }
  *busy = 1;
  u64 seq = counters->attempted++;
  struct transfers_record *record = free_slot(MAP_ring_transfers, counters, cpu, CONFIG->slots[TABLE_transfers]);
  if (!record) {
    counters->lost++;
    lose(TABLE_transfers, CAUSE_RING_FULL, 0, -1, 0, now_ns());
    *busy = 0;
    return 0;
  }
  record->ts = now_ns();
  record->socket = socket_cookie(socket);
  record->netns = namespace_of(socket);
  record->seq = seq;
  record->call = state && state->pending ? state->entered : 0;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->result = result;
  record->flags = flags;
  record->protocol = READ(u16, socket, sock, sk_protocol);
  record->cpu = cpu;
  record->type = READ(u16, socket, sock, sk_type);
  record->direction = direction;
  FILL_ADDRESSES(record, socket);
  if (record->family == AF_UNIX) record->peer_low = unix_peer(socket);
  if (!record->local_port && (record->family == AF_INET || record->family == AF_INET6) && record->type == SOCK_STREAM) {
    /* A closed socket, of which only the error is fetched, has given its port back; this member keeps it. */
    u16 port = 0;
    read_kernel(&port, sizeof(port), ADDRESS(socket, inet_sock, inet_sport));
    record->local_port = swap16(port);
  }
  publish(counters);
  if (*interrupting) {
    counters->attempted += *interrupting;
    counters->lost += *interrupting;
    *interrupting = 0;
  }
  *busy = 0;
  return 0;
}

PROBE(sock_send_length) { return emit_transfer(ctx[0], ctx[1], ctx[2], DIRECTION_SEND); }
PROBE(sock_recv_length) { return emit_transfer(ctx[0], ctx[1], ctx[2], DIRECTION_RECEIVE); }
