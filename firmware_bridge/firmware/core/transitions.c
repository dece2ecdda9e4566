#include "parts.h"

void ve_enter(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us) {
  uint8_t payload[VE_EVENT_FIXED_SIZE];
  device->state = state;
  device->reason = reason;
  if (device->has_session) {
    ve_put_u32(&payload[VE_EVENT_DEVICE_US_AT], (uint32_t)now_us);
    payload[VE_EVENT_STATE_AT] = state;
    payload[VE_EVENT_REASON_AT] = reason;
    ve_send(device, VE_MESSAGE_TYPE_EVENT, payload, VE_EVENT_FIXED_SIZE);
  }
}

void ve_latch(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us) {
  if (device->state != VE_DEVICE_STATE_ESTOP) { /* a fault never hides an emergency stop */
    device->latched_session = device->session;
    ve_enter(device, state, reason, now_us);
  }
}
