/* The state of the stubbed driver: a file of `key value` lines that a test replaces while we run.
   Every call looks whether it has changed. Keys: see nvml_stub.py. */
#ifndef STUB_STATE_H
#define STUB_STATE_H

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    ARGUMENT_VERSION_MISMATCH = 25,
    MOST_GPUS = 16,
    MOST_INSTANCES = 7
};

/* What a handle points at: a GPU, or (mig > 0) an instance of it. */
struct device {
    int gpu, mig;
};
extern struct device devices[MOST_GPUS][MOST_INSTANCES + 1];

const char *text_of(const char *format, ...); /* 0: there is no such key */
long long number_of(long long otherwise, const char *format, ...);
const char *path_of(const char *suffix, char *buffer, unsigned long size);

/* Reads the state again; then what it orders for this call: to hang, crash or fail. */
int enter(const char *function, const struct device *device);
#define ENTER(device)                              \
    do {                                           \
        int code_ = enter(__func__, device);       \
        if (code_)                                 \
            return code_;                          \
    } while (0)

#endif
