#include "follower.h"

bool ve_follower_step(uint8_t joints, ve_joint_state_t *state, const ve_joint_limits_t *limits,
                      const ve_joint_limits_t *back, const double *q_next, const double *v_next, double period) {
  bool all = true;
  for (uint8_t i = 0; i < joints; i++) {
    ve_joint_state_t exact = state[i];
    if (!exact.off_plan && ve_limiter_follow(&exact, q_next[i], v_next[i], &limits[i], period)) {
      state[i] = exact;
    } else {
      state[i].off_plan = true;
      all = ve_limiter_follow(&state[i], q_next[i], v_next[i], &back[i], period) && all;
    }
  }
  return all;
}
