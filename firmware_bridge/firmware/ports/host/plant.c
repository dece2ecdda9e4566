#include "plant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef VE_WITH_MUJOCO
#include <mujoco/mujoco.h>
#endif

struct ve_plant {
  uint8_t joints;
  double q[VE_MAX_JOINTS];
#ifdef VE_WITH_MUJOCO
  mjModel *model;
  mjData *data;
#endif
};

#ifdef VE_WITH_MUJOCO
static bool open_model(ve_plant_t *plant, const char *path) {
  plant->model = mj_loadModel(path, NULL);
  if (plant->model == NULL) {
    fprintf(stderr, "bridge-sim: cannot load the MuJoCo model %s\n", path);
    return false;
  }
  if ((plant->model->nu != plant->joints) || (plant->model->nq < plant->joints)) {
    fprintf(stderr, "bridge-sim: %s has %d actuators, the arm has %u joints\n", path, (int)plant->model->nu, plant->joints);
    return false;
  }
  plant->data = mj_makeData(plant->model);
  for (uint8_t i = 0; i < plant->joints; i++) {
    plant->data->qpos[i] = plant->q[i];
    plant->data->ctrl[i] = plant->q[i];
  }
  mj_forward(plant->model, plant->data);
  return true;
}
#else
static bool open_model(ve_plant_t *plant, const char *path) {
  (void)plant;
  fprintf(stderr, "bridge-sim: this build has no MuJoCo, so it cannot load %s\n", path);
  return false;
}
#endif

ve_plant_t *ve_plant_open(const char *model, uint8_t joints, const double *start) {
  ve_plant_t *plant = calloc(1, sizeof(*plant));
  if (plant == NULL) {
    return NULL;
  }
  plant->joints = joints;
  memcpy(plant->q, start, joints * sizeof(double));
  if ((model != NULL) && !open_model(plant, model)) {
    ve_plant_close(plant);
    return NULL;
  }
  return plant;
}

void ve_plant_step(ve_plant_t *plant, const double *set_point, bool drive_on) {
#ifdef VE_WITH_MUJOCO
  if (plant->data != NULL) {
    for (uint8_t i = 0; drive_on && (i < plant->joints); i++) {
      plant->data->ctrl[i] = set_point[i];
    }
    mj_step(plant->model, plant->data);
    memcpy(plant->q, plant->data->qpos, plant->joints * sizeof(double));
    return;
  }
#endif
  if (drive_on) {
    memcpy(plant->q, set_point, plant->joints * sizeof(double));
  }
}

void ve_plant_measure(const ve_plant_t *plant, double *q) { memcpy(q, plant->q, plant->joints * sizeof(double)); }

const double *ve_plant_world(const ve_plant_t *plant, uint32_t *count) {
#ifdef VE_WITH_MUJOCO
  if (plant->data != NULL) {
    *count = (uint32_t)plant->model->nq;
    return plant->data->qpos;
  }
#endif
  *count = 0;
  return plant->q;
}

void ve_plant_close(ve_plant_t *plant) {
#ifdef VE_WITH_MUJOCO
  if (plant->data != NULL) {
    mj_deleteData(plant->data);
  }
  if (plant->model != NULL) {
    mj_deleteModel(plant->model);
  }
#endif
  free(plant);
}
