// A libcuda.so.1 without a card, for numba-cuda and cuda.core: devices, contexts, streams and events. Memory and launches are
// Python's (driver.py), which sets `hooks`. Everything is done at once, in the order of the calls; `copies_are_late` makes copies
// that a card may delay arrive as late as it may. While `capturing`, launches are kept and not done. While `scheduled`, all that a
// card does by itself is Python's, too (schedule.py), and memory is freed as soon as it is asked for.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_DEVICES 8
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };
enum { NON_BLOCKING = 1 };
enum { COPY, COPY_STAGED, SET, RECORD, WAIT, REACH_STREAM, REACH_EVENT, REACH_ALL, HAS_PASSED, RELEASE };

typedef int Result;
typedef uintptr_t Address;
typedef struct { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned attribute_count; } Config;
typedef struct { char *image; size_t size; } Library;
typedef struct { Library *library; char *name; } Kernel;
typedef struct { int device, flags; unsigned long id; } Stream;
typedef struct { int device; } Context;
typedef struct { double at; unsigned long id; } Event;
typedef struct { uint64_t address, size, device; } Span;
typedef struct Copy { void *to, *from; size_t size; struct Copy *next; } Copy;

struct {
    Result (*launch)(const char *image, size_t size, const char *name, const Config *config, void **parameters, int device);
    Address (*allocate)(size_t size, int device);
    Result (*release)(Address address);
    Result (*span)(Address address, Span *found);
    Result (*schedule)(int what, const void *stream, int device, Address a, Address b, size_t size);
} hooks;
struct { long allocations, releases, copies, launches, waits; } counts;
int device_count = 1, copies_are_late = 0, capturing = 0, idle = 0, scheduled = 0;
int capabilities[MOST_DEVICES] = {90, 90, 90, 90, 90, 90, 90, 90};

static Context contexts[MOST_DEVICES] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static __thread Context *stack[64];
static __thread int depth;
static unsigned long next_stream = 10, next_event = 1;

// --- devices and contexts

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }

Result cuInit(unsigned flags) { return SUCCESS; }
Result cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
Result cuDeviceGetCount(int *count) { *count = device_count; return SUCCESS; }
Result cuDeviceGet(int *device, int number) {
    if (number < 0 || number >= device_count) return INVALID_DEVICE;
    *device = number;
    return SUCCESS;
}
Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "PTX on the CPU %d", device); return SUCCESS; }
Result cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device + 1, 16); return SUCCESS; }
Result cuDeviceTotalMem(size_t *bytes, int device) { *bytes = 1ull << 37; return SUCCESS; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;                            // threads of a block, in x and in y
    case 4: *value = 64; break;                                              // in z
    case 5: *value = 2147483647; break;                                      // blocks in x
    case 6: case 7: *value = 65535; break;                                   // in y and z
    case 8: *value = 49152; break;                                           // shared memory of a block
    case 9: case 12: *value = 65536; break;                                  // constant memory, registers
    case 10: *value = 32; break;                                             // threads of a warp
    case 16: *value = 132; break;                                            // multiprocessors
    case 39: *value = 2048; break;                                           // threads of one
    case 75: *value = capabilities[device] / 10; break;
    case 76: *value = capabilities[device] % 10; break;
    case 41: case 115: *value = 1; break;                                    // unified addresses, memory pools
    default: *value = 0;
    }
    return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = &contexts[device]; return SUCCESS; }
Result cuDevicePrimaryCtxRelease(int device) { return SUCCESS; }
Result cuDevicePrimaryCtxReset(int device) { return SUCCESS; }
Result cuDevicePrimaryCtxSetFlags(int device, unsigned flags) { return SUCCESS; }
Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return SUCCESS; }
Result cuCtxPushCurrent(void *context) { stack[depth++] = context; return SUCCESS; }
Result cuCtxPopCurrent(void **context) {
    if (!depth) return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}
Result cuCtxSetCurrent(void *context) {
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return SUCCESS;
}
Result cuCtxGetCurrent(void **context) { *context = current(); return SUCCESS; }
Result cuCtxGetDevice(int *device) {
    if (!current()) return INVALID_CONTEXT;
    *device = current()->device;
    return SUCCESS;
}
Result cuCtxGetFlags(unsigned *flags) { *flags = 0; return SUCCESS; }
Result cuCtxGetId(Context *context, unsigned long long *id) { *id = context ? context->device + 1 : 1; return SUCCESS; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return SUCCESS; }

// --- copies: those from pageable memory on the legacy stream may arrive when that stream is next waited for

static Result on_card(int what, const void *stream, Address a, Address b, size_t size) {
    return hooks.schedule(what, stream, current() ? current()->device : 0, a, b, size);
}
static Copy *first_copy, **last_copy = &first_copy;

