/* The core on a computer: one device, the set-points it puts out, and a trace of them. Who owns the drive steps it. */
#ifndef VE_HOSTED_H
#define VE_HOSTED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "device.h"

typedef struct {
  ve_device_t device;
  ve_outputs_t outputs;
  uint64_t now_us; /* of the last tick */
  FILE *trace;
} ve_hosted_t;

/* Opens the device of the arm `arm` at the pose `start` (one value per joint); `trace` is a path and may be NULL.
 * Returns NULL with a message on stderr when there is no such arm, or the file cannot be opened. */
ve_hosted_t *ve_hosted_open(const char *arm, const double *start, const char *trace);

/* Bytes from the host on a channel of the device, received at device time `now_us`. */
void ve_hosted_receive(ve_hosted_t *hosted, uint8_t channel, const uint8_t *bytes, uint32_t count, uint64_t now_us);

/* One period, with what the drive reports; its set-points are in `outputs` afterwards, and a line in the trace. */
void ve_hosted_tick(ve_hosted_t *hosted, const ve_inputs_t *inputs);

/* The same for callers that have no ve_inputs_t: `joints` values each; returns whether the drive is to be on. */
bool ve_hosted_exchange(ve_hosted_t *hosted, uint64_t now_us, const double *measured, bool feedback_ok,
                        bool drive_is_on, double *set_point, double *velocity);

/* Bytes for the host; returns how many were moved into `out`. */
uint32_t ve_hosted_transmit(ve_hosted_t *hosted, uint8_t *out, uint32_t capacity);

/* The device is found in FAULT or ESTOP: another process has seen it stop, or the arm has stopped by itself. Nobody's
 * session is that of the stop, so any may clear it. */
void ve_hosted_latch(ve_hosted_t *hosted, uint8_t state, uint8_t reason);

uint8_t ve_hosted_state(const ve_hosted_t *hosted);
uint8_t ve_hosted_reason(const ve_hosted_t *hosted);
uint8_t ve_hosted_joints(const ve_hosted_t *hosted);

/* Makes the trace on disk complete up to the last tick. */
void ve_hosted_flush(ve_hosted_t *hosted);

void ve_hosted_close(ve_hosted_t *hosted);

#endif
