/* Chunks on the device: a staging area that fills knot by knot, and a chain of committed chunks with absolute times. */
#ifndef VE_PLAN_H
#define VE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "profile.h"

/* Microradians and microradians per second. */
typedef struct {
  int32_t q[VE_MAX_JOINTS];
  int32_t dq[VE_MAX_JOINTS];
} ve_knot_t;

typedef struct {
  uint16_t id;
  uint8_t knots;
  uint64_t start_us;
  uint32_t spacing_us;
  ve_knot_t knot[VE_MAX_KNOTS];
} ve_chunk_t;

typedef struct {
  uint8_t joints;
  ve_chunk_t slot[VE_CHUNK_SLOTS];
  uint8_t chain[VE_CHUNK_SLOTS - 1u]; /* slots of the committed chunks, in the order of their start */
  uint8_t chained;
  uint8_t staging;     /* slot being filled */
  uint64_t staged;     /* bit i: knot i of the staging chunk has arrived */
  bool staged_with_dq; /* whether its knots carry velocities */
} ve_plan_t;

/* Where the plan is at one time, in radians and seconds. */
typedef struct {
  double q[VE_MAX_JOINTS];
  double dq[VE_MAX_JOINTS];
  bool ended; /* the last knot has passed: q is that knot, dq its velocity */
} ve_plan_point_t;

typedef struct {
  uint16_t chunk;
  uint8_t knots;
  bool has_velocity;
  uint64_t start_us;
  uint32_t spacing_us;
  uint32_t crc;
} ve_commit_t;

/* 0 when accepted, else one of VE_REFUSAL_*, with the joint and knot to blame. */
typedef struct {
  uint8_t refusal;
  uint8_t joint;
  uint8_t knot;
} ve_verdict_t;

void ve_plan_init(ve_plan_t *plan, uint8_t joints);

/* Drops every chunk, staged and committed. */
void ve_plan_clear(ve_plan_t *plan);

/* Takes a fragment of `count` knots from `bytes`; a new chunk id starts the staging area afresh. */
ve_verdict_t ve_plan_stage(ve_plan_t *plan, uint16_t chunk, uint8_t first, uint8_t count, const uint8_t *bytes,
                           uint16_t size);

/* Checks the staged chunk against the limits and the plan it replaces, and puts it in force whole or not at all.
 * `rest_q` is the commanded pose, in force while nothing is committed. */
ve_verdict_t ve_plan_commit(ve_plan_t *plan, const ve_commit_t *commit, const ve_limits_t *limits, const double *rest_q,
                            uint64_t now_us);

/* Evaluates the plan; false when nothing is committed or the first chunk has not begun. */
bool ve_plan_at(const ve_plan_t *plan, uint64_t time_us, ve_plan_point_t *point);

/* Frees the first chunk of a chain that has one; those that begin later stay committed. */
void ve_plan_finish(ve_plan_t *plan);

/* Frees the chunks that a later one has replaced by `time_us`. */
void ve_plan_retire(ve_plan_t *plan, uint64_t time_us);

/* Id of the chunk in force at `time_us`, 0 when none is. */
uint16_t ve_plan_chunk_at(const ve_plan_t *plan, uint64_t time_us);

/* Microseconds of motion still committed after `time_us`. */
uint64_t ve_plan_buffered_us(const ve_plan_t *plan, uint64_t time_us);

uint8_t ve_plan_free_slots(const ve_plan_t *plan);

#endif
