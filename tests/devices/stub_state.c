#define _GNU_SOURCE
#include "stub_state.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_KEYS = 4000, HANG_STEP_US = 5000 };

struct device devices[MOST_GPUS][MOST_INSTANCES + 1];

static char *content, *keys[MOST_KEYS], *values[MOST_KEYS];
static int count;
static struct stat read_as;
/* The test's file changes between calls, the helper's threads both call. Old content is leaked: a
   thread may still hold a value of it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const char *path_of(const char *suffix, char *buffer, unsigned long size) {
    const char *path = getenv("STUB_NVML");
    snprintf(buffer, size, "%s%s", path ? path : "/nonexistent", suffix);
    return buffer;
}

static void parse(const char *path) {
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    fstat(fileno(file), &read_as);
    content = calloc(1, read_as.st_size + 1);
    if (fread(content, 1, read_as.st_size, file) != (size_t)read_as.st_size)
        abort();
    fclose(file);
    count = 0;
    char *rest, *line = strtok_r(content, "\n", &rest);
    for (; line && count < MOST_KEYS; line = strtok_r(0, "\n", &rest)) {
        char *blank = strchr(line, ' ');
        keys[count] = line;
        values[count++] = blank ? blank + 1 : "";
        if (blank)
            *blank = 0;
    }
}

static void refresh(void) {
    char path[4096];
    struct stat now;
    if (stat(path_of("", path, sizeof path), &now))
        return;
    pthread_mutex_lock(&lock);
    if (now.st_ino != read_as.st_ino || now.st_mtim.tv_nsec != read_as.st_mtim.tv_nsec
        || now.st_mtim.tv_sec != read_as.st_mtim.tv_sec || now.st_size != read_as.st_size)
        parse(path);
    pthread_mutex_unlock(&lock);
}

static const char *look_up(const char *format, va_list arguments) {
    char key[200];
    const char *found = 0;
    vsnprintf(key, sizeof key, format, arguments);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count && !found; i++)
        if (!strcmp(keys[i], key))
            found = values[i];
    pthread_mutex_unlock(&lock);
    return found;
}

const char *text_of(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *found = look_up(format, arguments);
    va_end(arguments);
    return found;
}

long long number_of(long long otherwise, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *found = look_up(format, arguments);
    va_end(arguments);
    return found ? strtoll(found, 0, 0) : otherwise;
}

/* The order `word` for a function, on one GPU or any; -1: there is none. */
static long long ordered(const char *word, const char *function, const struct device *device) {
    long long order = number_of(-1, "%s.%s", word, function);
    if (order < 0 && device)
        order = number_of(-1, "%s.%s.%d", word, function, device->gpu);
    if (order < 0 && device)
        order = number_of(-1, "%s.*.%d", word, device->gpu);
    return order;
}

/* For a crash that happens once: the file says that it has. */
static int first_time(void) {
    char path[4096];
    int fd = open(path_of(".crashed", path, sizeof path), O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int enter(const char *function, const struct device *device) {
    refresh();
    while (ordered("hang", function, device) > 0) {
        usleep(HANG_STEP_US);
        refresh();
    }
    long long crash = ordered("crash", function, device);
    if (crash == 1 || (crash == 2 && first_time()))
        *(volatile int *)0 = 0;
    long long code = ordered("fail", function, device);
    return code > 0 ? (int)code : OK;
}
