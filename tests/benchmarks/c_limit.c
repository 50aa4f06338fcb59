/* The limit: start COUNT processes, IN_FLIGHT at a time, and reap them; print the nanoseconds.

       c_limit IN_FLIGHT COUNT PROGRAM [ARGUMENT ...]
*/
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    long free_slots = atol(argv[1]), to_start = atol(argv[2]), running = 0;
    long long begin = now_ns();

    while (to_start > 0 || running > 0) {
        if (to_start > 0 && free_slots > 0) {
            pid_t pid;
            if (posix_spawn(&pid, argv[3], NULL, NULL, argv + 3, environ) != 0)
                return 1;
            to_start--, free_slots--, running++;
        } else {
            if (waitpid(-1, NULL, 0) < 0)
                return 1;
            free_slots++, running--;
        }
    }
    printf("%lld\n", now_ns() - begin);
    return 0;
}
