/* BCC forces this file into every program and checks this one setting of the kernel; bpf(2) itself answers it. */
#define CONFIG_BPF_SYSCALL 1
