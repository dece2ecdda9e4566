#include "plan.h"

#include <math.h>
#include <string.h>

#include "frame.h"

static const ve_verdict_t ACCEPTED = {0u, VE_NOBODY, VE_NOBODY};

static ve_verdict_t refuse(uint8_t refusal, uint8_t joint, uint8_t knot) {
  const ve_verdict_t verdict = {refusal, joint, knot};
  return verdict;
}

void ve_plan_init(ve_plan_t *plan, uint8_t joints) {
  (void)memset(plan, 0, sizeof(*plan));
  plan->joints = joints;
}

void ve_plan_clear(ve_plan_t *plan) {
  plan->chained = 0u;
  plan->staged = 0u;
}

static const ve_chunk_t *chained(const ve_plan_t *plan, uint8_t index) { return &plan->slot[plan->chain[index]]; }

static uint64_t end_of(const ve_chunk_t *chunk) {
  return chunk->start_us + ((uint64_t)chunk->spacing_us * (uint64_t)(chunk->knots - 1u));
}

uint8_t ve_plan_free_slots(const ve_plan_t *plan) { return (uint8_t)(VE_CHUNK_SLOTS - 1u - plan->chained); }

ve_verdict_t ve_plan_stage(ve_plan_t *plan, uint16_t chunk, uint8_t first, uint8_t count, const uint8_t *bytes,
                           uint16_t size) {
  const uint32_t row = 4u * (uint32_t)plan->joints;
  const bool with_dq = (size == (2u * row * count));
  if ((count == 0u) || (((uint16_t)first + count) > VE_MAX_KNOTS) || (!with_dq && (size != (row * count)))) {
    return refuse(VE_REFUSAL_BAD_LENGTH, VE_NOBODY, first);
  }
  ve_chunk_t *staging = &plan->slot[plan->staging];
  if ((staging->id != chunk) || (plan->staged_with_dq != with_dq)) {
    plan->staged = 0u;
  }
  staging->id = chunk;
  plan->staged_with_dq = with_dq;
  const uint8_t *at = bytes;
  for (uint8_t i = 0u; i < count; i++) {
    const uint32_t index = (uint32_t)first + i;
    ve_knot_t *knot = &staging->knot[index];
    for (uint8_t joint = 0u; joint < plan->joints; joint++) {
      knot->q[joint] = ve_get_i32(&at[4u * joint]);
    }
    at = &at[row];
    if (with_dq) {
      for (uint8_t joint = 0u; joint < plan->joints; joint++) {
        knot->dq[joint] = ve_get_i32(&at[4u * joint]);
      }
      at = &at[row];
    }
    plan->staged |= 1ULL << index;
  }
  return ACCEPTED;
}

static uint32_t crc_of(const ve_plan_t *plan, const ve_chunk_t *chunk) {
  uint32_t crc = 0u;
  uint8_t bytes[4];
  for (uint8_t i = 0u; i < chunk->knots; i++) {
    for (uint8_t row = 0u; row < (plan->staged_with_dq ? 2u : 1u); row++) {
      const int32_t *values = (row == 0u) ? chunk->knot[i].q : chunk->knot[i].dq;
      for (uint8_t joint = 0u; joint < plan->joints; joint++) {
        ve_put_i32(bytes, values[joint]);
        crc = ve_crc32(crc, bytes, sizeof(bytes));
      }
    }
  }
  return crc;
}

/* Index in the chain of the chunk in force at a time; `plan->chained` when none has begun. */
static uint8_t in_force(const ve_plan_t *plan, uint64_t time_us) {
  uint8_t found = plan->chained;
  for (uint8_t i = 0u; i < plan->chained; i++) {
    if (chained(plan, i)->start_us <= time_us) {
      found = i;
    }
  }
  return found;
}

/* The cubic Hermite interpolant between two knots h seconds apart: c0 + c1 u + c2 u^2 + c3 u^3 at the fraction u. */
typedef struct {
  double c0;
  double c1;
  double c2;
  double c3;
} cubic_t;

static cubic_t cubic_between(const ve_knot_t *from, const ve_knot_t *to, uint8_t joint, double h) {
  const double q0 = VE_MICRO * from->q[joint];
  const double q1 = VE_MICRO * to->q[joint];
  const double m0 = h * VE_MICRO * from->dq[joint];
  const double m1 = h * VE_MICRO * to->dq[joint];
  const cubic_t cubic = {q0, m0, (3.0 * (q1 - q0)) - (2.0 * m0) - m1, (2.0 * (q0 - q1)) + m0 + m1};
  return cubic;
}

