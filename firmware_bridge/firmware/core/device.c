#include "parts.h"

#include <math.h>
#include <string.h>

#define PERIOD_S (VE_MICRO * VE_TICK_US)
#define TICK_LATE_US (VE_TICK_LATE_TICKS * VE_TICK_US)
#define GUARD (1.0 - 1e-6) /* differences of doubles read back a little larger than what was computed */
#define EDGE_GUARD 1e-6    /* rad/s; the same for velocity limits near zero */

void ve_device_init(ve_device_t *device, const ve_profile_t *profile, uint32_t firmware_hash, const double *q) {
  (void)memset(device, 0, sizeof(*device));
  device->profile = profile;
  device->firmware_hash = firmware_hash;
  device->state = VE_DEVICE_STATE_BOOT;
  device->limits = profile->limits;
  ve_plan_init(&device->plan, profile->joints);
  for (uint8_t i = 0u; i < profile->joints; i++) {
    device->joint[i].q = q[i];
  }
}

static ve_joint_limits_t joint_limits(const ve_limits_t *limits, const ve_edges_t *edges, uint8_t joint) {
  const ve_joint_limits_t one = {limits->position_min[joint],
                                 limits->position_max[joint],
                                 GUARD * limits->velocity[joint],
                                 GUARD * limits->acceleration[joint],
                                 GUARD * limits->jerk[joint],
                                 edges->offset[joint] + EDGE_GUARD,
                                 edges->slope[joint],
                                 edges->low[joint],
                                 edges->high[joint]};
  return one;
}

static bool all_at_rest(const ve_device_t *device) {
  bool rest = true;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    rest = rest && ve_joint_at_rest(&device->joint[i]);
  }
  return rest;
}

static void watch(ve_device_t *device, uint64_t now_us) {
  const bool late = device->ticked && (ve_elapsed_us(device->last_tick_us, now_us) > TICK_LATE_US);
  if (!device->drive_enable || ve_is_latched(device->state)) {
    return;
  }
  if (late) {
    ve_latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_TICK_LATE, now_us);
    return;
  }
  if (!ve_feedback_good(device)) {
    ve_latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_FEEDBACK_LOST, now_us);
    return;
  }
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    if (fabs(device->inputs.measured[i] - device->joint[i].q) > device->profile->following[i]) {
      ve_latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_FOLLOWING_ERROR, now_us);
      return;
    }
  }
  if (ve_takes_chunks(device->state) && !ve_heartbeat_alive(device, now_us)) {
    ve_enter(device, VE_DEVICE_STATE_DECEL, VE_STOP_REASON_HEARTBEAT_LOST, now_us);
  }
}

/* Follows the plan for one tick. Returns VE_STOP_REASON_NONE, or the reason to stop, in which case nothing has moved. */
static uint8_t follow(ve_device_t *device, uint64_t now_us) {
  ve_plan_point_t point;
  ve_plan_retire(&device->plan, now_us);
  if (!ve_plan_at(&device->plan, now_us, &point)) {
    return VE_STOP_REASON_NONE; /* armed, and the first chunk has not begun */
  }
  if (device->state == VE_DEVICE_STATE_ARMED) {
    ve_enter(device, VE_DEVICE_STATE_STREAMING, VE_STOP_REASON_NONE, now_us);
  }
  bool exact = true;
  bool resting = true;
  bool tracked = true;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    resting = resting && (point.dq[i] == 0.0);
    tracked = tracked && (fabs(point.q[i] - device->joint[i].q) <= VE_TRACKING_LIMIT_RAD);
  }
  if (point.ended && !resting) {
    return VE_STOP_REASON_BUFFER_EMPTY;
  }
  if (!tracked) {
    return VE_STOP_REASON_TRACKING_LOST;
  }
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const ve_joint_limits_t limits = joint_limits(&device->limits, &device->profile->edges, i);
    exact = ve_limiter_follow(&device->joint[i], point.q[i], point.dq[i], &limits, PERIOD_S) && exact;
  }
  device->interventions += exact ? 0u : 1u;
  if (point.ended && exact && all_at_rest(device)) { /* the plan came to rest by itself */
    ve_plan_finish(&device->plan);
    ve_enter(device, VE_DEVICE_STATE_ARMED, VE_STOP_REASON_NONE, now_us);
  }
  return VE_STOP_REASON_NONE;
}

/* One tick of the stop. The compiled limits, whatever the session's are: limits that a host has tightened bound the
 * motion it asks for, and must not take the stop away. */
static void stop_all(ve_device_t *device) {
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const ve_joint_limits_t limits = joint_limits(&device->profile->limits, &device->profile->edges, i);
    ve_limiter_stop(&device->joint[i], &limits, PERIOD_S);
  }
}

/* Stops, and names the state that standstill leads to. */
static void decelerate(ve_device_t *device, uint64_t now_us) {
  stop_all(device);
  if (!all_at_rest(device)) {
    return;
  }
  ve_plan_clear(&device->plan);
  if (ve_is_latched(device->state)) {
    device->drive_enable = false;
  } else if (device->state == VE_DEVICE_STATE_DECEL) {
    ve_enter(device, VE_DEVICE_STATE_HOLD, device->reason, now_us);
  } else {
    /* At rest in any other state: nothing to leave. */
  }
}

/* One period of motion in the present state. */
static void move(ve_device_t *device, uint64_t now_us) {
  if (ve_takes_chunks(device->state)) {
    const uint8_t reason = follow(device, now_us);
    if (reason != VE_STOP_REASON_NONE) {
      ve_enter(device, VE_DEVICE_STATE_DECEL, reason, now_us);
    }
  }
  if (!ve_takes_chunks(device->state)) {
    decelerate(device, now_us);
  }
}

/* Takes back set-points that real time does not allow, and cuts the drive: if ticks cannot be trusted, nor can a stop
 * that is made of ticks. */
static void check_window(ve_device_t *device, const ve_joint_state_t *before, uint64_t now_us) {
  double q[VE_MAX_JOINTS];
  const uint8_t joints = device->profile->joints;
  for (uint8_t i = 0u; i < joints; i++) {
    q[i] = device->joint[i].q;
  }
  if (device->drive_enable && !ve_window_holds(&device->window, q, &device->profile->limits, joints, now_us)) {
    for (uint8_t i = 0u; i < joints; i++) {
      device->joint[i].q = before[i].q;
      device->joint[i].v = 0.0;
      device->joint[i].a = 0.0;
      q[i] = before[i].q;
    }
    device->drive_enable = false;
    ve_latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_RATE_WINDOW, now_us);
  }
  ve_window_add(&device->window, q, joints, now_us);
}

void ve_device_tick(ve_device_t *device, const ve_inputs_t *inputs, ve_outputs_t *outputs) {
  const uint64_t now_us = inputs->now_us;
  ve_joint_state_t before[VE_MAX_JOINTS];
  device->inputs = *inputs;
  if (device->state == VE_DEVICE_STATE_BOOT) {
    device->state = VE_DEVICE_STATE_SILENT;
  }
  watch(device, now_us);
  (void)memcpy(before, device->joint, sizeof(before));
  move(device, now_us);
  check_window(device, before, now_us);
  if (device->has_session && ((device->ticks % VE_STATE_EVERY_TICKS) == 0u)) {
    ve_send_state(device, now_us);
  }
  device->ticks++;
  device->last_tick_us = now_us;
  device->ticked = true;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    outputs->set_point[i] = device->joint[i].q;
    outputs->velocity[i] = device->joint[i].v;
  }
  outputs->drive_enable = device->drive_enable;
  device->drive_commanded_on = device->drive_enable;
}