static void settle(void) {
    while (first_copy) {
        Copy *copy = first_copy;
        first_copy = copy->next;
        memcpy(copy->to, copy->from, copy->size);
        free(copy->from);
        free(copy);
    }
    last_copy = &first_copy;
}
static Result on_device(Address address, size_t size) {
    Span span;
    return size == 0 || (!hooks.span(address, &span) && address + size <= span.address + span.size) ? SUCCESS : INVALID_VALUE;
}
static Result copy_now(void *to, const void *from, size_t size) { counts.copies++; memcpy(to, from, size); return SUCCESS; }

Result cuMemcpyHtoD(Address to, const void *from, size_t size) {
    if (on_device(to, size)) return INVALID_VALUE;
    if (scheduled) { counts.copies++; return on_card(COPY_STAGED, NULL, to, (Address)from, size); }
    settle();
    if (!copies_are_late) return copy_now((void *)to, from, size);
    counts.copies++;
    Copy *copy = malloc(sizeof(Copy));
    *copy = (Copy){(void *)to, malloc(size), size, NULL};
    memcpy(copy->from, from, size);
    *last_copy = copy;
    last_copy = &copy->next;
    return SUCCESS;
}
// to pageable memory: it is there when the call returns
static Result copy_to_host(void *to, Address from, size_t size, const void *stream) {
    if (on_device(from, size)) return INVALID_VALUE;
    if (!scheduled) return copy_now(to, (void *)from, size);
    counts.copies++;
    Result answer = on_card(COPY, stream, (Address)to, from, size);
    return answer ? answer : on_card(REACH_STREAM, stream, 0, 0, 0);
}
static Result copy_in_order(Address to, Address from, size_t size, const void *stream) {
    if (!scheduled) return copy_now((void *)to, (void *)from, size);
    counts.copies++;
    return on_card(COPY, stream, to, from, size);
}
Result cuMemcpyDtoH(void *to, Address from, size_t size) { settle(); return copy_to_host(to, from, size, NULL); }
Result cuMemcpyDtoD(Address to, Address from, size_t size) {
    settle();
    return on_device(to, size) || on_device(from, size) ? INVALID_VALUE : copy_in_order(to, from, size, NULL);
}
Result cuMemcpyHtoDAsync(Address to, const void *from, size_t size, void *stream) {
    return on_device(to, size) ? INVALID_VALUE : copy_in_order(to, (Address)from, size, stream);
}
Result cuMemcpyDtoHAsync(void *to, Address from, size_t size, void *stream) { return copy_to_host(to, from, size, stream); }
Result cuMemcpyDtoDAsync(Address to, Address from, size_t size, void *stream) {
    return on_device(to, size) || on_device(from, size) ? INVALID_VALUE : copy_in_order(to, from, size, stream);
}
Result cuMemsetD8Async(Address to, unsigned char value, size_t size, void *stream) {
    if (on_device(to, size)) return INVALID_VALUE;
    if (scheduled) return on_card(SET, stream, to, value, size);
    memset((void *)to, value, size);
    return SUCCESS;
}
Result cuMemsetD8(Address to, unsigned char value, size_t size) { return cuMemsetD8Async(to, value, size, NULL); }

// --- memory

Result cuMemAlloc(Address *address, size_t size) {
    if (!current()) return INVALID_CONTEXT;
    counts.allocations++;
    *address = hooks.allocate(size, current()->device);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
Result cuMemAllocAsync(Address *address, size_t size, void *stream) { return cuMemAlloc(address, size); }
Result cuMemFree(Address address) {
    if (!address) return SUCCESS;
    settle();
    counts.releases++;
    return hooks.release(address);
}
Result cuMemFreeAsync(Address address, void *stream) {
    if (!scheduled || !address) return cuMemFree(address);
    counts.releases++;
    return on_card(RELEASE, stream, address, 0, 0);
}
Result cuMemAllocHost(void **address, size_t size) { return posix_memalign(address, 4096, size) ? OUT_OF_MEMORY : SUCCESS; }
Result cuMemHostAlloc(void **address, size_t size, unsigned flags) { return cuMemAllocHost(address, size); }
Result cuMemFreeHost(void *address) { free(address); return SUCCESS; }
Result cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = (void *)(uintptr_t)(device + 1); return SUCCESS; }
Result cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
Result cuMemPoolSetAttribute(void *pool, int attribute, void *value) { return SUCCESS; }
Result cuMemPoolGetAttribute(void *pool, int attribute, void *value) { *(uint64_t *)value = 0; return SUCCESS; }
Result cuMemGetInfo(size_t *unused, size_t *total) { *unused = *total = 1ull << 37; return SUCCESS; }
Result cuMemGetAddressRange(Address *base, size_t *size, Address address) {
    Span span;
    if (hooks.span(address, &span)) return INVALID_VALUE;
    if (base) *base = span.address;
    if (size) *size = span.size;
    return SUCCESS;
}
Result cuPointerGetAttribute(void *out, int attribute, Address address) {
    Span span;
    if (hooks.span(address, &span)) return INVALID_VALUE;
    switch (attribute) {
    case 1: *(void **)out = &contexts[span.device]; break;
    case 2: *(unsigned *)out = 2; break;                                     // device memory
    case 3: *(Address *)out = address; break;
    case 8: *(unsigned *)out = 0; break;                                     // not managed
    case 9: *(int *)out = (int)span.device; break;
    default: return NOT_SUPPORTED;
    }
    return SUCCESS;
}
Result cuPointerGetAttributes(unsigned count, int *attributes, void **out, Address address) {
    for (unsigned i = 0; i < count; i++) {
        if (!cuPointerGetAttribute(out[i], attributes[i], address)) continue;
        if (attributes[i] == 2) *(unsigned *)out[i] = 0;
        else if (attributes[i] == 9) *(int *)out[i] = -2;
        else *(void **)out[i] = NULL;
    }
    return SUCCESS;
}

