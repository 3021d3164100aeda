/* What is read of a struct sock, for the tables that name sockets. */

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10

static u64 (*make_cookie)(u64 socket) = (void *)BPF_FUNC_get_socket_cookie;

/* The kernel gives a socket its cookie at the first question. */
INLINE u64 socket_cookie(u64 socket) {
  u64 cookie = READ(u64, socket, sock_common, skc_cookie);
  return cookie ? cookie : make_cookie(socket);
}

INLINE u16 swap16(u16 value) { return __builtin_bswap16(value); }

/* Addresses and ports of a struct sock_common, or of a copy of one. */
#define FILL_ADDRESSES(record, common)                                                                \
  do {                                                                                                \
    (record)->family = READ(u16, common, sock_common, skc_family);                                    \
    (record)->local_high = (record)->peer_high = (record)->local_low = (record)->peer_low = 0;        \
    (record)->peer_port = (record)->local_port = 0;                                                   \
    if ((record)->family == AF_INET) {                                                                \
      (record)->local_low = __builtin_bswap32(READ(u32, common, sock_common, skc_rcv_saddr));         \
      (record)->peer_low = __builtin_bswap32(READ(u32, common, sock_common, skc_daddr));              \
    }                                                                                                 \
    FILL_ADDRESSES_6(record, common)                                                                  \
    if ((record)->family == AF_INET || (record)->family == AF_INET6) {                                \
      (record)->peer_port = swap16(READ(u16, common, sock_common, skc_dport));                        \
      (record)->local_port = READ(u16, common, sock_common, skc_num);                                 \
    }                                                                                                 \
  } while (0)
#ifdef OFFSET_sock_common__skc_v6_daddr
#define FILL_ADDRESSES_6(record, common)                                                              \
  if ((record)->family == AF_INET6) {                                                                 \
    (record)->local_high = __builtin_bswap64(*(u64 *)ADDRESS(common, sock_common, skc_v6_rcv_saddr)); \
    (record)->local_low = __builtin_bswap64(*(u64 *)(ADDRESS(common, sock_common, skc_v6_rcv_saddr) + 8)); \
    (record)->peer_high = __builtin_bswap64(*(u64 *)ADDRESS(common, sock_common, skc_v6_daddr));      \
    (record)->peer_low = __builtin_bswap64(*(u64 *)(ADDRESS(common, sock_common, skc_v6_daddr) + 8)); \
  }
#else
#define FILL_ADDRESSES_6(record, common) /* a kernel without IPv6 */
#endif

INLINE u64 namespace_of(u64 socket) {
  u64 net = READ(u64, socket, sock_common, skc_net);
  return *(u32 *)(ADDRESS(net, net, ns) + OFFSET_ns_common__inum);
}
