#include "device.h"

#include <math.h>
#include <string.h>

#define MICRO 1e-6
#define MILLI 1e-3
#define PERIOD_S (MICRO * VE_TICK_US)
#define TICK_LATE_US (3u * VE_TICK_US)
#define BUFFER_LOW_US 50000u
#define POSE_TOLERANCE_RAD 0.02
#define FOLLOWING_LIMIT_RAD 0.15
#define TRACKING_LIMIT_RAD 0.05
#define GUARD (1.0 - 1e-6) /* differences of doubles read back a little larger than what was computed */
#define WIDER 1.0000001 /* room for the rounding of limits to integers on the wire */

/* Handlers ------------------------------------------------------------------------------------------------------- */

typedef ve_verdict_t (*handler_t)(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us);

static ve_verdict_t verdict_of(uint8_t refusal) {
  const ve_verdict_t verdict = {refusal, VE_NOBODY, VE_NOBODY};
  return verdict;
}

static ve_verdict_t accept(void) { return verdict_of(0u); }

static void send_in(ve_device_t *device, uint16_t session, uint8_t type, const uint8_t *payload, uint16_t length) {
  uint8_t frame[VE_MAX_FRAME];
  const uint16_t size = ve_frame_encode(frame, type, session, device->sequence, payload, length);
  device->sequence++;
  if (((uint32_t)device->transmit_count + size) > VE_TRANSMIT_SIZE) {
    device->transmit_dropped++;
    return;
  }
  (void)memcpy(&device->transmit[device->transmit_count], frame, size);
  device->transmit_count = (uint16_t)(device->transmit_count + size);
}

static void send(ve_device_t *device, uint8_t type, const uint8_t *payload, uint16_t length) {
  send_in(device, device->session, type, payload, length);
}

static bool is_moving_state(uint8_t state) {
  return (state == VE_DEVICE_STATE_ARMED) || (state == VE_DEVICE_STATE_STREAMING) || (state == VE_DEVICE_STATE_DECEL);
}

static bool is_latched(uint8_t state) {
  return (state == VE_DEVICE_STATE_FAULT) || (state == VE_DEVICE_STATE_ESTOP);
}

static void enter(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us) {
  uint8_t payload[VE_EVENT_FIXED_SIZE];
  device->state = state;
  device->reason = reason;
  if (device->has_session) {
    ve_put_u32(&payload[VE_EVENT_DEVICE_US_AT], (uint32_t)now_us);
    payload[VE_EVENT_STATE_AT] = state;
    payload[VE_EVENT_REASON_AT] = reason;
    send(device, VE_MESSAGE_TYPE_EVENT, payload, VE_EVENT_FIXED_SIZE);
  }
}

static void latch(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us) {
  if (device->state != VE_DEVICE_STATE_ESTOP) { /* a fault never hides an emergency stop */
    device->latched_session = device->session;
    enter(device, state, reason, now_us);
  }
}

static void send_caps(ve_device_t *device) {
  uint8_t payload[VE_CAPS_FIXED_SIZE];
  ve_put_u32(&payload[VE_CAPS_MAGIC_AT], VE_MAGIC);
  ve_put_u32(&payload[VE_CAPS_SCHEMA_AT], VE_SCHEMA_HASH);
  ve_put_u32(&payload[VE_CAPS_FIRMWARE_AT], device->firmware_hash);
  ve_put_u32(&payload[VE_CAPS_PROFILE_AT], device->profile->hash);
  (void)memcpy(&payload[VE_CAPS_ARM_AT], device->profile->name, VE_CAPS_JOINTS_AT - VE_CAPS_ARM_AT);
  payload[VE_CAPS_JOINTS_AT] = device->profile->joints;
  payload[VE_CAPS_STATE_AT] = device->state;
  ve_put_u16(&payload[VE_CAPS_TICK_US_AT], VE_TICK_US);
  ve_put_u16(&payload[VE_CAPS_MAX_FRAME_AT], VE_MAX_FRAME);
  payload[VE_CAPS_MAX_KNOTS_AT] = VE_MAX_KNOTS;
  payload[VE_CAPS_CHUNK_SLOTS_AT] = VE_CHUNK_SLOTS - 1u;
  ve_put_u32(&payload[VE_CAPS_MIN_LEAD_US_AT], VE_MIN_LEAD_US);
  ve_put_u32(&payload[VE_CAPS_HEARTBEAT_LIMIT_US_AT], VE_HEARTBEAT_LIMIT_US);
  send(device, VE_MESSAGE_TYPE_CAPS, payload, VE_CAPS_FIXED_SIZE);
}

