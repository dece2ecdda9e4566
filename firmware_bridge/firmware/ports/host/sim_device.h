/* The core with a plant behind it and a trace beside it: one simulated device, stepped by whoever owns the time. */
#ifndef VE_SIM_DEVICE_H
#define VE_SIM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"

#define VE_WORLD_MAX 256u

/* Written after every tick for cameras in other processes; odd `sequence` means it is being written. */
typedef struct {
  uint64_t sequence;
  uint64_t tick_us;
  uint32_t joints;
  uint32_t count;
  double set_point[VE_MAX_JOINTS];
  double position[VE_WORLD_MAX];
} ve_world_t;

typedef struct ve_sim ve_sim_t;

/* Opens the device of the arm `arm` at the pose `start` (one value per joint). `model` and `mujoco`, the library
 * that simulates it, `trace` and `world` are paths and may be NULL. Returns NULL with a message on stderr when something
 * cannot be opened. */
ve_sim_t *ve_sim_open(const char *arm, const double *start, const char *model, const char *mujoco, const char *trace,
                      const char *world);

/* Bytes from the host on a channel of the device, received at device time `now_us`. */
void ve_sim_receive(ve_sim_t *sim, uint8_t channel, const uint8_t *bytes, uint32_t count, uint64_t now_us);

/* One period: device time advances by exactly VE_TICK_US, unless a fault changes that. */
void ve_sim_tick(ve_sim_t *sim);

/* Faults of the simulated drive and clock, for tests; 0 heals each of them. */
typedef enum {
  VE_SIM_FEEDBACK_LOST, /* not 0: the drive reports no position */
  VE_SIM_FEEDBACK_NAN,  /* not 0: it reports NaN */
  VE_SIM_OFFSET_RAD,    /* joint 1 is measured this far from where it is */
  VE_SIM_TICK_ERROR_US, /* the clock advances by this much more than a period at every tick */
  VE_SIM_DRIVE_STUCK,   /* not 0: the drive reports that it is on, whatever the command */
  VE_SIM_FAULTS,
} ve_sim_fault_t;

void ve_sim_fault(ve_sim_t *sim, ve_sim_fault_t fault, double value);

/* Bytes for the host; returns how many were moved into `out`. */
uint32_t ve_sim_transmit(ve_sim_t *sim, uint8_t *out, uint32_t capacity);

uint64_t ve_sim_now_us(const ve_sim_t *sim);
uint8_t ve_sim_state(const ve_sim_t *sim);
uint8_t ve_sim_joints(const ve_sim_t *sim);

/* Copies the generalised positions of the world into `out`; returns how many there are. */
uint32_t ve_sim_world(const ve_sim_t *sim, double *out, uint32_t capacity);

/* Makes the trace on disk complete up to the last tick. */
void ve_sim_flush(ve_sim_t *sim);

void ve_sim_close(ve_sim_t *sim);

#endif
