#define _POSIX_C_SOURCE 200809L
#include "sim_device.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plant.h"

#ifndef VE_FIRMWARE_HASH
#define VE_FIRMWARE_HASH 0u
#endif

#define TRACE_BUFFER (1u << 16)

struct ve_sim {
  ve_device_t device;
  ve_outputs_t outputs;
  ve_plant_t *plant;
  uint64_t now_us;
  FILE *trace;
  ve_world_t *world;
  double fault[VE_SIM_FAULTS];
};

static const char *const STATE_NAMES[] = {"BOOT",  "SILENT", "IDLE",  "ARMED", "STREAMING",
                                          "DECEL", "HOLD",   "FAULT", "ESTOP"};

static const ve_profile_t *profile_of(const char *arm) {
  for (uint8_t i = 0; i < VE_PROFILE_COUNT; i++) {
    if (strncmp(VE_PROFILES[i].name, arm, sizeof(VE_PROFILES[i].name)) == 0) {
      return &VE_PROFILES[i];
    }
  }
  fprintf(stderr, "bridge-sim: no profile '%s' is compiled into this firmware\n", arm);
  return NULL;
}

static bool open_trace(ve_sim_t *sim, const char *path) {
  sim->trace = fopen(path, "w");
  if (sim->trace == NULL) {
    perror(path);
    return false;
  }
  (void)setvbuf(sim->trace, NULL, _IOFBF, TRACE_BUFFER);
  (void)fputs("tick_us,state", sim->trace);
  for (uint8_t i = 0; i < ve_sim_joints(sim); i++) {
    (void)fprintf(sim->trace, ",q%u", i);
  }
  for (uint8_t i = 0; i < ve_sim_joints(sim); i++) {
    (void)fprintf(sim->trace, ",dq%u", i);
  }
  (void)fputs(",chunk,limited\n", sim->trace);
  return true;
}

static bool open_world(ve_sim_t *sim, const char *path) {
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if ((file < 0) || (ftruncate(file, sizeof(ve_world_t)) != 0)) {
    perror(path);
    return false;
  }
  void *memory = mmap(NULL, sizeof(ve_world_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  (void)close(file);
  if (memory == MAP_FAILED) {
    perror(path);
    return false;
  }
  sim->world = memory;
  return true;
}

static void publish_world(ve_sim_t *sim) {
  ve_world_t *world = sim->world;
  uint32_t count = 0;
  const double *position = ve_plant_world(sim->plant, &count);
  world->sequence++;
  __sync_synchronize();
  world->tick_us = sim->now_us;
  world->joints = ve_sim_joints(sim);
  world->count = (count < VE_WORLD_MAX) ? count : VE_WORLD_MAX;
  memcpy(world->set_point, sim->outputs.set_point, sizeof(world->set_point));
  memcpy(world->position, position, world->count * sizeof(double));
  __sync_synchronize();
  world->sequence++;
}

static void write_trace(ve_sim_t *sim, bool limited) {
  (void)fprintf(sim->trace, "%llu,%s", (unsigned long long)sim->now_us, STATE_NAMES[sim->device.state]);
  for (uint8_t i = 0; i < ve_sim_joints(sim); i++) {
    (void)fprintf(sim->trace, ",%.17g", sim->outputs.set_point[i]);
  }
  for (uint8_t i = 0; i < ve_sim_joints(sim); i++) {
    (void)fprintf(sim->trace, ",%.17g", sim->outputs.velocity[i]);
  }
  const bool streaming = (sim->device.state == VE_DEVICE_STATE_STREAMING);
  const uint16_t chunk = streaming ? ve_plan_chunk_at(&sim->device.plan, sim->now_us) : 0u;
  (void)fprintf(sim->trace, ",%u,%d\n", chunk, limited ? 1 : 0);
}

ve_sim_t *ve_sim_open(const char *arm, const double *start, const char *model, const char *trace, const char *world) {
  const ve_profile_t *profile = profile_of(arm);
  ve_sim_t *sim = (profile == NULL) ? NULL : calloc(1, sizeof(*sim));
  if (sim == NULL) {
    return NULL;
  }
  ve_device_init(&sim->device, profile, VE_FIRMWARE_HASH, start);
  sim->plant = ve_plant_open(model, profile->joints, start);
  if ((sim->plant == NULL) || ((trace != NULL) && !open_trace(sim, trace)) ||
      ((world != NULL) && !open_world(sim, world))) {
    ve_sim_close(sim);
    return NULL;
  }
  if (sim->world != NULL) {
    publish_world(sim);
  }
  return sim;
}

void ve_sim_receive(ve_sim_t *sim, uint8_t channel, const uint8_t *bytes, uint32_t count, uint64_t now_us) {
  for (uint32_t i = 0; i < count; i++) {
    ve_device_receive(&sim->device, channel, bytes[i], now_us);
  }
}

void ve_sim_tick(ve_sim_t *sim) {
  ve_inputs_t inputs;
  const uint32_t interventions = sim->device.interventions;
  memset(&inputs, 0, sizeof(inputs));
  sim->now_us = (uint64_t)((int64_t)sim->now_us + VE_TICK_US + (int64_t)sim->fault[VE_SIM_TICK_ERROR_US]);
  inputs.now_us = sim->now_us;
  inputs.feedback_ok = (sim->fault[VE_SIM_FEEDBACK_LOST] == 0.0);
  inputs.drive_is_on = sim->outputs.drive_enable || (sim->fault[VE_SIM_DRIVE_STUCK] != 0.0);
  ve_plant_measure(sim->plant, inputs.measured);
  inputs.measured[0] += sim->fault[VE_SIM_OFFSET_RAD];
  if (sim->fault[VE_SIM_FEEDBACK_NAN] != 0.0) {
    inputs.measured[0] = NAN;
  }
  ve_device_tick(&sim->device, &inputs, &sim->outputs);
  ve_plant_step(sim->plant, sim->outputs.set_point, sim->outputs.drive_enable);
  if (sim->trace != NULL) {
    write_trace(sim, sim->device.interventions != interventions);
  }
  if (sim->world != NULL) {
    publish_world(sim);
  }
}

void ve_sim_fault(ve_sim_t *sim, ve_sim_fault_t fault, double value) { sim->fault[fault] = value; }

uint32_t ve_sim_transmit(ve_sim_t *sim, uint8_t *out, uint32_t capacity) {
  const uint16_t most = (capacity < VE_TRANSMIT_SIZE) ? (uint16_t)capacity : VE_TRANSMIT_SIZE;
  return ve_device_transmit(&sim->device, out, most);
}

uint64_t ve_sim_now_us(const ve_sim_t *sim) { return sim->now_us; }

uint8_t ve_sim_state(const ve_sim_t *sim) { return sim->device.state; }

uint8_t ve_sim_joints(const ve_sim_t *sim) { return sim->device.profile->joints; }

uint32_t ve_sim_world(const ve_sim_t *sim, double *out, uint32_t capacity) {
  uint32_t count = 0;
  const double *position = ve_plant_world(sim->plant, &count);
  memcpy(out, position, ((count < capacity) ? count : capacity) * sizeof(double));
  return count;
}

void ve_sim_flush(ve_sim_t *sim) {
  if (sim->trace != NULL) {
    (void)fflush(sim->trace);
  }
}

void ve_sim_close(ve_sim_t *sim) {
  if (sim->trace != NULL) {
    (void)fclose(sim->trace);
  }
  if (sim->world != NULL) {
    (void)munmap(sim->world, sizeof(ve_world_t));
  }
  if (sim->plant != NULL) {
    ve_plant_close(sim->plant);
  }
  free(sim);
}
