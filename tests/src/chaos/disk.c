/* Preloaded into PostgreSQL by the chaos scenario slow_disk: what it syncs and writes takes as many microseconds longer as
   the file named by CHAOS_DISK says at that moment: one number for syncs, and one for writes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *delays;
enum { SYNC, WRITE };

/* Before the server forks: all its processes share the mapping. */
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) delays = mapped;
    close(file);
}

/* Signals do not shorten it, as they do not make a disk faster. */
static void wait_for_disk(int kind) {
    int64_t us = delays ? delays[kind] : 0;
    if (us <= 0) return;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    int before = errno;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
    errno = before;
}

#define SLOW(kind, type, name, parameters, ...)                                                                              \
    type name parameters {                                                                                                 \
        static type(*real) parameters;                                                                                     \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                      \
        wait_for_disk(kind);                                                                                               \
        return real(__VA_ARGS__);                                                                                          \
    }

SLOW(SYNC, int, fsync, (int file), file)
SLOW(SYNC, int, fdatasync, (int file), file)
SLOW(WRITE, ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), file, from, size, at)
SLOW(WRITE, ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), file, from, size, at)
SLOW(WRITE, ssize_t, pwritev, (int file, const struct iovec *from, int count, off_t at), file, from, count, at)
SLOW(WRITE, ssize_t, pwritev64, (int file, const struct iovec *from, int count, off64_t at), file, from, count, at)
