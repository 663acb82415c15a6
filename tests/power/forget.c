/* Records every write, truncation, unlinking and sync below a folder, in the order in which they
 * happen, so that a test can tell what a disk may hold after a power cut at any moment: what was
 * synced for certain, of the rest whatever it likes.
 *
 * cc -shared -fPIC -o forget.so forget.c -ldl
 * LD_PRELOAD=forget.so FORGET_ROOT=/folder FORGET_LOG=/log program
 *
 * A record: kind (W T U S), length of the path (u32), path, offset (u64), length (u64), bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static int out = -1;

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("FORGET_LOG");
    root = getenv("FORGET_ROOT");
    if (root && log)
        out = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        long done = syscall(SYS_write, out, at, length);
        if (done <= 0) abort();
        at += done;
        length -= done;
    }
}

static void record(char kind, const char *path, uint64_t offset, const void *bytes, uint64_t length) {
    uint32_t name = strlen(path);
    put(&kind, 1);
    put(&name, 4);
    put(path, name);
    put(&offset, 8);
    put(&length, 8);
    if (bytes) put(bytes, length);
}

/* The path of an open file below the root. */
static int known(int fd, char *path, size_t size) {
    char link[64];
    if (out < 0 || fd == out) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strncmp(path, root, strlen(root)) == 0;
}

static ssize_t written(int fd, const void *bytes, size_t length, int64_t offset) {
    char path[4096];
    if (!known(fd, path, sizeof path))
        return offset < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    uint64_t at = offset < 0 ? (uint64_t)lseek(fd, 0, SEEK_CUR) : (uint64_t)offset;
    ssize_t done =
        offset < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, offset);
    if (done > 0) record('W', path, at, bytes, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return written(fd, bytes, length, offset); }

static int truncated(int fd, off_t size) {
    char path[4096];
    int below = known(fd, path, sizeof path);
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, fd, size);
    if (below && done == 0) record('T', path, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

/* The order is enough: nothing is really synced, which would only cost time. */
static int synced(int fd) {
    char path[4096];
    if (known(fd, path, sizeof path)) {
        pthread_mutex_lock(&lock);
        record('S', path, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (out >= 0 && done == 0 && strncmp(path, root, strlen(root)) == 0) record('U', path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
