/* Preloaded into a program: what it does to files below FAULTS_BELOW fails with EIO, by chance or, while the file
   FAULTS_SWITCH is there, always; or takes FAULTS_SLOW microseconds longer. FAULTS_SHARE is a share of one in a million,
   FAULTS_SEED where chance begins. With FAULTS_FIRST the first call of each kind on each file fails in each process, and
   no other; private names of the same file, which differ in hex digits, are one file. Each call that fails adds a byte to
   the file FAULTS_COUNTED. CLOCK_BACK takes so many seconds from the time of day. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static unsigned long watched[65536];  /* the name that a file descriptor was opened by, as a number */
static unsigned char met[1 << 16];    /* the kinds of calls that each name has met */
static unsigned long chance = 0;

enum { OPENED = 1, READ = 2, WRITTEN = 4, SYNCED = 8, RENAMED = 16, LINKED = 32, LISTED = 64, REMOVED = 128 };

static const char *setting(const char *name) { const char *value = getenv(name); return value ? value : ""; }

/* A path as a number: 0 where it is of no concern. */
static unsigned long below(const char *path) {
    const char *root = setting("FAULTS_BELOW");
    if (!path || !*root || strncmp(path, root, strlen(root)) != 0) return 0;
    unsigned long name = 14695981039346656037UL;
    for (path += strlen(root); *path; path++)
        if (!strchr("0123456789abcdef", *path)) name = (name ^ (unsigned char)*path) * 1099511628211UL;
    return name | 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int failed(void) {
    if (*setting("FAULTS_COUNTED")) {
        int fd = REAL(open)(setting("FAULTS_COUNTED"), O_WRONLY | O_APPEND | O_CREAT, 0666);
        REAL(write)(fd, ".", 1);
        REAL(close)(fd);
    }
    errno = EIO;
    return 1;
}

static int fails(int kind, unsigned long name) {
    int slow = atoi(setting("FAULTS_SLOW"));
    if (slow) usleep(slow);
    if (*setting("FAULTS_SWITCH") && faccessat(AT_FDCWD, setting("FAULTS_SWITCH"), F_OK, 0) == 0) return failed();
    if (*setting("FAULTS_FIRST")) {
        unsigned char before = __atomic_fetch_or(&met[(name >> 32) & 0xffff], kind, __ATOMIC_RELAXED);
        return before & kind ? 0 : failed();
    }
    if (!chance) chance = strtoul(setting("FAULTS_SEED"), NULL, 10) * 2654435761UL + getpid();
    unsigned long drawn = __atomic_add_fetch(&chance, 0x9E3779B97F4A7C15UL, __ATOMIC_RELAXED);
    drawn = (drawn ^ (drawn >> 30)) * 0xBF58476D1CE4E5B9UL;
    drawn = (drawn ^ (drawn >> 27)) * 0x94D049BB133111EBUL;
    if ((drawn ^ (drawn >> 31)) % 1000000 >= strtoul(setting("FAULTS_SHARE"), NULL, 10)) return 0;
    return failed();
}

#define WATCHED(fd) ((fd) >= 0 && (fd) < 65536 ? watched[fd] : 0)
#define FAILS(kind, path) (below(path) && fails(kind, below(path)))

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < 65536) watched[fd] = below(path);
    return fd;
}

#define OPEN(name, before, ...)                                                    \
    int name(before const char *path, int flags, ...) {                            \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        if (FAILS(OPENED, path)) return -1;                                        \
        return opened(REAL(name)(__VA_ARGS__ path, flags, mode), path);            \
    }
#define COMMA ,
OPEN(open, , )
OPEN(open64, , )
OPEN(openat, int at COMMA, at COMMA)
OPEN(openat64, int at COMMA, at COMMA)

#define TRANSFER(kind, name, buffer_type, ...)                                     \
    ssize_t name(int fd, buffer_type buffer, size_t size __VA_ARGS__) {            \
        if (WATCHED(fd) && fails(kind, WATCHED(fd))) return -1;
TRANSFER(READ, read, void *) return REAL(read)(fd, buffer, size); }
TRANSFER(WRITTEN, write, const void *) return REAL(write)(fd, buffer, size); }
TRANSFER(READ, pread, void *, , off_t at) return REAL(pread)(fd, buffer, size, at); }
TRANSFER(READ, pread64, void *, , off_t at) return REAL(pread64)(fd, buffer, size, at); }
TRANSFER(WRITTEN, pwrite, const void *, , off_t at) return REAL(pwrite)(fd, buffer, size, at); }
TRANSFER(WRITTEN, pwrite64, const void *, , off_t at) return REAL(pwrite64)(fd, buffer, size, at); }

int close(int fd) { if (WATCHED(fd)) watched[fd] = 0; return REAL(close)(fd); }
int fsync(int fd) { return WATCHED(fd) && fails(SYNCED, WATCHED(fd)) ? -1 : REAL(fsync)(fd); }
int ftruncate(int fd, off_t size) { return WATCHED(fd) && fails(WRITTEN, WATCHED(fd)) ? -1 : REAL(ftruncate)(fd, size); }
int rename(const char *from, const char *to) { return FAILS(RENAMED, from) ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to) { return FAILS(LINKED, from) ? -1 : REAL(link)(from, to); }
int unlink(const char *path) { return FAILS(REMOVED, path) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return FAILS(REMOVED, path) ? -1 : REAL(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { return FAILS(OPENED, path) ? -1 : REAL(mkdir)(path, mode); }

/* One call of the system reads many names, so that a folder fails when it is opened, or not at all. */
DIR *opendir(const char *path) { return FAILS(LISTED, path) ? NULL : REAL(opendir)(path); }

static long back(void) { return atol(setting("CLOCK_BACK")); }
time_t time(time_t *at) {
    time_t now = REAL(time)(NULL) - back();
    if (at) *at = now;
    return now;
}
int gettimeofday(struct timeval *at, void *zone) {
    int told = REAL(gettimeofday)(at, zone);
    at->tv_sec -= back();
    return told;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    int told = REAL(clock_gettime)(clock, at);
    if (clock == CLOCK_REALTIME) at->tv_sec -= back();
    return told;
}
