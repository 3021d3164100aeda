/* Connections. What a socket needs lies in its own storage: a pointer that is used again, or a record that was lost, cannot
 * make one of two sockets, and an accepted socket begins with a copy of what its listener has. */

#include "socket.bpf.h"

#define SOCKET_STATE 0
#define SOCKET_RETRANSMIT 1
#define SOCKET_RETRANSMIT_SYNACK 2
#define SOCKET_RESET_SENT 3
#define SOCKET_RESET_RECEIVED 4
#define SOCKET_ACCEPT 5
#define SOCKET_DROP 6
#define SOCKET_EXISTING 7
#define SOCKET_OPEN 8

#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_UDPLITE 136
#define SOCK_DONE 2 /* bit 1 of the flags: tcp_fin() has been here */
#define PF_KTHREAD 0x200000

struct socket_state {
  u32 pid;
  u32 tid;
  u8 listed;
  u8 reserved[7];
};
MAP(socket_state, SK_STORAGE, u32, struct socket_state, 0)

static struct socket_state *(*socket_storage)(void *map, u64 socket, void *value, u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*socket_storage_delete)(void *map, u64 socket) = (void *)BPF_FUNC_sk_storage_delete;
static u64 (*tcp_of)(u64 socket) = (void *)137; /* bpf_skc_to_tcp_sock, Linux 5.9 */
static u64 (*socket_of_file)(u64 file) = (void *)162; /* bpf_sock_from_file, Linux 5.11 */

INLINE void head_socket(struct sockets_record *record, u64 seq, u8 kind) {
  record->cookie = CONFIG->cookie;
  record->ts = now_ns();
  record->seq = seq;
  record->length = record->reason = 0;
  record->fd = -1;
  record->cpu = this_cpu();
  record->kind = kind;
}

INLINE void no_counters(struct sockets_record *record) {
  record->bytes_sent = record->bytes_retrans = record->bytes_acked = record->bytes_received = 0;
  record->segs_out = record->segs_in = record->retrans = record->srtt = 0;
  record->rtt_min = -1;
  record->fin = 0;
}

/* Of a socket that the verifier knows to be one. */
INLINE void describe_socket(struct sockets_record *record, u64 socket, u64 cookie, struct socket_state *state) {
  record->socket = cookie;
  record->netns = namespace_of(socket);
  FILL_ADDRESSES(record, socket);
  record->pid = state ? state->pid : 0;
  record->tid = state ? state->tid : 0;
  record->protocol = READ(u16, socket, sock, sk_protocol);
  record->error = READ(u32, socket, sock, sk_err);
  record->state = record->old = READ(u8, socket, sock_common, skc_state);
  u64 tcp = tcp_of(socket);
  if (!tcp) {
    no_counters(record);
    return;
  }
  /* A closed socket has given its port back; this member keeps it. */
  record->local_port = swap16(READ(u16, tcp, inet_sock, inet_sport));
  record->bytes_sent = READ(u64, tcp, tcp_sock, bytes_sent);
  record->bytes_retrans = READ(u64, tcp, tcp_sock, bytes_retrans);
  record->bytes_acked = READ(u64, tcp, tcp_sock, bytes_acked);
  record->bytes_received = READ(u64, tcp, tcp_sock, bytes_received);
  record->segs_out = READ(u32, tcp, tcp_sock, segs_out);
  record->segs_in = READ(u32, tcp, tcp_sock, segs_in);
  record->retrans = READ(u32, tcp, tcp_sock, total_retrans);
  record->srtt = (u64)(READ(u32, tcp, tcp_sock, srtt_us) >> 3) * 1000;
  u32 smallest = *(u32 *)(ADDRESS(tcp, tcp_sock, rtt_min) + 4);
  record->rtt_min = smallest == ~0U ? -1 : (s64)smallest * 1000;
  record->fin = (READ(u64, socket, sock_common, skc_flags) & SOCK_DONE) != 0;
}

