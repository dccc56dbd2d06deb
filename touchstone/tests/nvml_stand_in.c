/* A stand-in for the NVIDIA driver's libnvidia-ml.so.1: the functions that nvidia-ml-py calls for Touchstone, with
 * answers scripted by NVML_SCENE.  Its driver version says that it is simulated.
 *
 * Scenes: one (a GPU), three (GPUs of two models), slice (a MIG slice of a GPU), forbidden (what needs permission is
 * refused), poor (a GPU that supports nothing), unloaded (no driver). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS, UNINITIALIZED, BAD_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, SMALL = 7, NO_DRIVER = 9 };

typedef struct Device {
    const char *name, *uuid;
    struct Device *whole; /* of a slice */
    unsigned long long used;
    unsigned sm, memory;
} Device;

static Device devices[] = {
    {"Simulated Small", "GPU-0000aaaa", 0, 100 << 20, 900, 5000},
    {"Simulated Large", "GPU-1111bbbb", 0, 200 << 20, 1980, 3200},
    {"Simulated Large", "GPU-2222cccc", 0, 300 << 20, 1950, 3200},
};
static Device slice = {"Simulated Large MIG 1g.10gb", "MIG-3333dddd", &devices[1], 50 << 20, 0, 0};

static int scene(const char *name) {
    const char *set = getenv("NVML_SCENE");
    return set && !strcmp(set, name);
}

int nvmlInitWithFlags(unsigned flags) { return scene("unloaded") ? NO_DRIVER : SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case NO_DRIVER: return "Driver Not Loaded";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "simulated 1.0", size);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = scene("three") ? 3 : 1;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **found) {
    *found = &devices[scene("slice") ? 1 : index];
    return index < 3 ? SUCCESS : BAD_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **found) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(uuid, devices[i].uuid)) return *found = &devices[i], SUCCESS;
    if (scene("slice") && !strcmp(uuid, slice.uuid)) return *found = &slice, SUCCESS;
    return NOT_FOUND;
}

int nvmlDeviceGetName(Device *device, char *text, unsigned size) { return strncpy(text, device->name, size), SUCCESS; }
int nvmlDeviceGetUUID(Device *device, char *text, unsigned size) { return strncpy(text, device->uuid, size), SUCCESS; }

typedef struct { unsigned pid; unsigned long long used; unsigned instance, compute; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *found) {
    if (scene("forbidden")) return NO_PERMISSION;
    if (scene("poor")) return NOT_SUPPORTED;
    if (scene("three")) return *count = 0, SUCCESS; /* a container: nobody is in the list */
    if (*count < 1 || !found) return *count = 1, SMALL;
    found[0] = (Process){(unsigned)getpid(), device->used / 2, 0, 0};
    return *count = 1, SUCCESS;
}

typedef struct { unsigned long long total, free, used; } Memory;

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    if (scene("poor")) return NOT_SUPPORTED;
    *memory = (Memory){1ull << 34, (1ull << 34) - device->used, device->used};
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    static unsigned long long counter = 5000;
    if (scene("forbidden")) return NO_PERMISSION;
    if (scene("poor") || device->whole) return NOT_SUPPORTED;
    *millijoules = counter += 6000;
    return SUCCESS;
}

static int clock_of(Device *device, int kind, unsigned *clock) {
    if (scene("poor") || device->whole) return NOT_SUPPORTED; /* a slice has none of its own */
    *clock = kind == 1 ? device->sm : device->memory;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(Device *device, int kind, unsigned *clock) { return clock_of(device, kind, clock); }

int nvmlDeviceGetMaxClockInfo(Device *device, int kind, unsigned *clock) {
    int code = clock_of(device, kind, clock);
    *clock += code == SUCCESS ? 100 : 0;
    return code;
}

/* The newer name, nvmlDeviceGetCurrentClocksEventReasons, is not here: so it is with drivers before 535. */
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    if (scene("forbidden")) return NO_PERMISSION;
    if (scene("poor") || device->whole) return NOT_SUPPORTED;
    *reasons = 0x04 | 0x01; /* a power cap, and idle */
    return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **found) {
    if (!device->whole) return BAD_ARGUMENT;
    return *found = device->whole, SUCCESS;
}
