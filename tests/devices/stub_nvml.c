/* libnvidia-ml.so.1 for tests, under the real pynvml: as many GPUs as STUB_NVML_GPUS says.
   STUB_NVML_INIT: the error code of nvmlInit. STUB_NVML_LOST: the index of a GPU that is lost.
   STUB_NVML_HANG: nvmlInit takes that many seconds. Compiled by conftest.py. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, GPU_IS_LOST = 15 };

struct memory {
    unsigned long long total, free, used;
};

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* A handle is the index plus one: never NULL. */
static int index_of(void *device) {
    return (int)(size_t)device - 1;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    sleep(number("STUB_NVML_HANG", 0));
    return number("STUB_NVML_INIT", OK);
}

int nvmlInit_v2(void) {
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void) {
    return OK;
}

const char *nvmlErrorString(int code) {
    static char text[40];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "999.01");
    return number("STUB_NVML_DRIVER", OK);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = number("STUB_NVML_GPUS", 0);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if ((int)index >= number("STUB_NVML_GPUS", 0))
        return INVALID_ARGUMENT;
    if ((int)index == number("STUB_NVML_LOST", -1))
        return GPU_IS_LOST;
    *device = (void *)(size_t)(index + 1);
    return OK;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-%08d-aaaa-bbbb-cccc-dddddddddddd", index_of(device));
    return OK;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    snprintf(text, size, "Stub %d", index_of(device));
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    memory->total = (unsigned long long)(80 + index_of(device)) << 30;
    memory->used = 0;
    memory->free = memory->total;
    return OK;
}
