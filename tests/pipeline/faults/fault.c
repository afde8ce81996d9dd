/* An LD_PRELOAD shim: the Nth call that changes something below one folder fails, or is the process's last.
 *
 * Counted are the calls by which Python and SQLite change files: open for writing, write, sync, rename, unlink, truncate
 * and mkdir. `fault_arm` (from ctypes, in a forked child) starts it; `fault_only`, called before it, restricts the count
 * to calls and paths that match two patterns. What is hit, and with `trace` every counted call, is written to the descriptor
 * `report`: "HIT 12\tpwrite\tc/collection.db\t\n". `fault_record` writes every change with its bytes to a file, from which
 * `power_cut.py` makes the states that a power cut may leave.
 *
 * cc -shared -fPIC -O1 -o fault.so fault.c -ldl -lpthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { OFF, FAIL, FULL, SHORT, KILL_BEFORE, KILL_AFTER, TORN };
/* FAIL: the calls of the window fail. FULL: of them, those that need room, and the first one whatever it is.
 * SHORT: like FULL, but the first write writes half. TORN: half of the write, then the end. */

#define FDS 4096
#define NAME 512

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[NAME];
static size_t root_length;
static long nth, window, counted;
static int mode = OFF, error_number = EIO, report = -1, trace;
static char only_call[32], only_path[NAME]; /* empty: all */
static char *opened[FDS]; /* path below the root, of descriptors opened there */

