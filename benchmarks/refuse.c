/* Preloaded into a process: from the SHIM_AFTERth write into SHIM_FOLDER on, every write there fails with SHIM_ERRNO.
   With SHIM_COUNT, the number of such writes is put into that file when the process ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long writes;

static int refused(int fd)
{
    const char *folder = getenv("SHIM_FOLDER");
    char link[64], path[PATH_MAX];
    if (!folder || fd < 3)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)))
        return 0;
    long number = __sync_add_and_fetch(&writes, 1);
    const char *after = getenv("SHIM_AFTER");
    if (!after || number < atol(after))
        return 0;
    errno = atoi(getenv("SHIM_ERRNO"));
    return 1;
}

ssize_t write(int fd, const void *data, size_t count)
{
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return refused(fd) ? -1 : real(fd, data, count);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at)
{
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return refused(fd) ? -1 : real(fd, data, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    return refused(fd) ? -1 : real(fd, parts, count);
}

int fsync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return refused(fd) ? -1 : real(fd);
}

__attribute__((destructor)) static void count(void)
{
    const char *name = getenv("SHIM_COUNT");
    FILE *file = name ? fopen(name, "w") : NULL;
    if (file) {
        fprintf(file, "%ld", writes);
        fclose(file);
    }
}
