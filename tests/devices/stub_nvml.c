/* libnvidia-ml.so.1 for tests, under the real pynvml: all calls that gpud makes. What they say is
   in the state file (stub_state.h). Compiled by nvml_stub.py. */
#define _GNU_SOURCE
#include "stub_state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;

struct memory { u64 total, free, used; };
struct memory_v2 { u32 version; u64 total, reserved, free, used; };
struct process { u32 pid; u64 bytes; u32 instance, compute_instance; };
struct sample { u32 pid; u64 at_us; u32 sm, memory, encoder, decoder; };
struct rates { u32 gpu, memory; };
struct temperature { u32 version, sensor; int value; };
struct field { u32 id, scope; long long at, latency; u32 type; int code; u64 value; };
struct event { struct device *device; u64 type, data; u32 instance, compute_instance; };

static const u32 MEMORY_V2 = 0x02000028, TEMPERATURE_V1 = 0x0100000C, NONE = ~0u;
static int initialised, event_pipe = -1;

/* A value of a GPU or of an instance: `gpu0.util`, `gpu0.mig1.util`. */
static long long value(const struct device *d, const char *name, long long otherwise) {
    if (d->mig)
        return number_of(otherwise, "gpu%d.mig%d.%s", d->gpu, d->mig - 1, name);
    return number_of(otherwise, "gpu%d.%s", d->gpu, name);
}

static const char *string(const struct device *d, const char *name) {
    if (d->mig)
        return text_of("gpu%d.mig%d.%s", d->gpu, d->mig - 1, name);
    return text_of("gpu%d.%s", d->gpu, name);
}