/* A new host takes over only while nothing moves: one that appears in mid-motion is refused. */
static ve_verdict_t on_hello(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  const bool repeated = device->has_session && (frame->session == device->session);
  if (!repeated && is_moving_state(device->state)) {
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
  send_caps(device);
  return accept();
}

static ve_verdict_t on_limits(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  const uint8_t joints = device->profile->joints;
  const ve_limits_t *outer = &device->profile->limits;
  ve_limits_t asked = *outer;
  const uint16_t row = (uint16_t)(4u * (uint16_t)joints);
  if (frame->length != (uint16_t)(VE_LIMITS_ROWS * row)) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if ((device->state != VE_DEVICE_STATE_IDLE) && (device->state != VE_DEVICE_STATE_HOLD)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  for (uint8_t i = 0u; i < joints; i++) {
    const uint8_t *at = &frame->payload[4u * i];
    asked.position_min[i] = MICRO * ve_get_i32(at);
    asked.position_max[i] = MICRO * ve_get_i32(&at[row]);
    asked.velocity[i] = MICRO * ve_get_i32(&at[2u * row]);
    asked.acceleration[i] = MILLI * ve_get_i32(&at[3u * row]);
    asked.jerk[i] = MILLI * ve_get_i32(&at[4u * row]);
    const bool tighter = (asked.position_min[i] >= (outer->position_min[i] - MICRO)) &&
                         (asked.position_max[i] <= (outer->position_max[i] + MICRO)) &&
                         (asked.position_min[i] < asked.position_max[i]) && (asked.velocity[i] > 0.0) &&
                         (asked.velocity[i] <= (outer->velocity[i] * WIDER)) && (asked.acceleration[i] > 0.0) &&
                         (asked.acceleration[i] <= (outer->acceleration[i] * WIDER)) && (asked.jerk[i] > 0.0) &&
                         (asked.jerk[i] <= (outer->jerk[i] * WIDER));
    if (!tighter) {
      const ve_verdict_t verdict = {VE_REFUSAL_WIDER_THAN_COMPILED, i, VE_NOBODY};
      return verdict;
    }
    asked.position_min[i] = fmax(asked.position_min[i], outer->position_min[i]);
    asked.position_max[i] = fmin(asked.position_max[i], outer->position_max[i]);
    asked.velocity[i] = fmin(asked.velocity[i], outer->velocity[i]);
    asked.acceleration[i] = fmin(asked.acceleration[i], outer->acceleration[i]);
    asked.jerk[i] = fmin(asked.jerk[i], outer->jerk[i]);
  }
  device->limits = asked;
  return accept();
}

/* A byte may carry a later time than the tick that follows it, when ticks run behind: that is no time, not 2^64 us. */
static uint64_t elapsed_us(uint64_t since_us, uint64_t now_us) {
  return (now_us > since_us) ? (uint64_t)(now_us - since_us) : 0u;
}

static bool heartbeat_alive(const ve_device_t *device, uint64_t now_us) {
  return device->has_heartbeat && (elapsed_us(device->heartbeat_us, now_us) <= VE_HEARTBEAT_LIMIT_US);
}

/* Every joint is measured, and as a number: NaN would slip through any comparison further on. */
static bool feedback_good(const ve_device_t *device) {
  bool good = device->inputs.feedback_ok;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    good = good && isfinite(device->inputs.measured[i]);
  }
  return good;
}

static ve_verdict_t check_pose(const ve_device_t *device, const ve_frame_t *frame) {
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const double here = device->inputs.measured[i];
    ve_verdict_t verdict = {VE_REFUSAL_POSE_MISMATCH, i, VE_NOBODY};
    const double told = MICRO * (double)ve_get_i32(&frame->payload[4u * i]);
    if (fabs(told - here) > POSE_TOLERANCE_RAD) {
      return verdict;
    }
    if ((here < device->limits.position_min[i]) || (here > device->limits.position_max[i])) {
      verdict.refusal = VE_REFUSAL_OUTSIDE_LIMITS;
      return verdict;
    }
  }
  return accept();
}

/* Commanded off, told so at the last tick, and measured off. */
static bool drive_is_off(const ve_device_t *device) {
  return !device->drive_enable && !device->drive_told_on && !device->inputs.drive_is_on;
}

