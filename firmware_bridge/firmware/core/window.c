#include "window.h"

#include <math.h>
#include <string.h>

void ve_window_clear(ve_window_t *window) {
  window->count = 0u;
  window->next = 0u;
}

bool ve_window_holds(const ve_window_t *window, const double *q, const ve_limits_t *limits, uint8_t joints,
                     uint64_t now_us) {
  for (uint8_t i = 0u; i < window->count; i++) {
    const uint64_t since_us = (now_us > window->time_us[i]) ? (now_us - window->time_us[i]) : 0u;
    const double time_s = VE_MICRO * ((double)since_us + (double)VE_WINDOW_SLACK_US);
    for (uint8_t joint = 0u; joint < joints; joint++) {
      if (fabs(q[joint] - window->q[i][joint]) > (limits->velocity[joint] * time_s)) {
        return false;
      }
    }
  }
  return true;
}

void ve_window_add(ve_window_t *window, const double *q, uint8_t joints, uint64_t now_us) {
  const uint8_t last = (uint8_t)((window->next + VE_WINDOW_SAMPLES - 1u) % VE_WINDOW_SAMPLES);
  if ((window->count > 0u) && (now_us < (window->time_us[last] + VE_WINDOW_EVERY_US))) {
    return;
  }
  window->time_us[window->next] = now_us;
  (void)memcpy(window->q[window->next], q, joints * sizeof(double));
  window->next = (uint8_t)((window->next + 1u) % VE_WINDOW_SAMPLES);
  if (window->count < VE_WINDOW_SAMPLES) {
    window->count++;
  }
}
