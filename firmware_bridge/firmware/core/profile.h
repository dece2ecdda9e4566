/* The envelope of an arm, compiled in. The host may tighten it for a session and never widen it. */
#ifndef VE_PROFILE_H
#define VE_PROFILE_H

#include <stdint.h>

#include "wire_messages.h"

/* Radians and seconds; one entry per joint. */
typedef struct {
  double position_min[VE_MAX_JOINTS];
  double position_max[VE_MAX_JOINTS];
  double velocity[VE_MAX_JOINTS];
  double acceleration[VE_MAX_JOINTS];
  double jerk[VE_MAX_JOINTS];
} ve_limits_t;

/* Velocity limits that fall towards the ends of a joint's range: with `room` rad left to `high`, the joint may move up at
 * sqrt(slope room) - offset, and likewise down towards `low`. A slope of 0: this joint has no such limit. */
typedef struct {
  double offset[VE_MAX_JOINTS]; /* rad/s */
  double slope[VE_MAX_JOINTS];  /* rad/s^2 */
  double low[VE_MAX_JOINTS];    /* rad */
  double high[VE_MAX_JOINTS];   /* rad */
} ve_edges_t;

typedef struct {
  char name[16]; /* as CAPS carries it: padded with zeros, which need not end it */
  uint8_t joints;
  uint32_t hash; /* of all that follows and the name; the host computes the same from its own profile */
  ve_limits_t limits;
  double following[VE_MAX_JOINTS]; /* rad; how far a joint may be from its set-point */
  ve_edges_t edges;
} ve_profile_t;

extern const ve_profile_t VE_PROFILES[];
extern const uint8_t VE_PROFILE_COUNT;

#endif