static ve_verdict_t on_arm(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  if (frame->length != (uint16_t)(4u * device->profile->joints)) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if (device->state == VE_DEVICE_STATE_ARMED) {
    return accept(); /* the acknowledgement was lost, and the host asks again */
  }
  if ((device->state != VE_DEVICE_STATE_IDLE) && (device->state != VE_DEVICE_STATE_HOLD)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  if (!heartbeat_alive(device, now_us)) {
    return verdict_of(VE_REFUSAL_HEARTBEAT_MISSING);
  }
  if (!feedback_good(device)) {
    return verdict_of(VE_REFUSAL_FEEDBACK_MISSING);
  }
  if ((device->state == VE_DEVICE_STATE_IDLE) && !drive_is_off(device)) {
    return verdict_of(VE_REFUSAL_DRIVE_ON); /* set-points begin anew where the arm is: nothing may follow them yet */
  }
  const ve_verdict_t verdict = check_pose(device, frame);
  if (verdict.refusal != 0u) {
    return verdict;
  }
  ve_plan_clear(&device->plan);
  if (device->state == VE_DEVICE_STATE_IDLE) { /* the drive was off: hold where the arm is */
    for (uint8_t i = 0u; i < device->profile->joints; i++) {
      device->joint[i].q = device->inputs.measured[i];
      device->joint[i].v = 0.0;
      device->joint[i].a = 0.0;
      device->joint[i].off_plan = false;
    }
    ve_window_clear(&device->window);
  }
  device->drive_enable = true;
  enter(device, VE_DEVICE_STATE_ARMED, VE_STOP_REASON_NONE, now_us);
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
  enter(device, VE_DEVICE_STATE_IDLE, VE_STOP_REASON_NONE, now_us);
  return accept();
}

static bool takes_chunks(uint8_t state) {
  return (state == VE_DEVICE_STATE_ARMED) || (state == VE_DEVICE_STATE_STREAMING);
}

static ve_verdict_t on_chunk(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)now_us;
  if (frame->length < VE_CHUNK_FIXED_SIZE) {
    return verdict_of(VE_REFUSAL_BAD_LENGTH);
  }
  if (!takes_chunks(device->state)) {
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
  if (!takes_chunks(device->state)) {
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
    return accept(); /* the acknowledgement was lost, and the host asks again */
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
  send(device, VE_MESSAGE_TYPE_TIME_REPLY, payload, VE_TIME_REPLY_FIXED_SIZE);
  return accept();
}

static ve_verdict_t on_stop(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (takes_chunks(device->state)) {
    enter(device, VE_DEVICE_STATE_DECEL, VE_STOP_REASON_HOST_STOP, now_us);
  }
  return accept(); /* standing still or stopping already is what was asked for */
}

static ve_verdict_t on_estop(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (device->state != VE_DEVICE_STATE_ESTOP) {
    latch(device, VE_DEVICE_STATE_ESTOP, VE_STOP_REASON_HOST_ESTOP, now_us);
  }
  return accept();
}

static ve_verdict_t on_clear(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  (void)frame;
  if (!is_latched(device->state)) {
    return verdict_of(VE_REFUSAL_WRONG_STATE);
  }
  if (device->session == device->latched_session) {
    return verdict_of(VE_REFUSAL_SAME_SESSION);
  }
  if (!feedback_good(device)) {
    return verdict_of(VE_REFUSAL_CAUSE_REMAINS);
  }
  if (!drive_is_off(device)) {
    return verdict_of(VE_REFUSAL_DRIVE_ON);
  }
  enter(device, VE_DEVICE_STATE_IDLE, VE_STOP_REASON_NONE, now_us);
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

/* Answers in the session of the message: a HELLO that is refused, or an ESTOP, may come from another one. */
static void send_verdict(ve_device_t *device, const ve_frame_t *frame, bool acknowledged, ve_verdict_t verdict) {
  uint8_t payload[VE_NAK_FIXED_SIZE];
  if (verdict.refusal != 0u) {
    device->refusals++;
    ve_put_u16(&payload[VE_NAK_SEQUENCE_AT], frame->sequence);
    payload[VE_NAK_TYPE_AT] = frame->type;
    payload[VE_NAK_REFUSAL_AT] = verdict.refusal;
    payload[VE_NAK_STATE_AT] = device->state;
    payload[VE_NAK_JOINT_AT] = verdict.joint;
    payload[VE_NAK_KNOT_AT] = verdict.knot;
    send_in(device, frame->session, VE_MESSAGE_TYPE_NAK, payload, VE_NAK_FIXED_SIZE);
  } else if (acknowledged) {
    ve_put_u16(&payload[VE_ACK_SEQUENCE_AT], frame->sequence);
    payload[VE_ACK_TYPE_AT] = frame->type;
    payload[VE_ACK_STATE_AT] = device->state;
    send_in(device, frame->session, VE_MESSAGE_TYPE_ACK, payload, VE_ACK_FIXED_SIZE);
  } else {
    /* Heartbeats, fragments and time requests are not acknowledged. */
  }
}

static void dispatch(ve_device_t *device, const ve_frame_t *frame, uint64_t now_us) {
  const bool any_session = (frame->type == VE_MESSAGE_TYPE_HELLO) || (frame->type == VE_MESSAGE_TYPE_ESTOP);
  if ((!any_session && (!device->has_session || (frame->session != device->session))) ||
      (device->state == VE_DEVICE_STATE_BOOT)) {
    return; /* a frame of an older session, or of nobody's */
  }
  for (uint8_t i = 0u; i < ROUTE_COUNT; i++) {
    if (ROUTES[i].type == frame->type) {
      send_verdict(device, frame, ROUTES[i].acknowledged, ROUTES[i].handle(device, frame, now_us));
      return;
    }
  }
  send_verdict(device, frame, false, verdict_of(VE_REFUSAL_UNKNOWN_TYPE));
}

void ve_device_receive(ve_device_t *device, uint8_t channel, uint8_t byte, uint64_t now_us) {
  ve_frame_t frame;
  if (ve_frame_reader_push(&device->reader[channel], byte, &frame)) {
    dispatch(device, &frame, now_us);
  }
}

uint16_t ve_device_transmit(ve_device_t *device, uint8_t *out, uint16_t capacity) {
  const uint16_t count = (device->transmit_count < capacity) ? device->transmit_count : capacity;
  (void)memcpy(out, device->transmit, count);
  device->transmit_count = (uint16_t)(device->transmit_count - count);
  (void)memmove(device->transmit, &device->transmit[count], device->transmit_count);
  return count;
}

/* The tick ------------------------------------------------------------------------------------------------------- */

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

static ve_joint_limits_t joint_limits(const ve_limits_t *limits, uint8_t joint) {
  const ve_joint_limits_t one = {limits->position_min[joint], limits->position_max[joint],
                                 GUARD * limits->velocity[joint], GUARD * limits->acceleration[joint],
                                 GUARD * limits->jerk[joint]};
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
  const bool late = device->ticked && (elapsed_us(device->last_tick_us, now_us) > TICK_LATE_US);
  if (!device->drive_enable || is_latched(device->state)) {
    return;
  }
  if (late) {
    latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_TICK_LATE, now_us);
    return;
  }
  if (!feedback_good(device)) {
    latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_FEEDBACK_LOST, now_us);
    return;
  }
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    if (fabs(device->inputs.measured[i] - device->joint[i].q) > FOLLOWING_LIMIT_RAD) {
      latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_FOLLOWING_ERROR, now_us);
      return;
    }
  }
  if (takes_chunks(device->state) && !heartbeat_alive(device, now_us)) {
    enter(device, VE_DEVICE_STATE_DECEL, VE_STOP_REASON_HEARTBEAT_LOST, now_us);
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
    enter(device, VE_DEVICE_STATE_STREAMING, VE_STOP_REASON_NONE, now_us);
  }
  bool exact = true;
  bool resting = true;
  bool tracked = true;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    resting = resting && (point.dq[i] == 0.0);
    tracked = tracked && (fabs(point.q[i] - device->joint[i].q) <= TRACKING_LIMIT_RAD);
  }
  if (point.ended && !resting) {
    return VE_STOP_REASON_BUFFER_EMPTY;
  }
  if (!tracked) {
    return VE_STOP_REASON_TRACKING_LOST;
  }
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const ve_joint_limits_t limits = joint_limits(&device->limits, i);
    exact = ve_limiter_follow(&device->joint[i], point.q[i], point.dq[i], &limits, PERIOD_S) && exact;
  }
  device->interventions += exact ? 0u : 1u;
  if (point.ended && exact && all_at_rest(device)) { /* the plan came to rest by itself */
    ve_plan_finish(&device->plan);
    enter(device, VE_DEVICE_STATE_ARMED, VE_STOP_REASON_NONE, now_us);
  }
  return VE_STOP_REASON_NONE;
}

