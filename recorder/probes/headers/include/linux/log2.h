#ifndef RINGTAPE_LINUX_LOG2_H
#define RINGTAPE_LINUX_LOG2_H
/* BCC's BPF_STACK_TRACE sizes its maps with it. */
#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((n) - 1)))
#endif
