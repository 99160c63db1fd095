/* Preloaded into a process: from the SHIM_AFTERth write into SHIM_FOLDER on, every write there fails with SHIM_ERRNO;
   where that is EMFILE, which no write gives, every open() and openat() there instead, counted likewise.
   With SHIM_COUNT, the numbers of such writes and openings are put into that file when the process ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long writes, opened;

static int due(long *count)
{
    const char *after = getenv("SHIM_AFTER");
    long number = __sync_add_and_fetch(count, 1);
    if (!after || number < atol(after))
        return 0;
    errno = atoi(getenv("SHIM_ERRNO"));
    return 1;
}

static int openings(void)
{
    const char *number = getenv("SHIM_ERRNO");
    return number && atoi(number) == EMFILE;
}

static int refused(int fd)
{
    const char *folder = getenv("SHIM_FOLDER");
    char link[64], path[PATH_MAX];
    if (!folder || fd < 3 || openings())
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)))
        return 0;
    return due(&writes);
}

static int shut(const char *path)
{
    const char *folder = getenv("SHIM_FOLDER");
    return folder && (openings() || getenv("SHIM_COUNT")) && !strncmp(path, folder, strlen(folder)) && due(&opened);
}

#define OPENS(name, before, given)                                                                                     \
    int name(before const char *path, int flags, ...)                                                                  \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        int (*real)() = dlsym(RTLD_NEXT, #name);                                                                       \
        return shut(path) ? -1 : real(given path, flags, mode);                                                        \
    }
#define NOTHING
#define FOLDER_NUMBER int at,
#define AT at,
OPENS(open, NOTHING, NOTHING)
OPENS(open64, NOTHING, NOTHING)
OPENS(openat, FOLDER_NUMBER, AT)
OPENS(openat64, FOLDER_NUMBER, AT)

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
        fprintf(file, "[%ld, %ld]", writes, opened);
        fclose(file);
    }
}