static void stop_all(ve_device_t *device, const ve_limits_t *limits) {
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    const ve_joint_limits_t one = joint_limits(limits, i);
    ve_limiter_stop(&device->joint[i], &one, PERIOD_S);
  }
}

static void send_state(ve_device_t *device, uint64_t now_us) {
  const uint8_t joints = device->profile->joints;
  const uint16_t rows = (uint16_t)(4u * VE_STATE_ROWS * (uint16_t)joints);
  uint8_t payload[VE_STATE_FIXED_SIZE + (4u * VE_STATE_ROWS * VE_MAX_JOINTS)];
  const uint64_t buffered_us = ve_plan_buffered_us(&device->plan, now_us);
  uint8_t flags = device->inputs.drive_is_on ? VE_STATE_FLAG_DRIVE_ON : 0u;
  if ((device->state == VE_DEVICE_STATE_STREAMING) && (buffered_us < BUFFER_LOW_US)) {
    flags |= VE_STATE_FLAG_BUFFER_LOW;
  }
  if (feedback_good(device)) {
    flags |= VE_STATE_FLAG_FEEDBACK_OK;
  }
  ve_put_u32(&payload[VE_STATE_DEVICE_US_AT], (uint32_t)now_us);
  payload[VE_STATE_STATE_AT] = device->state;
  payload[VE_STATE_REASON_AT] = device->reason;
  payload[VE_STATE_FLAGS_AT] = flags;
  payload[VE_STATE_FREE_SLOTS_AT] = ve_plan_free_slots(&device->plan);
  ve_put_u16(&payload[VE_STATE_CHUNK_AT], ve_plan_chunk_at(&device->plan, now_us));
  ve_put_u16(&payload[VE_STATE_BUFFERED_MS_AT], (uint16_t)(buffered_us / 1000u));
  ve_put_u32(&payload[VE_STATE_INTERVENTIONS_AT], device->interventions);
  ve_put_u16(&payload[VE_STATE_REFUSALS_AT], (uint16_t)device->refusals);
  ve_put_u16(&payload[VE_STATE_BAD_FRAMES_AT], (uint16_t)(device->reader[0].bad_frames + device->reader[1].bad_frames));
  for (uint8_t i = 0u; i < joints; i++) {
    const double measured = isfinite(device->inputs.measured[i]) ? device->inputs.measured[i] : 0.0;
    ve_put_i32(&payload[VE_STATE_FIXED_SIZE + (4u * i)], (int32_t)round(device->joint[i].q / MICRO));
    ve_put_i32(&payload[VE_STATE_FIXED_SIZE + (4u * (joints + i))], (int32_t)round(measured / MICRO));
  }
  send(device, VE_MESSAGE_TYPE_STATE, payload, (uint16_t)(VE_STATE_FIXED_SIZE + rows));
}

