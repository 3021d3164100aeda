#ifndef RINGTAPE_UAPI_LINUX_PTRACE_H
#define RINGTAPE_UAPI_LINUX_PTRACE_H
#include <linux/types.h>
/* Register layouts are ABI (the ptrace user interface), not kernel configuration. */
#if defined(__TARGET_ARCH_arm64)
struct pt_regs {
  u64 regs[31];
  u64 sp;
  u64 pc;
  u64 pstate;
  u64 orig_x0;
  s32 syscallno;
};
#else
struct pt_regs {
  unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
  unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#endif
#endif
