/* One joint under limits of position, velocity, acceleration and jerk, in discrete time.
 *
 * With period T the motion is v[n] = v[n-1] + a[n] T and q[n] = q[n-1] + v[n] T, so the limits hold for the finite
 * differences of the positions that leave the device, which is what an observer can check.
 *
 * The limiter keeps one invariant: from the present state a jerk-limited stop stays within all limits. A step that
 * would break it is replaced by the nearest one that does not; the stop's own next step is always such a step.
 */
#ifndef VE_LIMITER_H
#define VE_LIMITER_H

#include <stdbool.h>

/* Limits of one joint; radians and seconds. The last four are those of ve_edges_t. */
typedef struct {
  double position_min;
  double position_max;
  double velocity;
  double acceleration;
  double jerk;
  double edge_offset;
  double edge_slope;
  double edge_low;
  double edge_high;
} ve_joint_limits_t;

typedef struct {
  double q;
  double v;
  double a;
  bool off_plan; /* the last step did not end on the set-point */
} ve_joint_state_t;

/* Acceleration of the next tick on the fastest jerk-limited way to standstill. */
double ve_stop_acceleration(const ve_joint_state_t *state, const ve_joint_limits_t *limits, double period);

/* Upper bound of how far a jerk-limited stop still moves in the positive direction, in radians. */
double ve_stop_reach(double v, double a, const ve_joint_limits_t *limits, double period);

/* Advances one tick towards standstill. */
void ve_limiter_stop(ve_joint_state_t *state, const ve_joint_limits_t *limits, double period);

/* Advances one tick towards the set-point `q_next` whose velocity is `v_next`. True when it was reached exactly. */
bool ve_limiter_follow(ve_joint_state_t *state, double q_next, double v_next, const ve_joint_limits_t *limits,
                       double period);

/* Whether the joint stands still. */
bool ve_joint_at_rest(const ve_joint_state_t *state);

#endif
