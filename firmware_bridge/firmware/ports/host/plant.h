/* What stands behind the simulated device: an arm that follows set-points. */
#ifndef VE_PLANT_H
#define VE_PLANT_H

#include <stdbool.h>
#include <stdint.h>

#include "profile.h"

typedef struct ve_plant ve_plant_t;

/* Opens a plant of `joints` axes at the pose `start`. `model` is a MuJoCo binary model (.mjb) with one position actuator
 * per axis in the profile's order, on a joint or on a fixed tendon (two fingers that share a width), and `mujoco` the
 * path of the library that simulates it; or NULL for the ideal plant, whose measured positions are the set-points one
 * tick later. NULL with a message on stderr when it cannot. */
ve_plant_t *ve_plant_open(const char *model, const char *mujoco, uint8_t joints, const double *start);

/* One period of 1 ms. With the drive off the brakes hold the arm. */
void ve_plant_step(ve_plant_t *plant, const double *set_point, bool drive_on);

/* Positions of the axes, each in its unit. */
void ve_plant_measure(const ve_plant_t *plant, double *q);

/* All generalised positions of the simulated world, and how many; 0 for the ideal plant. */
const double *ve_plant_world(const ve_plant_t *plant, uint32_t *count);

void ve_plant_close(ve_plant_t *plant);

#endif
