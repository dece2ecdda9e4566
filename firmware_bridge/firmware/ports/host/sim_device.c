#define _POSIX_C_SOURCE 200809L
#include "sim_device.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hosted.h"
#include "plant.h"

struct ve_sim {
  ve_hosted_t *hosted;
  ve_plant_t *plant;
  ve_world_t *world;
  double fault[VE_SIM_FAULTS];
};

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
  world->tick_us = sim->hosted->now_us;
  world->joints = ve_sim_joints(sim);
  world->count = (count < VE_WORLD_MAX) ? count : VE_WORLD_MAX;
  memcpy(world->set_point, sim->hosted->outputs.set_point, sizeof(world->set_point));
  memcpy(world->position, position, world->count * sizeof(double));
  __sync_synchronize();
  world->sequence++;
}

ve_sim_t *ve_sim_open(const char *arm, const double *start, const char *model, const char *mujoco, const char *trace,
                      const char *world) {
  ve_sim_t *sim = calloc(1, sizeof(*sim));
  if (sim == NULL) {
    return NULL;
  }
  sim->hosted = ve_hosted_open(arm, start, trace);
  sim->plant = (sim->hosted == NULL) ? NULL : ve_plant_open(model, mujoco, ve_sim_joints(sim), start);
  if ((sim->plant == NULL) || ((world != NULL) && !open_world(sim, world))) {
    ve_sim_close(sim);
    return NULL;
  }
  if (sim->world != NULL) {
    publish_world(sim);
  }
  return sim;
}

void ve_sim_receive(ve_sim_t *sim, uint8_t channel, const uint8_t *bytes, uint32_t count, uint64_t now_us) {
  ve_hosted_receive(sim->hosted, channel, bytes, count, now_us);
}

void ve_sim_tick(ve_sim_t *sim) {
  ve_inputs_t inputs;
  const ve_outputs_t *outputs = &sim->hosted->outputs;
  memset(&inputs, 0, sizeof(inputs));
  inputs.now_us = (uint64_t)((int64_t)ve_sim_now_us(sim) + VE_TICK_US + (int64_t)sim->fault[VE_SIM_TICK_ERROR_US]);
  inputs.feedback_ok = (sim->fault[VE_SIM_FEEDBACK_LOST] == 0.0);
  inputs.drive_is_on = outputs->drive_enable || (sim->fault[VE_SIM_DRIVE_STUCK] != 0.0);
  ve_plant_measure(sim->plant, inputs.measured);
  inputs.measured[0] += sim->fault[VE_SIM_OFFSET_RAD];
  if (sim->fault[VE_SIM_FEEDBACK_NAN] != 0.0) {
    inputs.measured[0] = NAN;
  }
  ve_hosted_tick(sim->hosted, &inputs);
  ve_plant_step(sim->plant, outputs->set_point, outputs->drive_enable);
  if (sim->world != NULL) {
    publish_world(sim);
  }
}

void ve_sim_fault(ve_sim_t *sim, ve_sim_fault_t fault, double value) { sim->fault[fault] = value; }

uint32_t ve_sim_transmit(ve_sim_t *sim, uint8_t *out, uint32_t capacity) {
  return ve_hosted_transmit(sim->hosted, out, capacity);
}

uint64_t ve_sim_now_us(const ve_sim_t *sim) { return sim->hosted->now_us; }

uint8_t ve_sim_state(const ve_sim_t *sim) { return ve_hosted_state(sim->hosted); }

uint8_t ve_sim_joints(const ve_sim_t *sim) { return ve_hosted_joints(sim->hosted); }

uint32_t ve_sim_world(const ve_sim_t *sim, double *out, uint32_t capacity) {
  uint32_t count = 0;
  const double *position = ve_plant_world(sim->plant, &count);
  memcpy(out, position, ((count < capacity) ? count : capacity) * sizeof(double));
  return count;
}

void ve_sim_flush(ve_sim_t *sim) { ve_hosted_flush(sim->hosted); }

void ve_sim_close(ve_sim_t *sim) {
  if (sim->hosted != NULL) {
    ve_hosted_close(sim->hosted);
  }
  if (sim->world != NULL) {
    (void)munmap(sim->world, sizeof(ve_world_t));
  }
  if (sim->plant != NULL) {
    ve_plant_close(sim->plant);
  }
  free(sim);
}
