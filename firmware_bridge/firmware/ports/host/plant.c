#include "plant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef VE_WITH_MUJOCO
#include <dlfcn.h>
#include <mujoco/mujoco.h>

#define MOST_TERMS 4u

/* What is called of MuJoCo. It is loaded when a model is, so that one build serves with and without it. */
typedef struct {
  __typeof__(mj_version) *version;
  __typeof__(mj_loadModel) *load_model;
  __typeof__(mj_makeData) *make_data;
  __typeof__(mj_forward) *forward;
  __typeof__(mj_step) *step;
  __typeof__(mj_deleteData) *delete_data;
  __typeof__(mj_deleteModel) *delete_model;
  __typeof__(mju_getLogConfig) *messages;
  __typeof__(mju_setLogConfig) *set_messages;
} mujoco_t;

/* Where an axis stands is a sum over generalised positions: of one joint, or of those that a fixed tendon couples. */
typedef struct {
  uint8_t terms;
  int at[MOST_TERMS];
  double share[MOST_TERMS];
} axis_t;
#endif

struct ve_plant {
  uint8_t joints;
  double q[VE_MAX_JOINTS];
#ifdef VE_WITH_MUJOCO
  mujoco_t mj;
  mjModel *model;
  mjData *data;
  axis_t axis[VE_MAX_JOINTS];
#endif
};

#ifdef VE_WITH_MUJOCO
static bool add_term(const mjModel *model, axis_t *axis, int joint, double share) {
  const int type = model->jnt_type[joint];
  if ((axis->terms == MOST_TERMS) || ((type != mjJNT_HINGE) && (type != mjJNT_SLIDE))) {
    return false;
  }
  axis->at[axis->terms] = model->jnt_qposadr[joint];
  axis->share[axis->terms] = share;
  axis->terms++;
  return true;
}

/* What actuator `i` moves; false unless that is one joint, or a few joints by a fixed tendon. */
static bool find_axis(const mjModel *model, int i, axis_t *axis) {
  const int target = model->actuator_trnid[2 * i];
  axis->terms = 0;
  if (model->actuator_trntype[i] == mjTRN_JOINT) {
    return add_term(model, axis, target, 1.0);
  }
  if (model->actuator_trntype[i] != mjTRN_TENDON) {
    return false;
  }
  for (int k = 0; k < model->tendon_num[target]; k++) {
    const int wrap = model->tendon_adr[target] + k;
    if ((model->wrap_type[wrap] != mjWRAP_JOINT) ||
        !add_term(model, axis, model->wrap_objid[wrap], model->wrap_prm[wrap])) {
      return false;
    }
  }
  return true;
}

static double position_of(const axis_t *axis, const mjtNum *qpos) {
  double sum = 0.0;
  for (uint8_t k = 0; k < axis->terms; k++) {
    sum += axis->share[k] * qpos[axis->at[k]];
  }
  return sum;
}

/* Puts an axis at `position`; joints that share it move in proportion to their share. */
static void place(const axis_t *axis, double position, mjtNum *qpos) {
  double squares = 0.0;
  for (uint8_t k = 0; k < axis->terms; k++) {
    squares += axis->share[k] * axis->share[k];
  }
  for (uint8_t k = 0; k < axis->terms; k++) {
    qpos[axis->at[k]] = position * axis->share[k] / squares;
  }
}

static void measure(ve_plant_t *plant) {
  for (uint8_t i = 0; i < plant->joints; i++) {
    plant->q[i] = position_of(&plant->axis[i], plant->data->qpos);
  }
}

static bool find(void *library, const char *name, void *function) {
  void *found = dlsym(library, name);
  memcpy(function, &found, sizeof(found));
  return found != NULL;
}

/* The library stays loaded until the process ends. Model and data are laid out as in the headers that this was compiled
 * with, so it has to be the same release. */
static bool load_mujoco(mujoco_t *mj, const char *path) {
  void *library = (path == NULL) ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if ((library == NULL) || !find(library, "mj_version", &mj->version) ||
      !find(library, "mj_loadModel", &mj->load_model) || !find(library, "mj_makeData", &mj->make_data) ||
      !find(library, "mj_forward", &mj->forward) || !find(library, "mj_step", &mj->step) ||
      !find(library, "mj_deleteData", &mj->delete_data) || !find(library, "mj_deleteModel", &mj->delete_model) ||
      !find(library, "mju_getLogConfig", &mj->messages) || !find(library, "mju_setLogConfig", &mj->set_messages)) {
    fprintf(stderr, "bridge-sim: cannot load MuJoCo: %s\n", (path == NULL) ? "give --mujoco LIBRARY" : dlerror());
    return false;
  }
  if (mj->version() != mjVERSION_HEADER) {
    fprintf(stderr, "bridge-sim: compiled for MuJoCo %d, but %s is %d: pip install 'vla-edge[sim]'\n",
            mjVERSION_HEADER, path, mj->version());
    return false;
  }
  mjLogConfig messages = mj->messages();
  messages.logto_file = 0; /* MUJOCO_LOG.TXT in the current folder; stderr has them too */
  mj->set_messages(messages);
  return true;
}

static bool open_model(ve_plant_t *plant, const char *path, const char *mujoco) {
  if (!load_mujoco(&plant->mj, mujoco)) {
    return false;
  }
  plant->model = plant->mj.load_model(path, NULL);
  if (plant->model == NULL) {
    fprintf(stderr, "bridge-sim: cannot load the MuJoCo model %s\n", path);
    return false;
  }
  if (plant->model->nu != plant->joints) {
    fprintf(stderr, "bridge-sim: %s has %d actuators, the arm has %u axes\n", path, (int)plant->model->nu, plant->joints);
    return false;
  }
  plant->data = plant->mj.make_data(plant->model);
  for (uint8_t i = 0; i < plant->joints; i++) {
    if (!find_axis(plant->model, i, &plant->axis[i])) {
      fprintf(stderr, "bridge-sim: %s: actuator %u drives neither one joint nor a few by a fixed tendon\n", path, i + 1u);
      return false;
    }
    place(&plant->axis[i], plant->q[i], plant->data->qpos);
    plant->data->ctrl[i] = plant->q[i];
  }
  plant->mj.forward(plant->model, plant->data);
  return true;
}
#else
static bool open_model(ve_plant_t *plant, const char *path, const char *mujoco) {
  (void)plant;
  (void)mujoco;
  fprintf(stderr, "bridge-sim: this build has no MuJoCo, so it cannot load %s\n", path);
  return false;
}
#endif

ve_plant_t *ve_plant_open(const char *model, const char *mujoco, uint8_t joints, const double *start) {
  ve_plant_t *plant = calloc(1, sizeof(*plant));
  if (plant == NULL) {
    return NULL;
  }
  plant->joints = joints;
  memcpy(plant->q, start, joints * sizeof(double));
  if ((model != NULL) && !open_model(plant, model, mujoco)) {
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
    plant->mj.step(plant->model, plant->data);
    measure(plant);
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
    plant->mj.delete_data(plant->data);
  }
  if (plant->model != NULL) {
    plant->mj.delete_model(plant->model);
  }
#endif
  free(plant);
}
