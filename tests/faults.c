/* Preloaded into a program: what it does to files below FAULTS_BELOW fails with EIO, by chance or, while the file
   FAULTS_SWITCH is there, always; or takes FAULTS_SLOW microseconds longer. FAULTS_SHARE is a share of one in a million,
   FAULTS_SEED makes chance the same each time. CLOCK_BACK takes so many seconds from the time of day. */
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

static char watched[65536];       /* by file descriptor */
static unsigned long chance = 0;

static const char *setting(const char *name) { const char *value = getenv(name); return value ? value : ""; }

static int is_below(const char *path) {
    const char *below = setting("FAULTS_BELOW");
    return path && *below && strncmp(path, below, strlen(below)) == 0;
}

static int fails(void) {
    int slow = atoi(setting("FAULTS_SLOW"));
    if (slow) usleep(slow);
    if (*setting("FAULTS_SWITCH") && faccessat(AT_FDCWD, setting("FAULTS_SWITCH"), F_OK, 0) == 0) { errno = EIO; return 1; }
    if (!chance) chance = strtoul(setting("FAULTS_SEED"), NULL, 10) * 2654435761UL + getpid();
    unsigned long drawn = __atomic_add_fetch(&chance, 0x9E3779B97F4A7C15UL, __ATOMIC_RELAXED);
    drawn = (drawn ^ (drawn >> 30)) * 0xBF58476D1CE4E5B9UL;
    drawn = (drawn ^ (drawn >> 27)) * 0x94D049BB133111EBUL;
    if ((drawn ^ (drawn >> 31)) % 1000000 >= strtoul(setting("FAULTS_SHARE"), NULL, 10)) return 0;
    errno = EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WATCHED(fd) ((fd) >= 0 && (fd) < (int)sizeof watched && watched[fd])

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < (int)sizeof watched) watched[fd] = is_below(path);
    return fd;
}

#define OPEN(name, before, ...)                                                    \
    int name(before const char *path, int flags, ...) {                            \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        if (is_below(path) && fails()) return -1;                                  \
        return opened(REAL(name)(__VA_ARGS__ path, flags, mode), path);            \
    }
#define COMMA ,
OPEN(open, , )
OPEN(open64, , )
OPEN(openat, int at COMMA, at COMMA)
OPEN(openat64, int at COMMA, at COMMA)

#define TRANSFER(name, kind, ...)                                                  \
    ssize_t name(int fd, kind buffer, size_t size __VA_ARGS__) {                   \
        if (WATCHED(fd) && fails()) return -1;
TRANSFER(read, void *) return REAL(read)(fd, buffer, size); }
TRANSFER(write, const void *) return REAL(write)(fd, buffer, size); }
TRANSFER(pread, void *, , off_t at) return REAL(pread)(fd, buffer, size, at); }
TRANSFER(pread64, void *, , off_t at) return REAL(pread64)(fd, buffer, size, at); }
TRANSFER(pwrite, const void *, , off_t at) return REAL(pwrite)(fd, buffer, size, at); }
TRANSFER(pwrite64, const void *, , off_t at) return REAL(pwrite64)(fd, buffer, size, at); }

int close(int fd) { if (WATCHED(fd)) watched[fd] = 0; return REAL(close)(fd); }
int fsync(int fd) { return WATCHED(fd) && fails() ? -1 : REAL(fsync)(fd); }
int rename(const char *from, const char *to) { return is_below(from) && fails() ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to) { return is_below(from) && fails() ? -1 : REAL(link)(from, to); }

/* One call of the system reads many names, so that a folder fails when it is opened, or not at all. */
DIR *opendir(const char *path) { return is_below(path) && fails() ? NULL : REAL(opendir)(path); }

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