INLINE void lose_socket(struct counters *counters) {
  __sync_fetch_and_add(&counters->lost, 1);
  lose(TABLE_sockets, CAUSE_RING_FULL, 0, -1, 0, now_ns());
}

INLINE struct sockets_record *reserve_socket(u8 kind) {
  u32 cpu = this_cpu();
  struct counters *counters = map_lookup(MAP_counters_sockets, &cpu);
  if (!counters) return 0;
  u64 seq = __sync_fetch_and_add(&counters->attempted, 1);
  void *ring = ring_of(MAP_rings_sockets, cpu);
  struct sockets_record *record = ring ? ring_reserve(ring, sizeof(*record), 0) : 0;
  if (!record) {
    lose_socket(counters);
    return 0;
  }
  head_socket(record, seq, kind);
  return record;
}

INLINE void own(struct socket_state *state, u64 task) {
  state->pid = READ(u32, task, task_struct, tgid);
  state->tid = READ(u32, task, task_struct, pid);
}

/* A recorded thread does something with a socket: whatever befalls that one in interrupts is recorded from here on. */
INLINE struct socket_state *touch_socket(u64 socket, u64 task) {
  struct socket_state *state = socket_storage(MAP_socket_state, socket, 0, CREATE);
  if (state) own(state, task);
  return state;
}

INLINE struct sockets_record *fill_socket(u64 socket, struct socket_state *state, u8 kind) {
  if (!state && CONFIG->select != SELECT_ALL) return 0;
  u64 cookie = socket_cookie(socket); /* also where the record is lost: accept cannot make it */
  struct sockets_record *record = reserve_socket(kind);
  if (record) describe_socket(record, socket, cookie, state);
  return record;
}

/* In an interrupt the current task has nothing to do with the socket. */
INLINE struct socket_state *known_socket(u64 socket) {
  return socket_storage(MAP_socket_state, socket, 0, CONFIG->select == SELECT_ALL ? CREATE : 0);
}

INLINE struct sockets_record *begin_socket(u64 socket, u8 kind) { return fill_socket(socket, known_socket(socket), kind); }

PROBE(inet_sock_set_state) {
  u64 socket = ctx[0];
  u8 old = ctx[1], new = ctx[2];
  struct socket_state *state = known_socket(socket);
  if (old == TCP_LISTEN && new == TCP_SYN_RECV) {
    /* A child has just been cloned from its listener: neither addresses nor cookie are its own yet. The next row has all. */
    if (state) state->tid = state->listed = 0;
    return 0;
  }
  /* Only connect, listen, shutdown and close make these; all others may come from an interrupt. */
  if (new == TCP_SYN_SENT || new == TCP_LISTEN || new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK || old == TCP_LISTEN) {
    u64 task = current_task();
    if (!(READ(u32, task, task_struct, flags) & PF_KTHREAD) && is_recorded(task)) {
      if (state) own(state, task);
      else state = touch_socket(socket, task);
    }
  }
  struct sockets_record *record = fill_socket(socket, state, SOCKET_STATE);
  if (!record) return 0;
  record->old = old;
  record->state = new;
  ring_submit(record, NO_WAKEUP);
  return 0;
}

PROBE(tcp_retransmit_skb) {
  u64 socket = ctx[0], buffer = ctx[1];
  if (!socket) return 0;
  struct sockets_record *record = begin_socket(socket, SOCKET_RETRANSMIT);
  if (!record) return 0;
  record->error = 0;
#if ARGS_tcp_retransmit_skb > 2
  record->error = -(s32)ctx[2]; /* since Linux 6.17; before, only those that could be sent were told */
#endif
  record->length = READ(u32, buffer, sk_buff, len);
  ring_submit(record, NO_WAKEUP);
  return 0;
}

