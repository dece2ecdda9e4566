#include "parts.h"

#include <math.h>

bool ve_is_moving(uint8_t state) {
  return (state == VE_DEVICE_STATE_ARMED) || (state == VE_DEVICE_STATE_STREAMING) || (state == VE_DEVICE_STATE_DECEL);
}

bool ve_is_latched(uint8_t state) {
  return (state == VE_DEVICE_STATE_FAULT) || (state == VE_DEVICE_STATE_ESTOP);
}

bool ve_takes_chunks(uint8_t state) {
  return (state == VE_DEVICE_STATE_ARMED) || (state == VE_DEVICE_STATE_STREAMING);
}

uint64_t ve_elapsed_us(uint64_t since_us, uint64_t now_us) {
  return (now_us > since_us) ? (uint64_t)(now_us - since_us) : 0u;
}

bool ve_heartbeat_alive(const ve_device_t *device, uint64_t now_us) {
  return device->has_heartbeat && (ve_elapsed_us(device->heartbeat_us, now_us) <= VE_HEARTBEAT_LIMIT_US);
}

bool ve_feedback_good(const ve_device_t *device) {
  bool good = device->inputs.feedback_ok;
  for (uint8_t i = 0u; i < device->profile->joints; i++) {
    good = good && isfinite(device->inputs.measured[i]);
  }
  return good;
}

bool ve_drive_is_off(const ve_device_t *device) {
  return !device->drive_enable && !device->drive_commanded_on && !device->inputs.drive_is_on;
}
