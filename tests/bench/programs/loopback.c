/* TCP over loopback between two processes. `requests N`: N requests of 80 bytes, each answered with 300, on one connection.
 * `connections N`: the same, each on a connection of its own. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST 80
#define ANSWER 300
#define CHECK(condition) do { if (!(condition)) _exit(2); } while (0)

static char buffer[ANSWER];

static void take(int fd, int size) {
  while (size) {
    int got = recv(fd, buffer, size, 0);
    CHECK(got > 0);
    size -= got;
  }
}

static void serve(int listener, long connections, long requests) {
  for (long i = 0; i < connections; i++) {
    int one = accept(listener, 0, 0), yes = 1;
    CHECK(one >= 0);
    setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    for (long j = 0; j < requests; j++) {
      take(one, REQUEST);
      CHECK(send(one, buffer, ANSWER, 0) == ANSWER);
    }
    CHECK(recv(one, buffer, 1, 0) == 0);
    close(one);
  }
}

int main(int count, char **words) {
  CHECK(count == 3);
  long number = atol(words[2]), connections = strcmp(words[1], "requests") ? number : 1, requests = number / connections;
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof(here);
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  CHECK(bind(listener, (struct sockaddr *)&here, size) == 0 && listen(listener, 64) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&here, &size) == 0);
  pid_t child = fork();
  if (child == 0) {
    serve(listener, connections, requests);
    _exit(0);
  }
  for (long i = 0; i < connections; i++) {
    int one = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(one, (struct sockaddr *)&here, size) == 0);
    setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    for (long j = 0; j < requests; j++) {
      CHECK(send(one, buffer, REQUEST, 0) == REQUEST);
      take(one, ANSWER);
    }
    struct linger none = {1, 0};
    shutdown(one, SHUT_WR);
    recv(one, buffer, 1, 0);
    setsockopt(one, SOL_SOCKET, SO_LINGER, &none, sizeof(none)); /* leaves no TIME_WAIT behind: ports last for any number */
    close(one);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  return 0;
}