static double value_of(const cubic_t *cubic, double u) {
  return cubic->c0 + (u * (cubic->c1 + (u * (cubic->c2 + (u * cubic->c3)))));
}

static void evaluate(const ve_plan_t *plan, const ve_chunk_t *chunk, uint64_t time_us, ve_plan_point_t *point) {
  const uint64_t elapsed = time_us - chunk->start_us;
  const uint64_t segment = elapsed / chunk->spacing_us;
  point->ended = (segment >= (uint64_t)(chunk->knots - 1u));
  const uint8_t last = (uint8_t)(chunk->knots - 1u);
  for (uint8_t joint = 0u; joint < plan->joints; joint++) {
    if (point->ended) {
      point->q[joint] = VE_MICRO * chunk->knot[last].q[joint];
      point->dq[joint] = VE_MICRO * chunk->knot[last].dq[joint];
    } else {
      const uint64_t within_us = elapsed % chunk->spacing_us;
      const double u = (double)within_us / (double)chunk->spacing_us;
      const double h = VE_MICRO * chunk->spacing_us;
      const cubic_t cubic = cubic_between(&chunk->knot[segment], &chunk->knot[segment + 1u], joint, h);
      point->q[joint] = value_of(&cubic, u);
      point->dq[joint] = (cubic.c1 + (u * ((2.0 * cubic.c2) + (3.0 * u * cubic.c3)))) / h;
    }
  }
}

bool ve_plan_at(const ve_plan_t *plan, uint64_t time_us, ve_plan_point_t *point) {
  const uint8_t index = in_force(plan, time_us);
  if (index >= plan->chained) {
    return false;
  }
  evaluate(plan, chained(plan, index), time_us, point);
  return true;
}

uint16_t ve_plan_chunk_at(const ve_plan_t *plan, uint64_t time_us) {
  const uint8_t index = in_force(plan, time_us);
  return (index < plan->chained) ? chained(plan, index)->id : 0u;
}

uint64_t ve_plan_buffered_us(const ve_plan_t *plan, uint64_t time_us) {
  if (plan->chained == 0u) {
    return 0u;
  }
  const uint64_t end = end_of(chained(plan, (uint8_t)(plan->chained - 1u)));
  return (end > time_us) ? (uint64_t)(end - time_us) : 0u;
}

/* Takes `slot` out of the chain's bookkeeping by finding one that the chain does not use. */
static uint8_t unused_slot(const ve_plan_t *plan) {
  uint8_t slot = 0u;
  for (uint8_t candidate = 0u; candidate < VE_CHUNK_SLOTS; candidate++) {
    bool used = false;
    for (uint8_t i = 0u; i < plan->chained; i++) {
      used = used || (plan->chain[i] == candidate);
    }
    if (!used) {
      slot = candidate;
    }
  }
  return slot;
}

void ve_plan_finish(ve_plan_t *plan) {
  plan->chained--;
  (void)memmove(&plan->chain[0], &plan->chain[1], plan->chained);
}

void ve_plan_retire(ve_plan_t *plan, uint64_t time_us) {
  while ((plan->chained > 1u) && (chained(plan, 1u)->start_us <= time_us)) {
    ve_plan_finish(plan);
  }
}

static int32_t micro_of(double dq_urad_s) { return (int32_t)fmin(fmax(dq_urad_s, -2e9), 2e9); }

/* Velocities for a chunk that came without: central differences inside, the plan's own at the start. */
static void fill_velocities(const ve_plan_t *plan, ve_chunk_t *chunk, const double *first_dq) {
  const double h = VE_MICRO * chunk->spacing_us;
  const uint8_t last = (uint8_t)(chunk->knots - 1u);
  for (uint8_t joint = 0u; joint < plan->joints; joint++) {
    chunk->knot[0].dq[joint] = micro_of(first_dq[joint] / VE_MICRO);
    for (uint8_t i = 1u; i <= last; i++) {
      const uint8_t before = (uint8_t)(i - 1u);
      const uint8_t after = (i < last) ? (uint8_t)(i + 1u) : last;
      const double rise = (double)chunk->knot[after].q[joint] - (double)chunk->knot[before].q[joint];
      const uint8_t segments = (uint8_t)(after - before);
      chunk->knot[i].dq[joint] = micro_of(rise / (h * (double)segments));
    }
  }
}