static int record = -1; /* descriptor of the recording */
/* Held while a recorded call is made, so that the recording has them in the order in which they were made. */
static pthread_mutex_t order = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static void say(const char *what, long number, const char *call, const char *path, const char *path2)
{
    char line[3 * NAME];
    int length = snprintf(line, sizeof line, "%s %ld\t%s\t%s\t%s\n", what, number, call, path, path2 ? path2 : "");
    if (report >= 0)
        syscall(SYS_write, report, line, (size_t)length);
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

static void put(const void *data, size_t length)
{
    while (length) {
        ssize_t written = syscall(SYS_write, record, data, length);
        if (written <= 0)
            abort(); /* half a recording is none */
        data = (const char *)data + written, length -= (size_t)written;
    }
}

/* "pwrite\t7\t4096\t\t\t12\n" and 12 bytes: the call, its descriptor, a number, one or two paths, what was written. */
static void note(const char *call, int fd, long number, const char *path, const char *path2, const void *data,
                 size_t length)
{
    char line[3 * NAME];
    int saved = errno;
    int used = snprintf(line, sizeof line, "%s\t%d\t%ld\t%s\t%s\t%zu\n", call, fd, number, path ? path : "",
                        path2 ? path2 : "", length);
    put(line, (size_t)used);
    put(data, length);
    errno = saved;
}

/* Start to record, into a new file. */
int fault_record(const char *path)
{
    return record = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* Put a word of the caller's own among the calls. */
void fault_mark(const char *word)
{
    pthread_mutex_lock(&order);
    if (record >= 0)
        note("mark", -1, 0, word, NULL, NULL, 0);
    pthread_mutex_unlock(&order);
}

int fault_arm(const char *folder, int how, long from, long calls, int error, int descriptor, int tracing)
{
    pthread_mutex_lock(&mutex);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    nth = from, window = calls, counted = 0, error_number = error, report = descriptor, trace = tracing;
    for (int fd = 0; fd < FDS; fd++) {
        free(opened[fd]);
        opened[fd] = NULL;
    }
    mode = how;
    pthread_mutex_unlock(&mutex);
    return 0;
}

void fault_only(const char *call, const char *pattern)
{
    snprintf(only_call, sizeof only_call, "%s", call);
    snprintf(only_path, sizeof only_path, "%s", pattern);
}

/* The path below the root, "." for the root itself, NULL for what lies elsewhere. */
static const char *below(int folder, const char *path, char *buffer)
{
    if (!root_length || !path)
        return NULL;
    if (path[0] != '/') {
        char link[64], base[NAME];
        ssize_t length;
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if ((length = readlink(link, base, sizeof base - 1)) < 0)
            return NULL;
        base[length] = 0;
        if (snprintf(buffer, 2 * NAME, "%s/%s", base, path) >= 2 * NAME)
            return NULL;
        path = buffer;
    }
    if (strncmp(path, root, root_length))
        return NULL;
    if (!path[root_length])
        return ".";
    return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

/* What to do with a call: OFF lets it pass, FAIL fails it; SHORT, KILL_AFTER and TORN are the caller's to do. */
static enum mode decide(const char *call, const char *path, const char *path2, int needs_room)
{
    enum mode answer = OFF;
    int saved = errno;
    if (mode == OFF && !trace)
        return OFF;
    if (*only_call && (fnmatch(only_call, call, 0) || fnmatch(only_path, path, 0)))
        return OFF;
    pthread_mutex_lock(&mutex);
    long number = ++counted;
    if (trace)
        say("CALL", number, call, path, path2);
    if (mode != OFF && number >= nth && (window <= 0 || number < nth + window)) {
        int first = number == nth;
        if (first || mode == FAIL || ((mode == FULL || mode == SHORT) && needs_room))
            answer = mode;
        if (mode > SHORT && !first)
            answer = OFF;
        if (answer != OFF && first)
            say("HIT", number, call, path, path2);
        if (answer == FULL || (answer == SHORT && !first))
            answer = FAIL;
        if (answer == KILL_BEFORE)
            die();
    }
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return answer;
}

#define REAL(name, type, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real)                                                                                                         \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define FINISH(expression, ...)                                                                                        \
    do {                                                                                                               \
        if (answer == FAIL || answer == SHORT) {                                                                       \
            errno = error_number;                                                                                      \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (answer == TORN)                                                                                            \
            die();                                                                                                     \
        int recorded = record >= 0;                                                                                    \
        if (recorded)                                                                                                  \
            pthread_mutex_lock(&order);                                                                                \
        __typeof__(expression) result = (expression);                                                                  \
        if (recorded && result >= 0)                                                                                   \
            __VA_ARGS__;                                                                                               \
        if (recorded)                                                                                                  \
            pthread_mutex_unlock(&order);                                                                              \
        if (answer == KILL_AFTER)                                                                                      \
            die();                                                                                                     \
        return result;                                                                                                 \
    } while (0)

static void remember(int fd, const char *path)
{
    if (fd < 0 || fd >= FDS)
        return;
    pthread_mutex_lock(&mutex);
    free(opened[fd]);
    opened[fd] = path ? strdup(path) : NULL;
    pthread_mutex_unlock(&mutex);
}

static const char *path_of(int fd) { return fd >= 0 && fd < FDS ? opened[fd] : NULL; }

static int opening(int (*real)(int, const char *, int, ...), int folder, const char *path, int flags, mode_t permissions)
{
    char buffer[2 * NAME];
    const char *relative = below(folder, path, buffer);
    int changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    enum mode answer = relative && changes ? decide("open", relative, NULL, flags & O_CREAT) : OFF;
    if (answer == FAIL || answer == SHORT) {
        errno = error_number;
        return -1;
    }
    if (answer == TORN)
        die();
    int recorded = record >= 0;
    if (recorded)
        pthread_mutex_lock(&order);
    int fd = real(folder, path, flags, permissions);
    remember(fd, relative);
    if (recorded && fd >= 0 && relative)
        note("open", fd, flags & O_TRUNC ? 1 : 0, relative, NULL, NULL, 0);
    if (recorded)
        pthread_mutex_unlock(&order);
    if (answer == KILL_AFTER)
        die();
    return fd;
}

#define PERMISSIONS                                                                                                    \
    mode_t permissions = 0;                                                                                            \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        permissions = va_arg(more, mode_t);                                                                            \
        va_end(more);                                                                                                  \
    }                                                                                                                  \
    REAL(openat64, int, int, const char *, int, ...)

int open(const char *path, int flags, ...)
{
    PERMISSIONS;
    return opening(real, AT_FDCWD, path, flags, permissions);
}
int open64(const char *path, int flags, ...)
{
    PERMISSIONS;
    return opening(real, AT_FDCWD, path, flags, permissions);
}
int openat(int folder, const char *path, int flags, ...)
{
    PERMISSIONS;
    return opening(real, folder, path, flags, permissions);
}
int openat64(int folder, const char *path, int flags, ...)
{
    PERMISSIONS;
    return opening(real, folder, path, flags, permissions);
}
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int creat(const char *path, mode_t permissions) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, permissions); }
int creat64(const char *path, mode_t permissions) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, permissions); }

int close(int fd)
{
    REAL(close, int, int);
    int recorded = record >= 0;
    if (recorded)
        pthread_mutex_lock(&order);
    if (recorded && path_of(fd))
        note("close", fd, 0, NULL, NULL, NULL, 0);
    remember(fd, NULL);
    int result = real(fd);
    if (recorded)
        pthread_mutex_unlock(&order);
    return result;
}

/* SHORT writes half; the caller comes back for the rest, and then the disk is full. */
#define WRITING(name, half, whole, at, data)                                                                           \
    const char *path = path_of(fd);                                                                                    \
    enum mode answer = path ? decide(name, path, NULL, 1) : OFF;                                                       \
    if ((answer == SHORT || answer == TORN) && length > 1) {                                                           \
        ssize_t written = (half);                                                                                      \
        if (answer == TORN)                                                                                            \
            die();                                                                                                     \
        return written;                                                                                                \
    }                                                                                                                  \
    FINISH(whole, if (path) note("write", fd, (long)(at), path, NULL, data, (size_t)result))