static int copied(const char *from, char *to, u32 size) {
    if (!from)
        return NOT_SUPPORTED;
    if (strlen(from) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

/* A number that is not in the state is one that this GPU does not support. */
static int supported(const struct device *d, const char *name, u64 *number) {
    long long found = value(d, name, LLONG_MIN);
    if (found != LLONG_MIN)
        *number = (u64)found;
    return found == LLONG_MIN ? NOT_SUPPORTED : OK;
}

int nvmlInitWithFlags(u32 flags) {
    (void)flags;
    ENTER(0);
    for (int gpu = 0; gpu < MOST_GPUS; gpu++)
        for (int mig = 0; mig <= MOST_INSTANCES; mig++)
            devices[gpu][mig] = (struct device){gpu, mig};
    initialised = 1;
    return OK;
}

int nvmlShutdown(void) {
    return initialised ? OK : UNINITIALIZED;
}

const char *nvmlErrorString(int code) {
    static char text[40];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *text, u32 size) {
    ENTER(0);
    return copied(text_of("driver"), text, size);
}

int nvmlDeviceGetCount_v2(u32 *count) {
    ENTER(0);
    *count = (u32)number_of(0, "count");
    return OK;
}

/* `at.0 1`: at index 0 there is GPU 1, whose handle stays what it was. */
int nvmlDeviceGetHandleByIndex_v2(u32 index, struct device **device) {
    long long gpu = number_of(index, "at.%u", index);
    if (gpu < 0 || gpu >= MOST_GPUS)
        return INVALID_ARGUMENT;
    ENTER(&devices[gpu][0]);
    if (index >= number_of(0, "count"))
        return INVALID_ARGUMENT;
    *device = &devices[gpu][0];
    return OK;
}

int nvmlDeviceGetUUID(struct device *d, char *text, u32 size) {
    ENTER(d);
    return copied(string(d, "uuid"), text, size);
}

int nvmlDeviceGetName(struct device *d, char *text, u32 size) {
    ENTER(d);
    return copied(string(d, "name"), text, size);
}

/* -- processes: listed in the state, or held by a living process (holders) ----------------------- */

/* Calls `each` for every living pid with a file in `$STUB_NVML.holders`: "GPU MIB [INSTANCE]". */
static void holders(const struct device *d, void (*each)(u32 pid, long long mib, void *), void *to) {
    char path[4096];
    DIR *directory = opendir(path_of(".holders", path, sizeof path));
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        char file[4400];
        int pid = atoi(entry->d_name), on = -1, place = -1;
        long long mib = 0;
        if (pid <= 0 || kill(pid, 0))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        FILE *stream = fopen(file, "re");
        if (!stream)
            continue;
        int given = fscanf(stream, "%d %lld %d", &on, &mib, &place);
        if (given >= 2 && on == d->gpu && place == d->mig - 1)
            each((u32)pid, mib, to);
        fclose(stream);
    }
    if (directory)
        closedir(directory);
}

struct list { struct process *at; u32 room, count; };

static void add(u32 pid, long long mib, void *to) {
    struct list *list = to;
    u64 bytes = mib < 0 ? ~0ull : (u64)mib << 20; /* not available */
    if (list->at && list->count < list->room)
        list->at[list->count] = (struct process){pid, bytes, NONE, NONE};
    list->count++;
}

static void sum(u32 pid, long long mib, void *to) {
    (void)pid;
    *(long long *)to += mib;
}

static int processes(const struct device *d, const char *kind, u32 *count, struct process *at) {
    struct list list = {at, *count, 0};
    const char *text = string(d, kind); /* "PID:MIB PID:MIB" */
    for (int pid, size; text && sscanf(text, "%d:%d", &pid, &size) == 2;) {
        add((u32)pid, size, &list);
        text = strchr(text, ' ');
        text = text ? text + 1 : 0;
    }
    if (!strcmp(kind, "compute"))
        holders(d, add, &list);
    *count = list.count;
    return list.count && (!at || list.room < list.count) ? INSUFFICIENT_SIZE : OK;
}

#define PROCESSES(function, kind)                                                  \
    int function(struct device *d, u32 *count, struct process *at) {               \
        ENTER(d);                                                                  \
        return processes(d, kind, count, at);                                      \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")

/* `gpu0.samples`: "PID:SM:MICROSECONDS ..." */
int nvmlDeviceGetProcessUtilization(struct device *d, struct sample *at, u32 *count, u64 since) {
    ENTER(d);
    const char *text = string(d, "samples");
    if (!text)
        return NOT_SUPPORTED;
    u32 found = 0;
    struct sample s = {0};
    while (text && sscanf(text, "%u:%u:%llu", &s.pid, &s.sm, &s.at_us) == 3) {
        if (s.at_us > since) {
            if (at && found < *count)
                at[found] = s;
            found++;
        }
        text = strchr(text, ' ');
        text = text ? text + 1 : 0;
    }
    u32 room = *count;
    *count = found;
    if (!found)
        return NOT_FOUND;
    return !at || room < found ? INSUFFICIENT_SIZE : OK;
}

/* -- values -------------------------------------------------------------------------------------- */

static int memory_of(const struct device *d, struct memory *memory) {
    u64 total_mib;
    long long used = value(d, "used_mib", 0);
    if (supported(d, "total_mib", &total_mib))
        return NOT_SUPPORTED;
    holders(d, sum, &used);
    memory->total = total_mib << 20;
    memory->used = (u64)used << 20;
    long long free = (long long)total_mib - value(d, "reserved_mib", 0) - used;
    memory->free = (u64)value(d, "free_mib", free) << 20;
    return OK;
}

int nvmlDeviceGetMemoryInfo(struct device *d, struct memory *memory) {
    ENTER(d);
    return memory_of(d, memory);
}

int nvmlDeviceGetMemoryInfo_v2(struct device *d, struct memory_v2 *memory) {
    ENTER(d);
    if (memory->version != MEMORY_V2)
        return ARGUMENT_VERSION_MISMATCH;
    struct memory found;
    if (memory_of(d, &found))
        return NOT_SUPPORTED;
    memory->total = found.total;
    memory->used = found.used;
    memory->free = found.free;
    memory->reserved = (u64)value(d, "reserved_mib", 0) << 20;
    return OK;
}

int nvmlDeviceGetUtilizationRates(struct device *d, struct rates *rates) {
    ENTER(d);
    u64 util;
    if (supported(d, "util", &util))
        return NOT_SUPPORTED;
    *rates = (struct rates){(u32)util, 0};
    return OK;
}

int nvmlDeviceGetTemperature(struct device *d, u32 sensor, u32 *celsius) {
    ENTER(d);
    u64 found = 0;
    int code = sensor ? NOT_SUPPORTED : supported(d, "temperature", &found);
    *celsius = (u32)found;
    return code;
}

int nvmlDeviceGetTemperatureV(struct device *d, struct temperature *temperature) {
    ENTER(d);
    if (temperature->version != TEMPERATURE_V1)
        return ARGUMENT_VERSION_MISMATCH;
    u64 found = 0;
    int code = supported(d, "temperature", &found);
    temperature->value = (int)found;
    return code;
}

int nvmlDeviceGetPowerUsage(struct device *d, u32 *milliwatts) {
    ENTER(d);
    u64 found = 0;
    int code = supported(d, "power_mw", &found);
    *milliwatts = (u32)found;
    return code;
}

int nvmlDeviceGetTotalEnergyConsumption(struct device *d, u64 *millijoules) {
    ENTER(d);
    return supported(d, "energy_mj", millijoules);
}

/* -- faults -------------------------------------------------------------------------------------- */

int nvmlDeviceGetTotalEccErrors(struct device *d, u32 error, u32 counter, u64 *count) {
    ENTER(d);
    return error != 1 || counter != 0 ? INVALID_ARGUMENT : supported(d, "ecc", count);
}

int nvmlDeviceGetRetiredPagesPendingStatus(struct device *d, u32 *pending) {
    ENTER(d);
    u64 found = 0;
    int code = supported(d, "retired_pending", &found);
    *pending = (u32)found;
    return code;
}

int nvmlDeviceGetRemappedRows(struct device *d, u32 *corrected, u32 *uncorrected, u32 *pending,
                              u32 *failed) {
    ENTER(d);
    u64 found = 0;
    int code = supported(d, "remap_failed", &found);
    *corrected = *uncorrected = 0;
    *pending = (u32)value(d, "remap_pending", 0);
    *failed = (u32)found;
    return code;
}

int nvmlDeviceGetFieldValues(struct device *d, int count, struct field *fields) {
    ENTER(d);
    for (int i = 0; i < count; i++)
        fields[i].code = fields[i].id == 230 ? supported(d, "recovery", &fields[i].value)
                                             : NOT_SUPPORTED;
    return OK;
}

/* -- MIG and topology ---------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(struct device *d, u32 *current, u32 *pending) {
    ENTER(d);
    u64 mode = 0;
    int code = supported(d, "mig", &mode);
    *current = *pending = (u32)mode;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *d, u32 *count) {
    ENTER(d);
    *count = (u32)value(d, "places", MOST_INSTANCES);
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *d, u32 index, struct device **instance) {
    ENTER(d);
    if (index >= MOST_INSTANCES)
        return NOT_FOUND;
    *instance = &devices[d->gpu][index + 1];
    return string(*instance, "uuid") ? OK : NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(struct device *d, u32 *id) {
    ENTER(d);
    *id = (u32)d->mig;
    return d->mig ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetComputeInstanceId(struct device *d, u32 *id) {
    ENTER(d);
    *id = 0;
    return d->mig ? OK : NOT_SUPPORTED;
}

/* `near.0.1`: a level of nvmlGpuTopologyLevel_t, or 0 and `nvlink.0.1`. */
int nvmlDeviceGetTopologyCommonAncestor(struct device *one, struct device *other, u32 *level) {
    ENTER(one);
    long long found = number_of(-1, "near.%d.%d", one->gpu, other->gpu);
    *level = (u32)found;
    return found < 0 ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetP2PStatus(struct device *one, struct device *other, u32 what, u32 *status) {
    ENTER(one);
    long long linked = number_of(0, "nvlink.%d.%d", one->gpu, other->gpu);
    *status = what == 2 && linked ? 0 : 5;
    return OK;
}

/* -- events: lines "GPU XID [INSTANCE]" through the pipe `$STUB_NVML.events` ---------------------- */

int nvmlEventSetCreate(void **set) {
    char path[4096];
    ENTER(0);
    event_pipe = open(path_of(".events", path, sizeof path), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    *set = &event_pipe;
    return event_pipe < 0 ? NOT_SUPPORTED : OK;
}

int nvmlDeviceRegisterEvents(struct device *d, u64 types, void *set) {
    ENTER(d);
    return types == 8 && set ? OK : INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(void *set, struct event *event, u32 limit_ms) {
    char line[64] = "";
    struct pollfd ready = {*(int *)set, POLLIN, 0};
    ENTER(0);
    if (poll(&ready, 1, (int)limit_ms) <= 0)
        return TIMEOUT;
    for (size_t i = 0; i < sizeof line - 1 && read(ready.fd, line + i, 1) == 1; i++)
        if (line[i] == '\n')
            break;
    int gpu = 0, xid = 0;
    u32 instance = NONE;
    if (sscanf(line, "%d %d %u", &gpu, &xid, &instance) < 2 || gpu < 0 || gpu >= MOST_GPUS)
        return TIMEOUT;
    *event = (struct event){&devices[gpu][0], 8, (u64)xid, instance, NONE};
    return OK;
}

int nvmlEventSetFree(void *set) {
    (void)set;
    return OK;
}