/* Stops within the limits of the state, and names the state that standstill leads to. */
static void decelerate(ve_device_t *device, uint64_t now_us) {
  const bool latched = is_latched(device->state);
  stop_all(device, latched ? &device->profile->limits : &device->limits);
  if (!all_at_rest(device)) {
    return;
  }
  ve_plan_clear(&device->plan);
  if (latched) {
    device->drive_enable = false;
  } else if (device->state == VE_DEVICE_STATE_DECEL) {
    enter(device, VE_DEVICE_STATE_HOLD, device->reason, now_us);
  } else {
    /* At rest in any other state: nothing to leave. */
  }
}

/* One period of motion in the present state. */
static void move(ve_device_t *device, uint64_t now_us) {
  if (takes_chunks(device->state)) {
    const uint8_t reason = follow(device, now_us);
    if (reason != VE_STOP_REASON_NONE) {
      enter(device, VE_DEVICE_STATE_DECEL, reason, now_us);
    }
  }
  if (!takes_chunks(device->state)) {
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
    latch(device, VE_DEVICE_STATE_FAULT, VE_STOP_REASON_RATE_WINDOW, now_us);
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
    send_state(device, now_us);
  }
  device->ticks++;
  device->last_tick_us = now_us;
  device->ticked = true;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    outputs->set_point[i] = device->joint[i].q;
    outputs->velocity[i] = device->joint[i].v;
  }
  outputs->drive_enable = device->drive_enable;
  device->drive_told_on = device->drive_enable;
}