// --- streams and events; the handles 0, 1 and 2 are the default streams

static int is_default(const void *stream) { return (uintptr_t)stream <= 2; }
static int waits_for_legacy(const Stream *stream) { return is_default(stream) || !(stream->flags & NON_BLOCKING); }

Result cuStreamCreate(Stream **stream, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    *stream = malloc(sizeof(Stream));
    **stream = (Stream){current()->device, (int)flags, next_stream++};
    return SUCCESS;
}
Result cuStreamCreateWithPriority(Stream **stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
Result cuStreamDestroy(Stream *stream) { return SUCCESS; }
Result cuStreamSynchronize(Stream *stream) {
    counts.waits++;
    if (scheduled) return on_card(REACH_STREAM, stream, 0, 0, 0);
    if (waits_for_legacy(stream)) settle();
    return SUCCESS;
}
Result cuCtxSynchronize(void) {
    counts.waits++;
    settle();
    return scheduled ? on_card(REACH_ALL, NULL, 0, 0, 0) : SUCCESS;
}
Result cuStreamQuery(Stream *stream) { return SUCCESS; }
Result cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    return scheduled ? on_card(WAIT, stream, event->id, 0, 0) : SUCCESS;
}
Result cuStreamGetDevice(Stream *stream, int *device) {
    if (!is_default(stream)) { *device = stream->device; return SUCCESS; }
    return cuCtxGetDevice(device);
}
Result cuStreamGetCtx(Stream *stream, void **context) {
    *context = is_default(stream) ? current() : &contexts[stream->device];
    return *context ? SUCCESS : INVALID_CONTEXT;
}
Result cuStreamGetFlags(Stream *stream, unsigned *flags) { *flags = is_default(stream) ? 0 : stream->flags; return SUCCESS; }
Result cuStreamGetPriority(Stream *stream, int *priority) { *priority = 0; return SUCCESS; }
Result cuStreamGetId(Stream *stream, unsigned long long *id) {
    *id = is_default(stream) ? (uintptr_t)stream : stream->id;
    return SUCCESS;
}
Result cuStreamIsCapturing(Stream *stream, int *status) { *status = capturing && !is_default(stream); return SUCCESS; }
Result cuThreadExchangeStreamCaptureMode(int *mode) { *mode = 0; return SUCCESS; }
static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}
Result cuEventCreate(Event **event, unsigned flags) {
    *event = malloc(sizeof(Event));
    **event = (Event){0, next_event++};
    return SUCCESS;
}
Result cuEventDestroy(Event *event) { free(event); return SUCCESS; }
Result cuEventRecord(Event *event, void *stream) {
    event->at = milliseconds();
    return scheduled ? on_card(RECORD, stream, event->id, 0, 0) : SUCCESS;
}
Result cuEventRecordWithFlags(Event *event, void *stream, unsigned flags) { return cuEventRecord(event, stream); }
Result cuEventSynchronize(Event *event) {
    counts.waits++;
    return scheduled ? on_card(REACH_EVENT, NULL, event->id, 0, 0) : SUCCESS;
}
Result cuEventQuery(Event *event) { return scheduled ? on_card(HAS_PASSED, NULL, event->id, 0, 0) : SUCCESS; }
Result cuEventElapsedTime(float *elapsed, Event *from, Event *to) { *elapsed = to->at - from->at; return SUCCESS; }

// --- code and launches

