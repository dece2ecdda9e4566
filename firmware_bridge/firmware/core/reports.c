#include "parts.h"

#include <math.h>
#include <string.h>

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

void ve_send(ve_device_t *device, uint8_t type, const uint8_t *payload, uint16_t length) {
  send_in(device, device->session, type, payload, length);
}

void ve_send_caps(ve_device_t *device) {
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
  ve_send(device, VE_MESSAGE_TYPE_CAPS, payload, VE_CAPS_FIXED_SIZE);
}

void ve_send_verdict(ve_device_t *device, const ve_frame_t *frame, bool acknowledged, ve_verdict_t verdict) {
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

void ve_send_state(ve_device_t *device, uint64_t now_us) {
  const uint8_t joints = device->profile->joints;
  const uint16_t rows = (uint16_t)(4u * VE_STATE_ROWS * (uint16_t)joints);
  uint8_t payload[VE_STATE_FIXED_SIZE + (4u * VE_STATE_ROWS * VE_MAX_JOINTS)];
  const uint64_t buffered_us = ve_plan_buffered_us(&device->plan, now_us);
  uint8_t flags = device->inputs.drive_is_on ? VE_STATE_FLAG_DRIVE_ON : 0u;
  if ((device->state == VE_DEVICE_STATE_STREAMING) && (buffered_us < VE_BUFFER_LOW_US)) {
    flags |= VE_STATE_FLAG_BUFFER_LOW;
  }
  if (ve_feedback_good(device)) {
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
    ve_put_i32(&payload[VE_STATE_FIXED_SIZE + (4u * i)], (int32_t)round(device->joint[i].q / VE_MICRO));
    ve_put_i32(&payload[VE_STATE_FIXED_SIZE + (4u * (joints + i))], (int32_t)round(measured / VE_MICRO));
  }
  ve_send(device, VE_MESSAGE_TYPE_STATE, payload, (uint16_t)(VE_STATE_FIXED_SIZE + rows));
}

uint16_t ve_device_transmit(ve_device_t *device, uint8_t *out, uint16_t capacity) {
  const uint16_t count = (device->transmit_count < capacity) ? device->transmit_count : capacity;
  (void)memcpy(out, device->transmit, count);
  device->transmit_count = (uint16_t)(device->transmit_count - count);
  (void)memmove(device->transmit, &device->transmit[count], device->transmit_count);
  return count;
}
