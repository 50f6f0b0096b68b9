/* Lets a User Mode Linux run on a processor with more registers than it knows: ptrace(2), preloaded by vm.sh.
 *
 * Linux takes a process's extended state only whole ("A whole standard-format XSAVE buffer is needed"), and the
 * kernel of Debian's user-mode-linux has room for AVX-512, not for what has come since (AMX). What it leaves out is
 * put back here as it was.
 */
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEKTEXT = 1, PEEKUSER = 3, GETREGSET = 0x4204, SETREGSET = 0x4205, XSTATE = 0x202 };

static char whole[1 << 15] __attribute__((aligned(64)));

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, long), address = va_arg(arguments, long), data = va_arg(arguments, long);
    va_end(arguments);

    if ((request == GETREGSET || request == SETREGSET) && address == XSTATE) {
        struct iovec *given = (struct iovec *)data, all = { whole, sizeof whole };
        long failed = syscall(SYS_ptrace, GETREGSET, pid, XSTATE, &all);
        if (failed)
            return failed;
        if (given->iov_len > all.iov_len)
            given->iov_len = all.iov_len;
        if (request == GETREGSET) {
            memcpy(given->iov_base, whole, given->iov_len);
            return 0;
        }
        memcpy(whole, given->iov_base, given->iov_len);
        return syscall(SYS_ptrace, SETREGSET, pid, XSTATE, &all);
    }
    if (request >= PEEKTEXT && request <= PEEKUSER) {
        long word;
        return syscall(SYS_ptrace, request, pid, address, &word) ? -1 : word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
