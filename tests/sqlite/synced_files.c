/* Keeps a copy of each file of a database as of its last sync, for tests of power failures.
 *
 * Preloaded into a process, it replaces fsync and fdatasync. After a successful call for a file
 * whose path begins with FLOWKIT_TEST_SYNCED_OF, it copies the file to FLOWKIT_TEST_SYNCED_TO under
 * the same name. The copy is renamed into place before the call returns, so the caller cannot
 * confirm anything that is not in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what) {
    perror(what);
    abort();
}

static void copy(const char *from, const char *to) {
    char buffer[65536];
    ssize_t count;
    int source = open(from, O_RDONLY | O_CLOEXEC);
    int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (source < 0 || target < 0) fail("open");
    while ((count = read(source, buffer, sizeof buffer)) > 0)
        if (write(target, buffer, count) != count) fail("write");
    if (count < 0) fail("read");
    close(source);
    close(target);
}

static void keep(int fd) {
    const char *of = getenv("FLOWKIT_TEST_SYNCED_OF"), *to = getenv("FLOWKIT_TEST_SYNCED_TO");
    char link[64], path[PATH_MAX], kept[PATH_MAX], partial[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (of == NULL || to == NULL || length < 0) return;
    path[length] = '\0';
    if (strncmp(path, of, strlen(of)) != 0) return;
    pthread_mutex_lock(&keeping);
    snprintf(kept, sizeof kept, "%s/%s", to, strrchr(path, '/') + 1);
    snprintf(partial, sizeof partial, "%s/.partial", to);
    copy(path, partial);
    if (rename(partial, kept) != 0) fail("rename");
    pthread_mutex_unlock(&keeping);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = next(fd);
    if (result == 0) keep(fd);
    return result;
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = next(fd);
    if (result == 0) keep(fd);
    return result;
}
