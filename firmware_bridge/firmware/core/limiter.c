#include "limiter.h"

#include <math.h>

#define REST_VELOCITY 1e-9
#define REST_ACCELERATION 1e-6
#define FOLLOW_RATE 40.0  /* 1/s; how fast a deviation from the plan is worked off */
#define BLEND_TRIES 6     /* halvings between the wanted step and the stop's own step */
#define REACH_PERIODS 1.5 /* a discrete stop starts up to this many periods later than the continuous formula */

static double clamp(double value, double low, double high) { return fmin(fmax(value, low), high); }

bool ve_joint_at_rest(const ve_joint_state_t *state) {
  return (fabs(state->v) < REST_VELOCITY) && (fabs(state->a) < REST_ACCELERATION);
}

/* The largest deceleration x that still ends at v = 0 and a = 0 together, without overshoot, when acceleration may
 * change by `step` = jerk T per tick: n ticks of x, x - step, ... take away n x T - step T n (n - 1) / 2. */
static double landing_deceleration(double speed, double step, double period) {
  const double ratio = speed / (step * period);
  const double n = fmax(1.0, ceil(0.5 * (sqrt(1.0 + (8.0 * ratio)) - 1.0)));
  return (speed / (n * period)) + (0.5 * step * (n - 1.0));
}

double ve_stop_acceleration(const ve_joint_state_t *state, const ve_joint_limits_t *limits, double period) {
  const double step = limits->jerk * period;
  const double deceleration = fmin(landing_deceleration(fabs(state->v), step, period), limits->acceleration);
  const double wanted = (state->v > 0.0) ? -deceleration : deceleration;
  return clamp(wanted, state->a - step, state->a + step);
}

/* Distance of a continuous stop from speed v > 0 at zero acceleration. */
static double rest_to_rest_distance(double v, const ve_joint_limits_t *limits) {
  const double ramp = limits->acceleration / limits->jerk;
  if (v >= (limits->acceleration * ramp)) {
    return 0.5 * v * ((v / limits->acceleration) + ramp);
  }
  return v * sqrt(v / limits->jerk);
}

double ve_stop_reach(double v, double a, const ve_joint_limits_t *limits, double period) {
  const double j = limits->jerk;
  const double t = fabs(a) / j;
  const double swing = 0.5 * a * t; /* change of velocity while the acceleration returns to zero */
  const double later = REACH_PERIODS * period;
  if (a > 0.0) {
    const double top = v + swing;
    const double until_top = (v * t) + (a * t * t / 3.0);
    return (top > 0.0) ? fmax(0.0, until_top + rest_to_rest_distance(top, limits) + (later * top)) : 0.0;
  }
  if (v <= 0.0) {
    return 0.0;
  }
  if (v >= -swing) { /* already on the way to a stop that began at a higher speed */
    const double start = v - swing;
    const double behind = (start * t) - (j * t * t * t / 6.0);
    return (rest_to_rest_distance(start, limits) - behind) + (later * v); /* what is left is at least j t^3 / 6 */
  }
  const double zero = (-a - sqrt((a * a) - (2.0 * j * v))) / j; /* braking so hard that it turns around */
  return (v * zero) + (0.5 * a * zero * zero) + (j * zero * zero * zero / 6.0) + (later * v);
}

/* The velocity limit where `room` rad are left to the edge that a joint moves towards. */
static double velocity_limit(double room, const ve_joint_limits_t *limits) {
  if (limits->edge_slope <= 0.0) {
    return limits->velocity;
  }
  const double near_edge = sqrt(fmax(0.0, limits->edge_slope * room)) - limits->edge_offset;
  return clamp(near_edge, 0.0, limits->velocity);
}

/* Whether a tick with acceleration `a` obeys every limit and leaves a stop that does. The velocity limit falls towards
 * an edge, so the one where the stop ends holds for the whole of it. */
static bool allowed(const ve_joint_state_t *state, double a, const ve_joint_limits_t *limits, double period) {
  const double step = limits->jerk * period;
  if ((fabs(a - state->a) > step) || (fabs(a) > limits->acceleration)) {
    return false;
  }
  const double v = state->v + (a * period);
  const double q = state->q + (v * period);
  const double swing = 0.5 * a * a / limits->jerk;
  const double up = v + ((a > 0.0) ? swing : 0.0);
  const double down = ((a < 0.0) ? swing : 0.0) - v;
  const double top = q + ve_stop_reach(v, a, limits, period);
  const double bottom = q - ve_stop_reach(-v, -a, limits, period);
  return (top <= limits->position_max) && (bottom >= limits->position_min) &&
         (up <= velocity_limit((limits->edge_high - top), limits)) &&
         (down <= velocity_limit((bottom - limits->edge_low), limits));
}

/* Back on the plan only where it can be kept: after the exact step, the plan's velocity must be within reach of the
 * next one. Without this the joint would step on the plan and past it, over and over, by microradians. */
static bool can_stay(const ve_joint_state_t *state, double a, double v_next, const ve_joint_limits_t *limits,
                     double period) {
  const double step = limits->jerk * period;
  const double following = (v_next - (state->v + (a * period))) / period;
  return (fabs(following) <= step) && (fabs(following - a) <= step);
}

static void advance(ve_joint_state_t *state, double a, double period) {
  state->a = a;
  state->v += a * period;
  state->q += state->v * period;
}

void ve_limiter_stop(ve_joint_state_t *state, const ve_joint_limits_t *limits, double period) {
  if (ve_joint_at_rest(state)) {
    state->v = 0.0;
    state->a = 0.0;
    return;
  }
  advance(state, ve_stop_acceleration(state, limits, period), period);
}

bool ve_limiter_follow(ve_joint_state_t *state, double q_next, double v_next, const ve_joint_limits_t *limits,
                       double period) {
  const double stop = ve_stop_acceleration(state, limits, period);
  if (!isfinite(q_next) || !isfinite(v_next)) { /* before any clamp: fmin and fmax would turn NaN into a limit */
    state->off_plan = true;
    advance(state, stop, period);
    return false;
  }
  const double exact = (((q_next - state->q) / period) - state->v) / period;
  if (allowed(state, exact, limits, period) &&
      (!state->off_plan || can_stay(state, exact, v_next, limits, period))) {
    advance(state, exact, period);
    state->q = q_next; /* the same to rounding, and free of its drift */
    state->off_plan = false;
    return true;
  }
  state->off_plan = true;
  const double pull = (2.0 * FOLLOW_RATE * (v_next - state->v)) + (FOLLOW_RATE * FOLLOW_RATE * (q_next - state->q));
  const double step = limits->jerk * period;
  const double wanted = clamp(clamp(pull, state->a - step, state->a + step), -limits->acceleration, limits->acceleration);
  double share = 1.0;
  for (int attempt = 0; attempt < BLEND_TRIES; attempt++) {
    const double blended = stop + (share * (wanted - stop));
    if (allowed(state, blended, limits, period)) {
      advance(state, blended, period);
      return false;
    }
    share *= 0.5;
  }
  advance(state, stop, period);
  return false;
}
