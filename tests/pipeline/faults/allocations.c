/* Preloaded into a test's process with fault.c: the Nth allocation fails, and some after it.
 *
 * Only between `allocations_arm` and `allocations_disarm`: the interpreter's start and the tests' own words are safe.
 * Counted are malloc, calloc, realloc and what they stand behind (operator new among it), and anonymous mmap, of all
 * threads. Python's own small objects come from arenas, which are mapped; see `test_allocations.py` for these.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <features.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __GLIBC__ /* else there is no way to the real ones before the first call of all; the tests are skipped */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_int armed;
static atomic_long counted;
static long nth, window;

void allocations_arm(long from, long calls)
{
    nth = from, window = calls;
    counted = 0;
    armed = 1;
}

/* Stop; return how many allocations there were. */
long allocations_disarm(void)
{
    armed = 0;
    return counted;
}

static int fails(void)
{
    if (!armed)
        return 0;
    long number = ++counted;
    if (number < nth || number >= nth + window)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
int posix_memalign(void **made, size_t alignment, size_t size)
{
    void *found = fails() ? NULL : __libc_memalign(alignment, size);
    if (!found)
        return ENOMEM;
    *made = found;
    return 0;
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) && fails())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(at, length, protection, flags, fd, offset);
}

#endif
