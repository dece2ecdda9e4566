/* A second look at the set-points, over real time: how far a joint may have come since some time ago.
 *
 * The limiter bounds what one tick may change. If ticks come faster than they should, legal steps add up to an illegal
 * move; this window, which trusts only the clock, sees that.
 */
#ifndef VE_WINDOW_H
#define VE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "profile.h"

typedef struct {
  uint8_t count;
  uint8_t next;
  uint64_t time_us[VE_WINDOW_SAMPLES];
  double q[VE_WINDOW_SAMPLES][VE_MAX_JOINTS];
} ve_window_t;

/* Forgets everything, as when the drive comes on. */
void ve_window_clear(ve_window_t *window);

/* Whether the set-points `q` at `now_us` lie within reach of every remembered one at the limits' velocities. */
bool ve_window_holds(const ve_window_t *window, const double *q, const ve_limits_t *limits, uint8_t joints,
                     uint64_t now_us);

/* Remembers the set-points at `now_us`, at most once per VE_WINDOW_EVERY_US. */
void ve_window_add(ve_window_t *window, const double *q, uint8_t joints, uint64_t now_us);

#endif
