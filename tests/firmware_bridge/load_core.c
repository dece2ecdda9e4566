/* Loads the core on the machine that it was compiled for: load_core LIBRARY REPLAY INPUT... One second of device time
 * with the first library, then a digest of every input with the second. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST (1 << 16)

static void find(void *library, const char *name, void *function) {
  void *found = (library == NULL) ? NULL : dlsym(library, name);
  if (found == NULL) {
    fprintf(stderr, "%s: %s\n", name, dlerror());
    exit(1);
  }
  memcpy(function, &found, sizeof(found));
}

int main(int count, char **arguments) {
  void *(*open_device)(const char *, const double *, const char *, const char *, const char *, const char *);
  void (*tick)(void *);
  uint64_t (*now_us)(const void *);
  int (*run)(const uint8_t *, size_t);
  uint64_t (*digest)(void);
  void *core = dlopen(arguments[1], RTLD_NOW);
  void *replay = dlopen(arguments[2], RTLD_NOW);
  find(core, "ve_sim_open", &open_device);
  find(core, "ve_sim_tick", &tick);
  find(core, "ve_sim_now_us", &now_us);
  find(replay, "LLVMFuzzerTestOneInput", &run);
  find(replay, "ve_fuzz_digest", &digest);
  const double home[16] = {0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785, 0.0};
  void *device = open_device("franka", home, NULL, NULL, NULL, NULL);
  for (int i = 0; (device != NULL) && (i < 1000); i++) {
    tick(device);
  }
  printf("%llu\n", (device == NULL) ? 0ull : (unsigned long long)now_us(device));
  for (int i = 3; i < count; i++) {
    static uint8_t bytes[LONGEST];
    FILE *file = fopen(arguments[i], "rb");
    const size_t size = (file == NULL) ? 0 : fread(bytes, 1, sizeof(bytes), file);
    (void)run(bytes, size);
    printf("%016llx\n", (unsigned long long)digest());
    (void)fclose(file);
  }
  return 0;
}
