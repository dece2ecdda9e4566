#include "parts.h"

#include <math.h>
#include <string.h>

#define WIDER 1.0000001 /* room for the rounding of limits to integers on the wire */

typedef ve_verdict_t (*handler_t)(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us);

static ve_verdict_t verdict_of(uint8_t refusal) {
  const ve_verdict_t verdict = {refusal, VE_NOBODY, VE_NOBODY};
  return verdict;
}

static ve_verdict_t accept(void) { return verdict_of(0u); }

/* A new host takes over only while nothing moves: one that appears in mid-motion is refused. */
static ve_verdict_t on_hello(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  const bool repeated = device->has_session && (frame->session == device->session);
  if (!repeated && ve_is_moving(device->state)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  if (!repeated) {
    device->session = frame->session;
    device->has_session = true;
    device->has_heartbeat = false;
    device->has_commit = false;
    device->limits = device->profile->limits;
    ve_plan_clear(&device->plan);
    if (device->state == VE_DEVICE_STATE_SILENT) {
      device->state = VE_DEVICE_STATE_IDLE;
    }
  }
  ve_send_caps(device);
  return accept();
}

static ve_verdict_t on_limits(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  const uint8_t joints = device->profile->joints;
  const ve_limits_t *outer = &device->profile->limits;
  ve_limits_t requested = *outer;
  const uint16_t row = (uint16_t)(4u * (uint16_t)joints);
  if (frame->length != (uint16_t)(VE_LIMITS_ROWS * row)) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if ((device->state != VE_DEVICE_STATE_IDLE) && (device->state != VE_DEVICE_STATE_HOLD)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  for (uint8_t i = 0u; i < joints; i++) {
    const uint8_t *at = &frame->payload[4u * i];
    requested.position_min[i] = VE_MICRO * ve_get_i32(at);
    requested.position_max[i] = VE_MICRO * ve_get_i32(&at[row]);
    requested.velocity[i] = VE_MICRO * ve_get_i32(&at[2u * row]);
    requested.acceleration[i] = VE_MILLI * ve_get_i32(&at[3u * row]);
    requested.jerk[i] = VE_MILLI * ve_get_i32(&at[4u * row]);
    const bool tighter = (requested.position_min[i] >= (outer->position_min[i] - VE_MICRO)) &&
                         (requested.position_max[i] <= (outer->position_max[i] + VE_MICRO)) &&
                         (requested.position_min[i] < requested.position_max[i]) && (requested.velocity[i] > 0.0) &&
                         (requested.velocity[i] <= (outer->velocity[i] * WIDER)) && (requested.acceleration[i] > 0.0) &&
                         (requested.acceleration[i] <= (outer->acceleration[i] * WIDER)) && (requested.jerk[i] > 0.0) &&
                         (requested.jerk[i] <= (outer->jerk[i] * WIDER));
    if (!tighter) {
      const ve_verdict_t verdict = {VE_REFUSAL_WIDER_THAN_COMPILED, i, VE_NOBODY};
      return verdict;
    }
    requested.position_min[i] = fmax(requested.position_min[i], outer->position_min[i]);
    requested.position_max[i] = fmin(requested.position_max[i], outer->position_max[i]);
    requested.velocity[i] = fmin(requested.velocity[i], outer->velocity[i]);
    requested.acceleration[i] = fmin(requested.acceleration[i], outer->acceleration[i]);
    requested.jerk[i] = fmin(requested.jerk[i], outer->jerk[i]);
  }
  device->limits = requested;
  return accept();
}

static ve_verdict_t check_pose(const ve_device_t *device, const ve_frame_t *frame) {
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const double here = device->inputs.measured[i];
    ve_verdict_t verdict = {VE_REFUSAL_POSE_MISMATCH, i, VE_NOBODY};
    const double claimed = VE_MICRO * (double)ve_get_i32(&frame->payload[4u * i]);
    if (fabs(claimed - here) > VE_POSE_TOLERANCE_RAD) {
      return verdict;
    }
    if ((here < device->limits.position_min[i]) || (here > device->limits.position_max[i])) {
      verdict.refusal = VE_REFUSAL_OUTSIDE_LIMITS;
      return verdict;
    }
  }
  return accept();
}

static ve_verdict_t on_arm(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  if (frame->length != (uint16_t)(4u * device->profile->joints)) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if (device->state == VE_DEVICE_STATE_ARMED) {
    return accept(); /* the acknowledgement was lost, and the host retries */
  }
  if ((device->state != VE_DEVICE_STATE_IDLE) && (device->state != VE_DEVICE_STATE_HOLD)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  if (!ve_heartbeat_alive(device, now_us)) {
    return verdict_of(VE_REFUSAL_HEARTBEAT_MISSING);
  }
  if (!ve_feedback_good(device)) {
    return verdict_of(VE_REFUSAL_FEEDBACK_MISSING);
  }
  if ((device->state == VE_DEVICE_STATE_IDLE) && !ve_drive_is_off(device)) {
    return verdict_of(VE_REFUSAL_DRIVE_ON); /* set-points begin anew where the arm is: nothing may follow them yet */
  }
  const ve_verdict_t verdict = check_pose(device, frame);
  if (verdict.refusal != 0u) {
    return verdict;
  }
  ve_plan_clear(&device->plan);
  if (device->state == VE_DEVICE_STATE_IDLE) { /* the drive was off: hold where the arm is, as it is reported: */
    for (uint8_t i = 0u; i < device->profile->joints; i++) { /* a chunk that begins half a microradian off is a jump */
      const double reported = VE_MICRO * round(device->inputs.measured[i] / VE_MICRO);
      device->joint[i].q = fmin(fmax(reported, device->limits.position_min[i]), device->limits.position_max[i]);
      device->joint[i].v = 0.0;
      device->joint[i].a = 0.0;
      device->joint[i].off_plan = false;
    }
    ve_window_clear(&device->window);
  }
  device->drive_enable = true;
  ve_enter(device, VE_DEVICE_STATE_ARMED, VE_STOP_REASON_NONE, now_us);
  return accept();
}

static ve_verdict_t on_disarm(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  const uint8_t state = device->state;
  if ((state != VE_DEVICE_STATE_ARMED) && (state != VE_DEVICE_STATE_HOLD) && (state != VE_DEVICE_STATE_IDLE)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  device->drive_enable = false;
  ve_plan_clear(&device->plan);
  ve_enter(device, VE_DEVICE_STATE_IDLE, VE_STOP_REASON_NONE, now_us);
  return accept();
}

static ve_verdict_t on_chunk(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  if (frame->length < VE_CHUNK_FIXED_SIZE) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if (!ve_takes_chunks(device->state)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  return ve_plan_stage(&device->plan, ve_get_u16(&frame->payload[VE_CHUNK_CHUNK_AT]),
                       frame->payload[VE_CHUNK_FIRST_AT], frame->payload[VE_CHUNK_COUNT_AT],
                       &frame->payload[VE_CHUNK_FIXED_SIZE], (uint16_t)(frame->length - VE_CHUNK_FIXED_SIZE));
}

/* The device time nearest to now whose low 32 bits are `low`. */
static uint64_t unwrap(uint32_t low, uint64_t now_us) {
  const int64_t offset = (int64_t)(uint32_t)(low - (uint32_t)now_us + 0x80000000u) - (int64_t)0x80000000u;
  const int64_t time = (int64_t)now_us + offset;
  return (time > 0) ? (uint64_t)time : 0u;
}

static ve_verdict_t on_commit(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  if (frame->length != VE_COMMIT_FIXED_SIZE) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if (!ve_takes_chunks(device->state)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  const uint8_t *at = frame->payload;
  const ve_commit_t commit = {
      .chunk = ve_get_u16(&at[VE_COMMIT_CHUNK_AT]),
      .knots = at[VE_COMMIT_KNOTS_AT],
      .has_velocity = (at[VE_COMMIT_FLAGS_AT] & VE_COMMIT_FLAG_HAS_VELOCITY) != 0u,
      .start_us = unwrap(ve_get_u32(&at[VE_COMMIT_START_US_AT]), now_us),
      .spacing_us = ve_get_u32(&at[VE_COMMIT_SPACING_US_AT]),
      .crc = ve_get_u32(&at[VE_COMMIT_CRC_AT]),
  };
  if (device->has_commit && (commit.chunk == device->last_commit)) {
    return accept(); /* the acknowledgement was lost, and the host retries */
  }
  double rest[VE_MAX_JOINTS];
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    rest[i] = device->joint[i].q;
  }
  const ve_verdict_t verdict = ve_plan_commit(&device->plan, &commit, &device->limits, rest, now_us);
  if (verdict.refusal == 0u) {
    device->last_commit = commit.chunk;
    device->has_commit = true;
  }
  return verdict;
}

static ve_verdict_t on_heartbeat(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  if (frame->length != VE_HEARTBEAT_FIXED_SIZE) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  const uint32_t tick = ve_get_u32(&frame->payload[VE_HEARTBEAT_LOOP_TICK_AT]);
  if (!device->has_heartbeat || (tick != device->heartbeat_tick)) { /* an unchanged tick is a loop that hangs */
    device->heartbeat_tick = tick;
    device->heartbeat_us = now_us;
    device->has_heartbeat = true;
  }
  return accept();
}

static ve_verdict_t on_time_request(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  if (frame->length != VE_TIME_REQUEST_FIXED_SIZE) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  uint8_t payload[VE_TIME_REPLY_FIXED_SIZE];
  (void)memcpy(payload, frame->payload, VE_TIME_REQUEST_FIXED_SIZE);
  ve_put_u32(&payload[VE_TIME_REPLY_RECEIVED_US_AT], (uint32_t)now_us);
  ve_put_u32(&payload[VE_TIME_REPLY_SENT_US_AT], (uint32_t)now_us);
  ve_send(device, VE_MESSAGE_TYPE_TIME_REPLY, payload, VE_TIME_REPLY_FIXED_SIZE);
  return accept();
}

static ve_verdict_t on_stop(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (ve_takes_chunks(device->state)) {
    ve_enter(device, VE_DEVICE_STATE_DECEL, VE_STOP_REASON_HOST_STOP, now_us);
  }
  return accept(); /* standing still or stopping already is what was requested */
}

static ve_verdict_t on_estop(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (device->state != VE_DEVICE_STATE_ESTOP) {
    ve_latch(device, VE_DEVICE_STATE_ESTOP, VE_STOP_REASON_HOST_ESTOP, now_us);
  }
  return accept();
}

static ve_verdict_t on_clear(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (!ve_is_latched(device->state)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  if (device->session == device->latched_session) {
    return verdict_of(VE_REFUSAL_SAME_SESSION);
  }
  if (!ve_feedback_good(device)) {
    return verdict_of(VE_REFUSAL_CAUSE_REMAINS);
  }
  if (!ve_drive_is_off(device)) {
    return verdict_of(VE_REFUSAL_DRIVE_ON);
  }
  ve_enter(device, VE_DEVICE_STATE_IDLE, VE_STOP_REASON_NONE, now_us);
  return accept();
}

typedef struct {
  uint8_t type;
  bool acknowledged;
  handler_t handle;
} route_t;

static const route_t ROUTES[] = {
    {VE_MESSAGE_TYPE_HELLO, false, on_hello},         {VE_MESSAGE_TYPE_LIMITS, true, on_limits},
    {VE_MESSAGE_TYPE_ARM, true, on_arm},              {VE_MESSAGE_TYPE_DISARM, true, on_disarm},
    {VE_MESSAGE_TYPE_CHUNK, false, on_chunk},         {VE_MESSAGE_TYPE_COMMIT, true, on_commit},
    {VE_MESSAGE_TYPE_HEARTBEAT, false, on_heartbeat}, {VE_MESSAGE_TYPE_TIME_REQUEST, false, on_time_request},
    {VE_MESSAGE_TYPE_STOP, true, on_stop},            {VE_MESSAGE_TYPE_ESTOP, true, on_estop},
    {VE_MESSAGE_TYPE_CLEAR, true, on_clear},
};
#define ROUTE_COUNT (sizeof(ROUTES) / sizeof(ROUTES[0]))

static void dispatch(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  const bool any_session = (frame->type == VE_MESSAGE_TYPE_HELLO) || (frame->type == VE_MESSAGE_TYPE_ESTOP);
  if ((!any_session && (!device->has_session || (frame->session != device->session))) ||
      (device->state == VE_DEVICE_STATE_BOOT)) {
    return; /* a frame of an older session, or of nobody's */
  }
  for (uint8_t i = 0u; i < ROUTE_COUNT; i++) {
    if (ROUTES[i].type == frame->type) {
      ve_send_verdict(device, frame, ROUTES[i].acknowledged, ROUTES[i].handle(device, frame, now_us));
      return;
    }
  }
  ve_send_verdict(device, frame, false, verdict_of(VE_REFUSAL_UNKNOWN_TYPE));
}

void ve_device_receive(ve_device_t *device, uint8_t channel, uint8_t byte, uint64_t now_us) {
  ve_frame_t frame;
  if (ve_frame_reader_push(&device->reader[channel], byte, &frame)) {
    dispatch(device, &frame, now_us);
  }
}