static size_t elf_size(const unsigned char *image) {
    uint64_t table;
    uint16_t entry, count;
    memcpy(&table, image + 0x28, 8);
    memcpy(&entry, image + 0x3A, 2);
    memcpy(&count, image + 0x3C, 2);
    size_t end = table + (size_t)entry * count;
    for (int i = 0; i < count; i++) {
        const unsigned char *section = image + table + (size_t)i * entry;
        uint32_t type;
        uint64_t offset, size;
        memcpy(&type, section + 4, 4);
        memcpy(&offset, section + 24, 8);
        memcpy(&size, section + 32, 8);
        if (type != 8 && offset + size > end) end = offset + size;           // 8: takes no room in the file
    }
    return end;
}
Result cuLibraryLoadData(Library **library, const void *image, void *a, void *b, unsigned m, void *c, void *d, unsigned n) {
    if (memcmp(image, "\177ELF", 4)) return INVALID_IMAGE;
    *library = malloc(sizeof(Library));
    (*library)->size = elf_size(image);
    (*library)->image = malloc((*library)->size);
    memcpy((*library)->image, image, (*library)->size);
    return SUCCESS;
}
Result cuLibraryUnload(Library *library) { return SUCCESS; }
Result cuLibraryGetKernel(Kernel **kernel, Library *library, const char *name) {
    if (!memmem(library->image, library->size, name, strlen(name))) return NOT_FOUND;
    *kernel = malloc(sizeof(Kernel));
    **kernel = (Kernel){library, strdup(name)};
    return SUCCESS;
}
Result cuLibraryGetGlobal(Address *address, size_t *size, Library *library, const char *name) { return NOT_FOUND; }
Result cuKernelGetFunction(void **function, Kernel *kernel) { *function = kernel; return SUCCESS; }
Result cuKernelGetLibrary(void **library, Kernel *kernel) { *library = kernel->library; return SUCCESS; }
Result cuKernelGetName(const char **name, Kernel *kernel) { *name = kernel->name; return SUCCESS; }
Result cuKernelSetAttribute(int attribute, int value, Kernel *kernel, int device) { return SUCCESS; }
Result cuFuncGetAttribute(int *value, int attribute, Kernel *kernel) {
    *value = attribute == 0 ? 1024 : attribute == 4 ? 32 : 0;                // threads at most, registers
    return SUCCESS;
}
Result cuKernelGetAttribute(int *value, int attribute, Kernel *kernel, int device) {
    return cuFuncGetAttribute(value, attribute, kernel);
}
Result cuOccupancyMaxPotentialBlockSize(int *grid, int *block, void *f, void *g, size_t shared, int limit) {
    *grid = 132;
    *block = 256;
    return SUCCESS;
}
Result cuLaunchKernelEx(const Config *config, Kernel *kernel, void **parameters, void **extra) {
    const Stream *stream = config->stream;
    const unsigned *grid = config->grid, *block = config->block;
    counts.launches++;
    if (!current()) return INVALID_CONTEXT;
    if (!grid[0] || grid[0] > 2147483647u || !block[0] || block[0] > 1024) return INVALID_VALUE;
    if (grid[1] != 1 || grid[2] != 1 || block[1] != 1 || block[2] != 1) return NOT_SUPPORTED;
    if (!is_default(stream) && stream->device != current()->device) return INVALID_HANDLE;
    if (waits_for_legacy(stream)) settle();
    if (idle) return SUCCESS;
    Library *library = kernel->library;
    return hooks.launch(library->image, library->size, kernel->name, config, parameters, current()->device);
}
Result cuLaunchKernel(Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **parameters, void **extra) {
    Config config = {{gx, gy, gz}, {bx, by, bz}, shared, stream, NULL, 0};
    return cuLaunchKernelEx(&config, kernel, parameters, extra);
}
Result cuGetErrorName(int error, const char **text) {
    static __thread char name[64];
    snprintf(name, sizeof name, "CUDA_ERROR_%d", error);
    *text = name;
    return SUCCESS;
}
Result cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

// --- the names by which callers find all this

#define V2(name) __typeof__(name) name##_v2 __attribute__((alias(#name)))
V2(cuDeviceGetUuid); V2(cuDeviceTotalMem); V2(cuDevicePrimaryCtxRelease); V2(cuDevicePrimaryCtxReset);
V2(cuDevicePrimaryCtxSetFlags); V2(cuCtxPushCurrent); V2(cuCtxPopCurrent); V2(cuMemAlloc); V2(cuMemFree); V2(cuMemGetInfo);
V2(cuMemAllocHost); V2(cuMemGetAddressRange); V2(cuMemcpyHtoD); V2(cuMemcpyDtoH); V2(cuMemcpyDtoD); V2(cuMemcpyHtoDAsync);
V2(cuMemcpyDtoHAsync); V2(cuMemcpyDtoDAsync); V2(cuMemsetD8); V2(cuStreamDestroy); V2(cuStreamGetCtx); V2(cuEventDestroy);
V2(cuEventElapsedTime);

Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    static void *own;
    if (!own) own = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : dlsym(own, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
