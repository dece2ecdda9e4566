#include "follower.h"

bool ve_follower_step(uint8_t joints, ve_joint_state_t *state, const ve_joint_limits_t *limits,
                      const ve_joint_limits_t *back, const double *q_next, const double *v_next, const double *lead,
                      double period) {
  bool all = true;
  for (uint8_t i = 0; i < joints; i++) {
    ve_joint_state_t exact = state[i];
    const ve_joint_limits_t *within = exact.off_plan ? &back[i] : &limits[i];
    if (ve_limiter_follow(&exact, q_next[i], v_next[i], within, period)) {
      state[i] = exact;
    } else {
      state[i].off_plan = true;
      (void)ve_limiter_follow(&state[i], q_next[i] + lead[i], v_next[i], &back[i], period);
      state[i].off_plan = true; /* what it was taken to is not the plan */
      all = false;
    }
  }
  return all;
}