/* The socket is the listener; the peer is known to the request only. */
PROBE(tcp_retransmit_synack) {
  u64 socket = ctx[0], request = ctx[1];
  if (!socket) return 0;
  struct sockets_record *record = begin_socket(socket, SOCKET_RETRANSMIT_SYNACK);
  if (!record) return 0;
  FILL_ADDRESSES(record, request);
  ring_submit(record, NO_WAKEUP);
  return 0;
}

PROBE(tcp_receive_reset) {
  u64 socket = ctx[0];
  if (!socket) return 0;
  struct sockets_record *record = begin_socket(socket, SOCKET_RESET_RECEIVED);
  if (record) ring_submit(record, NO_WAKEUP);
  return 0;
}

/* Without a full socket (a port that nobody listens on) there is no owner: such a reset is seen under --all only. */
PROBE(tcp_send_reset) {
  u64 socket = ctx[0];
  struct sockets_record *record = 0;
  if (socket) {
    record = begin_socket(socket, SOCKET_RESET_SENT);
  } else if (CONFIG->select == SELECT_ALL) {
    record = reserve_socket(SOCKET_RESET_SENT);
    if (record) {
      no_counters(record);
      record->socket = record->netns = record->local_high = record->local_low = record->peer_high = record->peer_low = 0;
      record->pid = record->tid = record->local_port = record->peer_port = record->error = 0;
      record->family = record->state = record->old = 0;
      record->protocol = IPPROTO_TCP;
    }
  }
  if (!record) return 0;
#if ARGS_tcp_send_reset > 2
  record->reason = ctx[2];
#endif
  ring_submit(record, NO_WAKEUP);
  return 0;
}

/* The receive buffer is full, or a filter refused: the datagram is gone. */
PROBE(udp_fail_queue_rcv_skb) {
  u64 socket = ctx[1];
  if (!socket) return 0;
  struct sockets_record *record = begin_socket(socket, SOCKET_DROP);
  if (!record) return 0;
  record->error = -(s32)ctx[0];
#if ARGS_udp_fail_queue_rcv_skb > 2
  record->length = READ(u32, ctx[2], sk_buff, len);
#endif
  ring_submit(record, NO_WAKEUP);
  return 0;
}

#ifdef __TARGET_ARCH_arm64
#define IS_ACCEPT(nr) ((nr) == 202 || (nr) == 242)
#define IS_COMPAT_ACCEPT(nr, args) ((nr) == 285 || (nr) == 366)
#define ACCEPT_NATIVE 4
#else
#define IS_ACCEPT(nr) ((nr) == 43 || (nr) == 288)
#define IS_COMPAT_ACCEPT(nr, args) ((nr) == 364 || ((nr) == 102 && ((args)[0] == 5 || (args)[0] == 18)))
#define ACCEPT_NATIVE 1
#endif
#define COMMON_BYTES (OFFSET_sock_common__skc_cookie + 8)

/* No tracepoint tells who accepts. The call does: used by syscalls.bpf.c, with what accept returned. The socket is found
 * by way of the descriptor, in raw memory: another thread may close it at this moment. */
