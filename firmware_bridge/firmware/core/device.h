/* The device: session, state machine, watchdogs, and one set-point per tick.
 *
 * A port calls ve_device_receive for every byte of the line, ve_device_tick once a period, and sends what
 * ve_device_transmit hands out. All three from one context; nothing here blocks, allocates or reads a clock.
 */
#ifndef VE_DEVICE_H
#define VE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "limiter.h"
#include "plan.h"
#include "profile.h"
#include "window.h"

#define VE_TRANSMIT_SIZE 2048u
#define VE_CHANNELS 2u /* byte streams towards the device: a line has one; on CAN, urgent frames have their own */

/* What the drive tells the device at a tick. */
typedef struct {
  uint64_t now_us;
  double measured[VE_MAX_JOINTS]; /* rad */
  bool feedback_ok;
  bool drive_is_on;
} ve_inputs_t;

/* What the device tells the drive. */
typedef struct {
  double set_point[VE_MAX_JOINTS]; /* rad */
  double velocity[VE_MAX_JOINTS];  /* rad/s */
  bool drive_enable;
} ve_outputs_t;

typedef struct {
  const ve_profile_t *profile;
  uint32_t firmware_hash;
  uint8_t state;
  uint8_t reason;
  uint16_t session;
  uint16_t latched_session; /* the session in which FAULT or ESTOP latched */
  uint16_t sequence;
  bool has_session;
  bool drive_enable;
  bool drive_commanded_on; /* at the last tick */
  ve_inputs_t inputs;
  uint64_t last_tick_us;
  bool ticked;
  uint32_t ticks;
  ve_limits_t limits; /* this session's; never wider than the profile's */
  ve_plan_t plan;
  uint16_t last_commit;
  bool has_commit;
  ve_joint_state_t joint[VE_MAX_JOINTS];
  ve_window_t window;
  uint32_t heartbeat_tick;
  uint64_t heartbeat_us;
  bool has_heartbeat;
  uint32_t interventions;
  uint32_t refusals;
  ve_frame_reader_t reader[VE_CHANNELS];
  uint8_t transmit[VE_TRANSMIT_SIZE];
  uint16_t transmit_count;
  uint32_t transmit_dropped;
} ve_device_t;

/* Starts in BOOT, at the measured pose `q` in radians. */
void ve_device_init(ve_device_t *device, const ve_profile_t *profile, uint32_t firmware_hash, const double *q);

/* Takes one byte of a channel (below VE_CHANNELS), received at `now_us`. */
void ve_device_receive(ve_device_t *device, uint8_t channel, uint8_t byte, uint64_t now_us);

/* Runs one period. */
void ve_device_tick(ve_device_t *device, const ve_inputs_t *inputs, ve_outputs_t *outputs);

/* Moves up to `capacity` waiting bytes into `out`; returns how many. */
uint16_t ve_device_transmit(ve_device_t *device, uint8_t *out, uint16_t capacity);

#endif