/* Largest speed on one segment: the ends, or the vertex of the parabola that the velocity follows. */
static double fastest(double v0, double v1, double a0, double a1, double h) {
  double peak = fmax(fabs(v0), fabs(v1));
  if ((a0 * a1) < 0.0) {
    peak = fmax(peak, fabs(v0 + (0.5 * a0 * h * a0 / (a0 - a1))));
  }
  return peak;
}

static bool inside(double q, uint8_t joint, const ve_limits_t *limits) {
  return (q >= limits->position_min[joint]) && (q <= limits->position_max[joint]);
}

/* Whether a turning point at the fraction u, if the segment has one there, is inside. NaN and infinity are no fraction. */
static bool turn_inside(const cubic_t *cubic, double u, uint8_t joint, const ve_limits_t *limits) {
  return !((u > 0.0) && (u < 1.0)) || inside(value_of(cubic, u), joint, limits);
}

/* Whether the curve stays inside between its knots. The turning points solve c1 + 2 c2 u + 3 c3 u^2 = 0; the two forms
 * of the root keep their precision and need no case for c3 = 0. */
static bool curve_inside(const cubic_t *cubic, uint8_t joint, const ve_limits_t *limits) {
  const double discriminant = (cubic->c2 * cubic->c2) - (3.0 * cubic->c1 * cubic->c3);
  if (discriminant <= 0.0) {
    return true;
  }
  const double sum = -(cubic->c2 + copysign(sqrt(discriminant), cubic->c2));
  return turn_inside(cubic, sum / (3.0 * cubic->c3), joint, limits) &&
         turn_inside(cubic, cubic->c1 / sum, joint, limits);
}

static ve_verdict_t check_segment(const ve_knot_t *from, const ve_knot_t *to, uint8_t joint, uint8_t knot, double h,
                                  const ve_limits_t *limits) {
  const cubic_t cubic = cubic_between(from, to, joint, h);
  if (!curve_inside(&cubic, joint, limits)) {
    return refuse(VE_REFUSAL_POSITION, joint, knot);
  }
  const double rise = VE_MICRO * ((double)to->q[joint] - (double)from->q[joint]) / h;
  const double v0 = VE_MICRO * from->dq[joint];
  const double v1 = VE_MICRO * to->dq[joint];
  const double a0 = ((6.0 * rise) - (4.0 * v0) - (2.0 * v1)) / h;
  const double a1 = ((2.0 * v0) + (4.0 * v1) - (6.0 * rise)) / h;
  if (fastest(v0, v1, a0, a1, h) > limits->velocity[joint]) {
    return refuse(VE_REFUSAL_VELOCITY, joint, knot);
  }
  if (fmax(fabs(a0), fabs(a1)) > limits->acceleration[joint]) {
    return refuse(VE_REFUSAL_ACCELERATION, joint, knot);
  }
  return ACCEPTED;
}

static ve_verdict_t check_knots(const ve_plan_t *plan, const ve_chunk_t *chunk, const ve_limits_t *limits) {
  for (uint8_t i = 0u; i < chunk->knots; i++) {
    for (uint8_t joint = 0u; joint < plan->joints; joint++) {
      if (!inside(VE_MICRO * chunk->knot[i].q[joint], joint, limits)) {
        return refuse(VE_REFUSAL_POSITION, joint, i);
      }
      if (i > 0u) {
        const ve_verdict_t verdict = check_segment(&chunk->knot[i - 1u], &chunk->knot[i], joint, i,
                                                   VE_MICRO * chunk->spacing_us, limits);
        if (verdict.refusal != 0u) {
          return verdict;
        }
      }
    }
  }
  return ACCEPTED;
}

static ve_verdict_t check_splice(const ve_plan_t *plan, const ve_chunk_t *chunk, const ve_plan_point_t *before) {
  for (uint8_t joint = 0u; joint < plan->joints; joint++) {
    if (fabs((VE_MICRO * chunk->knot[0].q[joint]) - before->q[joint]) > VE_SPLICE_POSITION_RAD) {
      return refuse(VE_REFUSAL_SPLICE_POSITION, joint, 0u);
    }
    if (fabs((VE_MICRO * chunk->knot[0].dq[joint]) - before->dq[joint]) > VE_SPLICE_VELOCITY_RAD_S) {
      return refuse(VE_REFUSAL_SPLICE_VELOCITY, joint, 0u);
    }
  }
  return ACCEPTED;
}

