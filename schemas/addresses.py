"""Columns that name a socket: its identity, its namespace, and the addresses of its two ends."""

from __future__ import annotations

from ringtape.schemas.columns import Column

FAMILIES = {1: "unix", 2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet"}
"""Address families (AF_*) that have a name here; others read ``family_<number>``."""
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP", 136: "UDP-Lite", 262: "MPTCP"}
"""Protocols (IPPROTO_*) of the families IPv4 and IPv6."""

SOCKET = Column("socket", "i64", "cookie of the socket, the same number for ever and for no other socket; 0: unknown", "", "bpf_get_socket_cookie()")
NETNS = Column("netns", "i64", "network namespace of the socket, by the inode of its file", "", "sock_common.skc_net.net.ns.inum")
LOCAL_HIGH = Column("local_high", "i64", "local address: the first half of an IPv6 address (big-endian); IPv4: 0", "", "sock_common.skc_v6_rcv_saddr")
LOCAL_LOW = Column("local_low", "i64", "local address: the other half; IPv4: the address as a number", "", "sock_common.skc_rcv_saddr")
PEER_HIGH = Column("peer_high", "i64", "address of the peer, as local_high", "", "sock_common.skc_v6_daddr")
PEER_LOW = Column("peer_low", "i64", "address of the peer, as local_low; 0 where there is none", "", "sock_common.skc_daddr")
LOCAL_PORT = Column("local_port", "i32", "local port; 0: none yet", "", "sock_common.skc_num, inet_sock.inet_sport")
PEER_PORT = Column("peer_port", "i32", "port of the peer; 0: none", "", "sock_common.skc_dport")
FAMILY = Column("family", "i8", "address family", "", "sock_common.skc_family", FAMILIES)
PROTOCOL = Column(
    "protocol",
    "i16",
    "protocol within the family; the names are those of IPv4 and IPv6, other families count theirs from 0 on",
    "",
    "sock.sk_protocol",
    {0: "default", **PROTOCOLS},
)