INLINE void socket_accepted(u64 task, struct task_state *call, s64 fd, u64 time) {
  s32 nr = call->nr & ~0x40000000; /* x32 */
  if (call->abi == 2 || call->abi == 5 ? !IS_COMPAT_ACCEPT(nr, call->args) : !IS_ACCEPT(nr)) return;
  if (fd < 0) return;
  u64 files = READ(u64, task, task_struct, files);
  u64 table = READ(u64, files, files_struct, fdt);
  u64 entries = READ(u64, table, fdtable, fd), file = 0, back = 0, holder = 0, socket = 0, net = 0;
  u64 common[(COMMON_BYTES + 7) / 8] = {};
  read_kernel(&file, sizeof(file), entries + 8 * fd);
  read_kernel(&holder, sizeof(holder), ADDRESS(file, file, private_data));
  read_kernel(&back, sizeof(back), ADDRESS(holder, socket, file));
  if (!file || back != file) return;
  read_kernel(&socket, sizeof(socket), ADDRESS(holder, socket, sk));
  if (read_kernel(common, sizeof(common), socket) < 0) return;
  u16 family = READ(u16, common, sock_common, skc_family);
  u64 cookie = READ(u64, common, sock_common, skc_cookie);
  if ((family != AF_INET && family != AF_INET6) || !cookie) return;
  struct sockets_record *record = reserve_socket(SOCKET_ACCEPT);
  if (!record) return;
  no_counters(record);
  record->ts = time;
  record->socket = cookie;
  record->error = 0;
  FILL_ADDRESSES(record, common);
  record->old = record->state = READ(u8, common, sock_common, skc_state);
  read_kernel(&net, sizeof(net), ADDRESS(READ(u64, common, sock_common, skc_net), net, ns) + OFFSET_ns_common__inum);
  record->netns = (u32)net;
  u16 sort = 0;
  read_kernel(&sort, sizeof(sort), ADDRESS(socket, sock, sk_protocol));
  record->protocol = sort;
  record->pid = READ(u32, task, task_struct, tgid);
  record->tid = READ(u32, task, task_struct, pid);
  record->fd = fd;
  ring_submit(record, NO_WAKEUP);
}

/* One row for each connection and listener, under the first descriptor by which it is found. The kernel runs the program
 * again for a socket whose row did not fit into what was to be read at once. */
INLINE int list_socket(u64 *ctx, u64 socket, struct socket_state *state, u8 kind) {
  struct sockets_record record;
  u8 current = READ(u8, socket, sock_common, skc_state);
  u16 protocol = READ(u16, socket, sock, sk_protocol);
  if (current == TCP_CLOSE || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE) return 0;
  head_socket(&record, -1, kind);
  describe_socket(&record, socket, socket_cookie(socket), state);
  record.cpu = -1;
  record.fd = (u32)ctx[2];
  return seq_write(*(u64 *)(*(u64 *)ctx), &record, sizeof(record));
}

INLINE u64 internet_socket(u64 file) {
  u64 holder = socket_of_file(file);
  if (!holder) return 0;
  u64 socket = READ(u64, holder, socket, sk);
  if (!socket) return 0;
  u16 family = READ(u16, socket, sock_common, skc_family);
  return family == AF_INET || family == AF_INET6 ? socket : 0;
}

/* Run once when the probes are attached: sockets that are open already, above all listeners, whose children inherit. */
FILE_ITERATOR(sockets_attach) {
  u64 task = ctx[1], file = ctx[3];
  if (!task || !file) return 0;
  if (CONFIG->select == SELECT_MARKED) {
    struct task_state *marked = task_storage(MAP_state, task, 0, 0);
    if (!marked || !marked->traced) return 0; /* the launcher counts: the command inherits its descriptors */
  } else if (!is_recorded(task)) {
    return 0;
  }
  u64 socket = internet_socket(file);
  if (!socket || socket_storage(MAP_socket_state, socket, 0, 0)) return 0;
  struct socket_state *state = socket_storage(MAP_socket_state, socket, 0, CREATE);
  if (!state) return 0;
  own(state, task);
  state->tid = 0;
  if (list_socket(ctx, socket, state, SOCKET_EXISTING)) socket_storage_delete(MAP_socket_state, socket);
  return 0;
}

/* Run once after the probes are detached: what is still open, with its totals. */
FILE_ITERATOR(sockets_detach) {
  u64 task = ctx[1], file = ctx[3];
  if (!task || !file) return 0;
  u64 socket = internet_socket(file);
  if (!socket) return 0;
  struct socket_state *state = socket_storage(MAP_socket_state, socket, 0, 0);
  if (state && !state->listed && list_socket(ctx, socket, state, SOCKET_OPEN) == 0) state->listed = 1;
  return 0;
}
