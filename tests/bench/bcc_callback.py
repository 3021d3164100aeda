"""BCC's own way: a ring buffer, and a Python function called for each event.

A program of its own under the distribution's python3, with BCC_KERNEL_SOURCE set: bcc_callback.py COMMAND [ARG ...]
Prints {"events", "lost", "cpu"} as JSON: callbacks, events that found the ring full, CPU seconds of this process.
"""

import json
import os
import sys
import time

TEXT = r"""
struct event { u64 ts, dur; s64 nr, ret; u32 pid, tid; };
BPF_RINGBUF_OUTPUT(events, 8192);
BPF_HASH(entered, u32, u64);
BPF_ARRAY(lost, u64, 1);
TRACEPOINT_PROBE(raw_syscalls, sys_enter) {
  u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
  u32 tid = id;
  if (id >> 32 == TARGET) entered.update(&tid, &now);
  return 0;
}
TRACEPOINT_PROBE(raw_syscalls, sys_exit) {
  u64 id = bpf_get_current_pid_tgid();
  u32 tid = id;
  if (id >> 32 != TARGET) return 0;
  u64 *began = entered.lookup(&tid);
  if (!began) return 0;
  struct event event = {.ts = *began, .dur = bpf_ktime_get_ns() - *began, .nr = args->id, .ret = args->ret, .pid = id >> 32, .tid = tid};
  if (events.ringbuf_output(&event, sizeof(event), 0)) lost.increment(0);
  return 0;
}
"""


def main(command: "list[str]") -> int:
    import bcc

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os.execv(command[0], command)
    os.close(reading)
    program = bcc.BPF(text=TEXT.replace("TARGET", str(child)), cflags=["-Wno-macro-redefined"])
    events = program["events"]
    count = 0
    total = 0

    def on_event(context: object, data: object, size: int) -> None:
        nonlocal count, total
        event = events.event(data)
        count += 1
        total += event.dur

    events.open_ring_buffer(on_event)
    began = time.process_time()
    os.write(writing, b"x")
    status = None
    while status is None:
        program.ring_buffer_poll(10)
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = code
    program.ring_buffer_consume()
    used = time.process_time() - began
    print(json.dumps({"events": count, "lost": program["lost"][0].value, "cpu": used}))
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
