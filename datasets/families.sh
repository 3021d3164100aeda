#!/bin/sh
# A little of everything that the families of tables record: a web server and its client over loopback, datagrams, direct and
# synchronous writes, memory that grows and shrinks, threads that wait for each other, a pipe.
# options: --tables all --profile 99 --offcpu-stacks --event sched:sched_process_wait,signal:signal_generate
set -eu
export PATH=/usr/bin:/bin LC_ALL=C
python3 - <<'PYTHON'
import hashlib, http.server, os, socket, subprocess, sys, threading, urllib.request

with open("page", "wb") as page:
    page.write(os.urandom(300_000))

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
client = "import sys, urllib.request\nfor _ in range(20): urllib.request.urlopen('http://127.0.0.1:%s/page' % sys.argv[1]).read()"
subprocess.run([sys.executable, "-c", client, str(port)], check=True)
server.shutdown()

receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
for number in range(50):
    sender.sendto(b"%d" % number, receiver.getsockname())
    receiver.recv(100)

refused = socket.socket()
try:
    refused.connect(("127.0.0.1", 1))
except ConnectionRefusedError:
    pass

with open("journal", "wb", buffering=0) as journal:
    for number in range(40):
        journal.write(b"%04d" % number * 256)
        os.fsync(journal.fileno())

for size in (8, 32, 64):
    block = bytearray(size << 20)
    digest = hashlib.sha256(block).hexdigest()
    del block

turn = threading.Barrier(2)
threads = [threading.Thread(target=lambda: [turn.wait() for _ in range(200)]) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
PYTHON
dd if=/dev/zero of=direct bs=4k count=100 oflag=direct conv=fsync 2>/dev/null
sort page | gzip -c >page.gz
