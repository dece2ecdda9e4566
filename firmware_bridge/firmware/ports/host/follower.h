/* Set-points for an arm that keeps a desired state of its own: from there, not from the last set-point, within limits.
 *
 * An arm that lost a packet is elsewhere than its plan. The core's limiter takes it back: exactly onto the plan where
 * the limits allow that, and until then by the limits for the way back, which leave the arm some room.
 */
#ifndef VE_FOLLOWER_H
#define VE_FOLLOWER_H

#include <stdbool.h>
#include <stdint.h>

#include "limiter.h"

/* Advances `joints` joints one period from `state`, the arm's own, towards the set-points; `state` is then what is to
 * be sent. On the way back they are taken to the set-points and `lead`, which makes up for the plan's acceleration: the
 * limiter pulls as a spring does, and would stay behind a plan that turns. Returns whether all of them are on the plan. */
bool ve_follower_step(uint8_t joints, ve_joint_state_t *state, const ve_joint_limits_t *limits,
                      const ve_joint_limits_t *back, const double *q_next, const double *v_next, const double *lead,
                      double period);

#endif
