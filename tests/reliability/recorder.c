/* Preloaded: writes down every change that this process makes below $RECORD_DIRECTORY, in order, to
   $RECORD_LOG. Python and SQLite reach the kernel through these functions of the C library.

   A record is: its kind (1 byte), the file's inode number, an offset, the length of what follows
   (8 bytes each, native), then the path or the data:

       c  a file stands at this path now; the offset is 1 where it was emptied
       w  data written at the offset          t  the file is that long now
       s  the file is synced                  d  the directory at this path is
       r  renamed: both paths, with a NUL     u  the path is gone
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES = 4096 };

static char watched[FILES]; /* by descriptor: 0, 'f' a file, 'd' a directory */
static char *path_of[FILES];
static int log_fd = -1;
static const char *directory;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("RECORD_LOG");
    directory = getenv("RECORD_DIRECTORY");
    if (log && directory)
        log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path)
{
    return log_fd >= 0 && path && strncmp(path, directory, strlen(directory)) == 0;
}

static void record(char kind, uint64_t inode, uint64_t offset, const void *data, uint64_t length)
{
    uint64_t numbers[3] = {inode, offset, length};
    struct iovec parts[3] = {{&kind, 1}, {numbers, sizeof numbers}, {(void *)data, length}};
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)(1 + sizeof numbers + length))
        abort(); /* a recording with a gap proves nothing */
}

static uint64_t inode_of(int fd)
{
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

static int opened(int fd, const char *path, int flags)
{
    struct stat found;
    if (fd < 0 || fd >= FILES || !is_ours(path) || fstat(fd, &found) != 0)
        return fd;
    pthread_mutex_lock(&one_at_a_time);
    watched[fd] = S_ISDIR(found.st_mode) ? 'd' : S_ISREG(found.st_mode) ? 'f' : 0;
    free(path_of[fd]);
    path_of[fd] = strdup(path);
    if (watched[fd] == 'f')
        record('c', found.st_ino, (flags & O_TRUNC) != 0, path, strlen(path));
    pthread_mutex_unlock(&one_at_a_time);
    return fd;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        return opened(syscall_open(path, flags, mode), path, flags);                               \
    }

static int syscall_open(const char *path, int flags, mode_t mode)
{
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (fd >= 0 && fd < FILES)
        watched[fd] = 0;
    return syscall(SYS_close, fd);
}

static int is_file(int fd)
{
    return log_fd >= 0 && fd >= 0 && fd < FILES && watched[fd] == 'f';
}

static ssize_t written(int fd, const void *data, ssize_t count, off_t offset)
{
    if (count > 0) {
        if (offset < 0)
            offset = lseek(fd, 0, SEEK_CUR) - count;
        record('w', inode_of(fd), offset, data, count);
    }
    return count;
}

/* What is written and what is recorded of it are one step for the other threads. */
#define RECORDED(call)                                                                             \
    ({                                                                                             \
        pthread_mutex_lock(&one_at_a_time);                                                        \
        __auto_type result = (call);                                                               \
        pthread_mutex_unlock(&one_at_a_time);                                                      \
        result;                                                                                    \
    })

ssize_t write(int fd, const void *data, size_t count)
{
    if (!is_file(fd))
        return syscall(SYS_write, fd, data, count);
    return RECORDED(written(fd, data, syscall(SYS_write, fd, data, count), -1));
}

#define PWRITE(name, offset_type)                                                                  \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset)                       \
    {                                                                                              \
        if (!is_file(fd))                                                                          \
            return syscall(SYS_pwrite64, fd, data, count, offset);                                 \
        return RECORDED(                                                                           \
            written(fd, data, syscall(SYS_pwrite64, fd, data, count, offset), offset));            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

static int cut(int fd, off_t length)
{
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0)
        record('t', inode_of(fd), length, NULL, 0);
    return result;
}

#define FTRUNCATE(name, offset_type)                                                               \
    int name(int fd, offset_type length)                                                           \
    {                                                                                              \
        return is_file(fd) ? RECORDED(cut(fd, length)) : syscall(SYS_ftruncate, fd, length);       \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

static int synced(int fd, long call)
{
    int result = syscall(call, fd);
    if (result == 0 && watched[fd] == 'f')
        record('s', inode_of(fd), 0, NULL, 0);
    else if (result == 0)
        record('d', 0, 0, path_of[fd], strlen(path_of[fd]));
    return result;
}

#define SYNC(name, call)                                                                           \
    int name(int fd)                                                                               \
    {                                                                                              \
        if (log_fd < 0 || fd < 0 || fd >= FILES || !watched[fd])                                   \
            return syscall(call, fd);                                                              \
        return RECORDED(synced(fd, call));                                                         \
    }
SYNC(fsync, SYS_fsync)
SYNC(fdatasync, SYS_fdatasync)

static int renamed(const char *from, const char *to)
{
    char both[2 * PATH_MAX];
    int result = syscall(SYS_rename, from, to);
    if (result == 0) {
        int length = snprintf(both, sizeof both, "%s%c%s", from, '\0', to);
        record('r', 0, 0, both, length);
    }
    return result;
}

int rename(const char *from, const char *to)
{
    if (!is_ours(from))
        return syscall(SYS_rename, from, to);
    return RECORDED(renamed(from, to));
}

static int removed(const char *path)
{
    int result = syscall(SYS_unlink, path);
    if (result == 0)
        record('u', 0, 0, path, strlen(path));
    return result;
}

int unlink(const char *path)
{
    return is_ours(path) ? RECORDED(removed(path)) : syscall(SYS_unlink, path);
}
