/* Sends datagrams with sendmmsg and sendmsg to two sockets of a family, and receives them with recvmmsg and recvmsg.
 * Writes a line for each sender and receiver: family, port of the sender, port of the receiver, datagrams, bytes. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 30
#define ROUNDS 3

static int bound(int family, struct sockaddr_storage *address) {
  int made = socket(family, SOCK_DGRAM, 0);
  socklen_t size = sizeof *address;
  memset(address, 0, sizeof *address);
  address->ss_family = family;
  if (family == AF_INET) ((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else ((struct sockaddr_in6 *)address)->sin6_addr = in6addr_loopback;
  if (made < 0 || bind(made, (void *)address, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6))) exit(10);
  getsockname(made, (void *)address, &size);
  return made;
}

static int port(struct sockaddr_storage *address) {
  return ntohs(address->ss_family == AF_INET ? ((struct sockaddr_in *)address)->sin_port : ((struct sockaddr_in6 *)address)->sin6_port);
}

static char bytes[BATCH + 1][100];
static struct iovec parts[BATCH + 1];
static struct mmsghdr messages[BATCH + 1];
static struct sockaddr_storage from[BATCH + 1];

static void one_round(int family, int receivers[2], struct sockaddr_storage to[2]) {
  struct sockaddr_storage own;
  int sender = bound(family, &own), counts[2] = {}, sums[2] = {};
  socklen_t size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
  memset(messages, 0, sizeof messages);
  for (int i = 0; i < BATCH; i++) {
    int which = i % 3 == 0;
    parts[i] = (struct iovec){bytes[i], 10 + i};
    messages[i].msg_hdr = (struct msghdr){&to[which], size, &parts[i], 1, 0, 0, 0};
    counts[which]++;
    sums[which] += 10 + i;
  }
  if (sendmmsg(sender, messages, BATCH, 0) != BATCH) exit(1);
  struct iovec part = {bytes[0], 5};
  struct msghdr single = {&to[0], size, &part, 1, 0, 0, 0};
  if (sendmsg(sender, &single, 0) != 5) exit(2);
  for (int which = 0; which < 2; which++) {
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < counts[which]; i++) {
      parts[i] = (struct iovec){bytes[i], sizeof bytes[i]};
      messages[i].msg_hdr = (struct msghdr){&from[i], sizeof from[i], &parts[i], 1, 0, 0, 0};
    }
    if (recvmmsg(receivers[which], messages, counts[which], 0, 0) != counts[which]) exit(3);
  }
  part.iov_len = sizeof bytes[0];
  single.msg_name = &from[0];
  single.msg_namelen = sizeof from[0];
  if (recvmsg(receivers[0], &single, 0) != 5) exit(4);
  counts[0]++;
  sums[0] += 5;
  for (int which = 0; which < 2; which++) printf("%d %d %d %d %d\n", family, port(&own), port(&to[which]), counts[which], sums[which]);
  close(sender);
}

int main(void) {
  struct sockaddr_storage to[4];
  int receivers[4];
  for (int i = 0; i < 4; i++) receivers[i] = bound(i < 2 ? AF_INET : AF_INET6, &to[i]);
  for (int round = 0; round < ROUNDS; round++) {
    one_round(AF_INET, receivers, to);
    one_round(AF_INET6, receivers + 2, to + 2);
  }
  return 0;
}