static ve_verdict_t check_form(const ve_plan_t *plan, const ve_commit_t *commit, uint64_t now_us) {
  if ((commit->knots < 2u) || (commit->knots > VE_MAX_KNOTS)) {
    return refuse(VE_REFUSAL_KNOT_COUNT, VE_NOBODY, VE_NOBODY);
  }
  if ((commit->spacing_us < VE_MIN_SPACING_US) || (commit->spacing_us > VE_MAX_SPACING_US)) {
    return refuse(VE_REFUSAL_KNOT_SPACING, VE_NOBODY, VE_NOBODY);
  }
  const uint64_t wanted = ((uint64_t)1u << commit->knots) - 1u;
  const uint64_t have = (plan->slot[plan->staging].id == commit->chunk) ? plan->staged : 0u;
  for (uint8_t i = 0u; i < commit->knots; i++) {
    if (((have >> i) & 1u) == 0u) {
      return refuse(VE_REFUSAL_KNOTS_MISSING, VE_NOBODY, i);
    }
  }
  if ((have != wanted) || (commit->has_velocity != plan->staged_with_dq)) {
    return refuse(VE_REFUSAL_KNOT_COUNT, VE_NOBODY, VE_NOBODY);
  }
  if (commit->start_us < (now_us + VE_MIN_LEAD_US)) {
    return refuse(VE_REFUSAL_LEAD_TOO_SHORT, VE_NOBODY, VE_NOBODY);
  }
  if (commit->start_us > (now_us + VE_MAX_START_US)) {
    return refuse(VE_REFUSAL_START_TOO_FAR, VE_NOBODY, VE_NOBODY);
  }
  return ACCEPTED;
}

/* The plan at the start of a new chunk: what it must join without a jump. False when the plan would run dry before. */
static bool joint_of_plans(const ve_plan_t *plan, uint64_t start_us, const double *rest_q, ve_plan_point_t *before) {
  const uint8_t index = in_force(plan, start_us);
  if (index < plan->chained) {
    const ve_chunk_t *chunk = chained(plan, index);
    evaluate(plan, chunk, start_us, before);
    for (uint8_t joint = 0u; joint < plan->joints; joint++) {
      if (before->ended && (start_us > end_of(chunk)) && (chunk->knot[chunk->knots - 1u].dq[joint] != 0)) {
        return false;
      }
    }
    return true;
  }
  for (uint8_t joint = 0u; joint < plan->joints; joint++) {
    before->q[joint] = rest_q[joint];
    before->dq[joint] = 0.0;
  }
  return true;
}

ve_verdict_t ve_plan_commit(ve_plan_t *plan, const ve_commit_t *commit, const ve_limits_t *limits, const double *rest_q,
                            uint64_t now_us) {
  ve_verdict_t verdict = check_form(plan, commit, now_us);
  if (verdict.refusal != 0u) {
    return verdict;
  }
  ve_chunk_t *chunk = &plan->slot[plan->staging];
  chunk->knots = commit->knots;
  chunk->start_us = commit->start_us;
  chunk->spacing_us = commit->spacing_us;
  if (crc_of(plan, chunk) != commit->crc) {
    plan->staged = 0u;
    return refuse(VE_REFUSAL_CHUNK_CRC, VE_NOBODY, VE_NOBODY);
  }
  ve_plan_point_t before;
  if (!joint_of_plans(plan, chunk->start_us, rest_q, &before)) {
    return refuse(VE_REFUSAL_GAP, VE_NOBODY, VE_NOBODY);
  }
  if (!commit->has_velocity) {
    fill_velocities(plan, chunk, before.dq);
  }
  verdict = check_knots(plan, chunk, limits);
  if (verdict.refusal == 0u) {
    verdict = check_splice(plan, chunk, &before);
  }
  if (verdict.refusal != 0u) {
    return verdict;
  }
  uint8_t kept = 0u;
  while ((kept < plan->chained) && (chained(plan, kept)->start_us < chunk->start_us)) {
    kept++;
  }
  if (kept >= (VE_CHUNK_SLOTS - 1u)) {
    return refuse(VE_REFUSAL_BUFFER_FULL, VE_NOBODY, VE_NOBODY);
  }
  plan->chain[kept] = plan->staging;
  plan->chained = (uint8_t)(kept + 1u);
  plan->staging = unused_slot(plan);
  plan->staged = 0u;
  return ACCEPTED;
}
