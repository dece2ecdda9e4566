#include "hosted.h"

#include <stdlib.h>
#include <string.h>

#ifndef VE_FIRMWARE_HASH
#define VE_FIRMWARE_HASH 0u
#endif

#define TRACE_BUFFER (1u << 16)

static const char *const STATE_NAMES[] = {"BOOT",  "SILENT", "IDLE",  "ARMED", "STREAMING",
                                          "DECEL", "HOLD",   "FAULT", "ESTOP"};

static const ve_profile_t *profile_of(const char *arm) {
  for (uint8_t i = 0; i < VE_PROFILE_COUNT; i++) {
    if (strncmp(VE_PROFILES[i].name, arm, sizeof(VE_PROFILES[i].name)) == 0) {
      return &VE_PROFILES[i];
    }
  }
  fprintf(stderr, "no profile '%s' is compiled into this firmware\n", arm);
  return NULL;
}

static bool open_trace(ve_hosted_t *hosted, const char *path) {
  hosted->trace = fopen(path, "w");
  if (hosted->trace == NULL) {
    perror(path);
    return false;
  }
  (void)setvbuf(hosted->trace, NULL, _IOFBF, TRACE_BUFFER);
  (void)fputs("tick_us,state", hosted->trace);
  for (uint8_t i = 0; i < ve_hosted_joints(hosted); i++) {
    (void)fprintf(hosted->trace, ",q%u", i);
  }
  for (uint8_t i = 0; i < ve_hosted_joints(hosted); i++) {
    (void)fprintf(hosted->trace, ",dq%u", i);
  }
  (void)fputs(",chunk,limited\n", hosted->trace);
  return true;
}

static void write_trace(ve_hosted_t *hosted, bool limited) {
  (void)fprintf(hosted->trace, "%llu,%s", (unsigned long long)hosted->now_us, STATE_NAMES[hosted->device.state]);
  for (uint8_t i = 0; i < ve_hosted_joints(hosted); i++) {
    (void)fprintf(hosted->trace, ",%.17g", hosted->outputs.set_point[i]);
  }
  for (uint8_t i = 0; i < ve_hosted_joints(hosted); i++) {
    (void)fprintf(hosted->trace, ",%.17g", hosted->outputs.velocity[i]);
  }
  const bool streaming = (hosted->device.state == VE_DEVICE_STATE_STREAMING);
  const uint16_t chunk = streaming ? ve_plan_chunk_at(&hosted->device.plan, hosted->now_us) : 0u;
  (void)fprintf(hosted->trace, ",%u,%d\n", chunk, limited ? 1 : 0);
}

ve_hosted_t *ve_hosted_open(const char *arm, const double *start, const char *trace) {
  const ve_profile_t *profile = profile_of(arm);
  ve_hosted_t *hosted = (profile == NULL) ? NULL : calloc(1, sizeof(*hosted));
  if (hosted == NULL) {
    return NULL;
  }
  ve_device_init(&hosted->device, profile, VE_FIRMWARE_HASH, start);
  if ((trace != NULL) && !open_trace(hosted, trace)) {
    ve_hosted_close(hosted);
    return NULL;
  }
  return hosted;
}

void ve_hosted_receive(ve_hosted_t *hosted, uint8_t channel, const uint8_t *bytes, uint32_t count, uint64_t now_us) {
  for (uint32_t i = 0; i < count; i++) {
    ve_device_receive(&hosted->device, channel, bytes[i], now_us);
  }
}

void ve_hosted_tick(ve_hosted_t *hosted, const ve_inputs_t *inputs) {
  const uint32_t interventions = hosted->device.interventions;
  hosted->now_us = inputs->now_us;
  ve_device_tick(&hosted->device, inputs, &hosted->outputs);
  if (hosted->trace != NULL) {
    write_trace(hosted, hosted->device.interventions != interventions);
  }
}

bool ve_hosted_exchange(ve_hosted_t *hosted, uint64_t now_us, const double *measured, bool feedback_ok,
                        bool drive_is_on, double *set_point, double *velocity) {
  const size_t size = ve_hosted_joints(hosted) * sizeof(double);
  ve_inputs_t inputs = {.now_us = now_us, .feedback_ok = feedback_ok, .drive_is_on = drive_is_on};
  memcpy(inputs.measured, measured, size);
  ve_hosted_tick(hosted, &inputs);
  memcpy(set_point, hosted->outputs.set_point, size);
  memcpy(velocity, hosted->outputs.velocity, size);
  return hosted->outputs.drive_enable;
}

uint32_t ve_hosted_transmit(ve_hosted_t *hosted, uint8_t *out, uint32_t capacity) {
  const uint16_t most = (capacity < VE_TRANSMIT_SIZE) ? (uint16_t)capacity : VE_TRANSMIT_SIZE;
  return ve_device_transmit(&hosted->device, out, most);
}

void ve_hosted_latch(ve_hosted_t *hosted, uint8_t state, uint8_t reason) {
  hosted->device.state = state;
  hosted->device.reason = reason;
  hosted->device.latched_session = 0u;
}

uint8_t ve_hosted_reason(const ve_hosted_t *hosted) { return hosted->device.reason; }

uint8_t ve_hosted_state(const ve_hosted_t *hosted) { return hosted->device.state; }

uint8_t ve_hosted_joints(const ve_hosted_t *hosted) { return hosted->device.profile->joints; }

void ve_hosted_flush(ve_hosted_t *hosted) {
  if (hosted->trace != NULL) {
    (void)fflush(hosted->trace);
  }
}

void ve_hosted_close(ve_hosted_t *hosted) {
  if (hosted->trace != NULL) {
    (void)fclose(hosted->trace);
  }
  free(hosted);
}
