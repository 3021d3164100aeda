/* BCC passes the running kernel's version as LINUX_VERSION_CODE_OVERRIDE. */
#ifndef KERNEL_VERSION
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#endif
#ifndef LINUX_VERSION_CODE
#ifdef LINUX_VERSION_CODE_OVERRIDE
#define LINUX_VERSION_CODE LINUX_VERSION_CODE_OVERRIDE
#else
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 11, 0)
#endif
#endif