ssize_t write(int fd, const void *data, size_t length)
{
    REAL(write, ssize_t, int, const void *, size_t);
    WRITING("write", real(fd, data, length / 2), real(fd, data, length), lseek(fd, 0, SEEK_CUR) - result, data);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    REAL(pwrite, ssize_t, int, const void *, size_t, off_t);
    WRITING("pwrite", real(fd, data, length / 2, offset), real(fd, data, length, offset), offset, data);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    REAL(pwrite64, ssize_t, int, const void *, size_t, off64_t);
    WRITING("pwrite", real(fd, data, length / 2, offset), real(fd, data, length, offset), offset, data);
}
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev, ssize_t, int, const struct iovec *, int);
    size_t length = count > 0 ? parts[0].iov_len : 0;
    if (record >= 0 && path_of(fd)) /* the caller comes back for the rest */
        return write(fd, parts[0].iov_base, length);
    WRITING("writev", write(fd, parts[0].iov_base, length / 2), real(fd, parts, count), 0, NULL);
}

#define ON_DESCRIPTOR(name, call, needs_room, number)                                                                  \
    const char *path = path_of(fd);                                                                                    \
    enum mode answer = path ? decide(name, path, NULL, needs_room) : OFF;                                              \
    FINISH(call, if (path) note(name, fd, (long)(number), path, NULL, NULL, 0))

int fsync(int fd)
{
    REAL(fsync, int, int);
    ON_DESCRIPTOR("fsync", real(fd), 0, 0);
}
int fdatasync(int fd)
{
    REAL(fdatasync, int, int);
    ON_DESCRIPTOR("fdatasync", real(fd), 0, 0);
}
int ftruncate(int fd, off_t length)
{
    REAL(ftruncate, int, int, off_t);
    ON_DESCRIPTOR("ftruncate", real(fd, length), 0, length);
}
int ftruncate64(int fd, off64_t length)
{
    REAL(ftruncate64, int, int, off64_t);
    ON_DESCRIPTOR("ftruncate", real(fd, length), 0, length);
}

#define ON_PATH(name, folder, path, call, needs_room)                                                                  \
    char buffer[2 * NAME];                                                                                             \
    const char *relative = below(folder, path, buffer);                                                                \
    enum mode answer = relative ? decide(name, relative, NULL, needs_room) : OFF;                                      \
    FINISH(call, if (relative) note(name, -1, 0, relative, NULL, NULL, 0))

int unlink(const char *path)
{
    REAL(unlink, int, const char *);
    ON_PATH("unlink", AT_FDCWD, path, real(path), 0);
}
int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat, int, int, const char *, int);
    ON_PATH("unlink", folder, path, real(folder, path, flags), 0);
}
int rmdir(const char *path)
{
    REAL(rmdir, int, const char *);
    ON_PATH("rmdir", AT_FDCWD, path, real(path), 0);
}
int mkdir(const char *path, mode_t permissions)
{
    REAL(mkdir, int, const char *, mode_t);
    ON_PATH("mkdir", AT_FDCWD, path, real(path, permissions), 1);
}
int mkdirat(int folder, const char *path, mode_t permissions)
{
    REAL(mkdirat, int, int, const char *, mode_t);
    ON_PATH("mkdir", folder, path, real(folder, path, permissions), 1);
}

#define RENAMING(folder, path, folder2, path2, call, flags)                                                            \
    char buffer[2 * NAME], buffer2[2 * NAME];                                                                          \
    const char *from = below(folder, path, buffer), *to = below(folder2, path2, buffer2);                              \
    enum mode answer = from || to ? decide("rename", from ? from : "", to, 1) : OFF;                                   \
    FINISH(call, if (from || to) note("rename", -1, (long)(flags), from, to, NULL, 0))

int rename(const char *path, const char *path2)
{
    REAL(rename, int, const char *, const char *);
    RENAMING(AT_FDCWD, path, AT_FDCWD, path2, real(path, path2), 0);
}
int renameat(int folder, const char *path, int folder2, const char *path2)
{
    REAL(renameat, int, int, const char *, int, const char *);
    RENAMING(folder, path, folder2, path2, real(folder, path, folder2, path2), 0);
}
int renameat2(int folder, const char *path, int folder2, const char *path2, unsigned int flags)
{
    REAL(renameat2, int, int, const char *, int, const char *, unsigned int);
    RENAMING(folder, path, folder2, path2, real(folder, path, folder2, path2, flags), flags);
}
