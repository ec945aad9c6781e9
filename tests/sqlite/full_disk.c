/* Makes the disk full for the files of a database while a marker exists, for tests.
 *
 * Preloaded into a process, it replaces the calls that write at a position. While the file
 * FLOWKIT_TEST_FULL exists, those that would extend a file whose path begins with
 * FLOWKIT_TEST_FULL_FOR fail with ENOSPC. As on a real disk, data can be overwritten in place.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int has_no_space(int fd, off64_t end) {
    const char *marker = getenv("FLOWKIT_TEST_FULL"), *of = getenv("FLOWKIT_TEST_FULL_FOR");
    char link[64], path[PATH_MAX];
    struct stat64 file;
    if (marker == NULL || of == NULL || access(marker, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return strncmp(path, of, strlen(of)) == 0 && fstat64(fd, &file) == 0 && end > file.st_size;
}

#define REPLACE(name, offset_type)                                                        \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset) {            \
        ssize_t (*next)(int, const void *, size_t, offset_type) =                         \
            (ssize_t(*)(int, const void *, size_t, offset_type))dlsym(RTLD_NEXT, #name);  \
        if (has_no_space(fd, (off64_t)offset + (off64_t)count)) {                         \
            errno = ENOSPC;                                                               \
            return -1;                                                                    \
        }                                                                                 \
        return next(fd, data, count, offset);                                             \
    }

REPLACE(pwrite, off_t)
REPLACE(pwrite64, off64_t)
