/* A library in place of NVML: one GPU of 24 GiB. The file that FAKE_NVML names says how it behaves:
   "works", "hangs", "errors", "lies" or "vanishes". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB (1ull << 30)
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;

static int behave(void) {
    char word[16] = "";
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (file != NULL) {
        if (fscanf(file, "%15s", word) != 1) word[0] = 0;
        fclose(file);
    }
    while (!strcmp(word, "hangs")) sleep(1); /* for good, as a driver does */
    return word[0];
}

static int status(void) {
    switch (behave()) {
    case 'e': return 999; /* unknown error */
    case 'v': return 15;  /* the GPU is lost */
    default: return 0;
    }
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return status(); }
int nvmlInit_v2(void) { return status(); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return status(); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(size_t)(index + 1);
    return status();
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    (void)device;
    snprintf(text, length, "GPU-00000000-0000-0000-0000-000000000001");
    return status();
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    (void)device;
    snprintf(text, length, "A GPU of a test");
    return status();
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    (void)device;
    *count = 0;
    return 3; /* not supported */
}
int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *m) {
    (void)device;
    m->total = 24 * GIB;
    m->used = 1 * GIB;
    m->free = m->total - m->used;
    return status();
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *m) {
    (void)device;
    m->reserved = 0;
    m->total = behave() == 'l' ? 900 * GIB : 24 * GIB; /* it has grown, and is full */
    m->used = behave() == 'l' ? m->total : 1 * GIB;
    m->free = m->total - m->used;
    return status();
}
static int processes(unsigned *count) { *count = 0; return status(); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, void *l) { (void)d; (void)l; return processes(n); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *n, void *l) { (void)d; (void)l; return processes(n); }
int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *d, unsigned *n, void *l) { (void)d; (void)l; return processes(n); }
