/* The whole device under a script drawn from the input: raw bytes, well-formed frames with any content, plausible
 * chunks, faults of drive and clock, and ticks. After every tick an observer looks at what left the device. A digest of
 * all of it lets a test tell whether the device still behaves the same.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

#define SESSION 7u
#define MOST_TICKS 1200u
#define PERIOD_S 1e-3
#define SLACK 1e-9 /* of finite differences of doubles near 3, over a period cubed: below 1e-6 of a jerk limit */
#define ON_PLAN_RAD 1e-9

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* FNV-1a over every set-point, velocity, drive signal and byte that left the device since the last input began. */
uint64_t ve_fuzz_digest(void);

static uint64_t digest;

uint64_t ve_fuzz_digest(void) { return digest; }

static void remember(const void *bytes, size_t size) {
  const uint8_t *at = bytes;
  for (size_t i = 0; i < size; i++) {
    digest = (digest ^ at[i]) * 0x100000001B3u;
  }
}

typedef struct {
  const uint8_t *at;
  size_t left;
} script_t;

typedef struct {
  ve_device_t device;
  ve_inputs_t inputs;
  ve_outputs_t outputs;
  ve_frame_reader_t host;
  double arm[VE_MAX_JOINTS]; /* where the simulated arm stands */
  double offset;
  int64_t clock_error_us;
  bool stuck;
  uint32_t ticks;
  uint16_t sequence;
  uint16_t session;
  uint32_t heartbeat;
  uint16_t chunk;
  /* The observer's memory. */
  double q[3][VE_MAX_JOINTS]; /* set-points of the last three ticks, the newest first */
  uint8_t moving_for; /* ticks with the drive on and without a jump, up to 3: how many differences can be trusted */
  bool enabled; /* the drive was switched on between two ticks, be it for a moment: set-points begin at the arm */
  bool committed; /* a chunk has been accepted since the drive came on */
} bench_t;

static void demand(bool holds, const char *what, const bench_t *bench) {
  if (!holds) {
    fprintf(stderr, "fuzz_device: %s, in state %u at tick %u\n", what, bench->device.state, bench->ticks);
    abort();
  }
}

static uint8_t take(script_t *script) {
  if (script->left == 0u) {
    return 0u;
  }
  script->left--;
  return *script->at++;
}

static void receive(bench_t *bench, uint8_t channel, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    ve_device_receive(&bench->device, channel, bytes[i], bench->inputs.now_us);
    bench->committed = bench->committed || bench->device.has_commit;
    bench->enabled = bench->enabled || (bench->device.drive_enable && !bench->outputs.drive_enable);
  }
}

static void send_frame(bench_t *bench, uint8_t channel, uint8_t type, uint16_t session, const uint8_t *payload,
                       uint16_t length) {
  uint8_t frame[VE_MAX_FRAME];
  receive(bench, channel, frame, ve_frame_encode(frame, type, session, bench->sequence++, payload, length));
}

/* Everything the device says must be frames that a reader takes. */
static void listen(bench_t *bench) {
  uint8_t bytes[64];
  uint16_t count = 0;
  while ((count = ve_device_transmit(&bench->device, bytes, sizeof(bytes))) > 0u) {
    remember(bytes, count);
    for (uint16_t i = 0; i < count; i++) {
      ve_frame_t frame;
      (void)ve_frame_reader_push(&bench->host, bytes[i], &frame);
    }
  }
  demand(bench->host.bad_frames == 0u, "the device sent a frame that cannot be read", bench);
}

static void observe(bench_t *bench, bool drive_was_on) {
  const ve_device_t *device = &bench->device;
  const ve_limits_t *limits = &device->profile->limits;
  const ve_edges_t *edges = &device->profile->edges;
  const double *q = bench->outputs.set_point;
  bool moved = false;
  const bool on = drive_was_on && bench->outputs.drive_enable;
  for (uint8_t i = 0; i < device->profile->joints; i++) {
    demand(isfinite(q[i]) && isfinite(bench->outputs.velocity[i]), "a set-point is not finite", bench);
    const double v = (q[i] - bench->q[0][i]) / PERIOD_S;
    const double v1 = (bench->q[0][i] - bench->q[1][i]) / PERIOD_S;
    const double v2 = (bench->q[1][i] - bench->q[2][i]) / PERIOD_S;
    const double a = (v - v1) / PERIOD_S;
    const double a1 = (v1 - v2) / PERIOD_S;
    moved = moved || (v != 0.0);
    if (on) {
      demand((q[i] >= limits->position_min[i]) && (q[i] <= limits->position_max[i]), "a position limit is broken", bench);
    }
    if (on && (bench->moving_for >= 1u)) {
      const double room = (v > 0.0) ? (edges->high[i] - q[i]) : (q[i] - edges->low[i]);
      const double near_edge = sqrt(fmax(0.0, edges->slope[i] * room)) - edges->offset[i];
      demand(fabs(v) <= limits->velocity[i] + (SLACK / PERIOD_S), "a velocity limit is broken", bench);
      demand((edges->slope[i] <= 0.0) || (fabs(v) <= fmax(0.0, near_edge) + (SLACK / PERIOD_S)),
             "a velocity limit near the end of the range is broken", bench);
    }
    if (on && (bench->moving_for >= 2u)) {
      demand(fabs(a) <= limits->acceleration[i] + 1e-6, "an acceleration limit is broken", bench);
    }
    if (on && (bench->moving_for >= 3u)) {
      demand(fabs(a - a1) / PERIOD_S <= limits->jerk[i] + 5e-3, "a jerk limit is broken", bench);
    }
  }
  if (on && moved) {
    demand(bench->committed, "the arm moves and no chunk was committed", bench);
    demand(device->state != VE_DEVICE_STATE_IDLE && device->state != VE_DEVICE_STATE_SILENT, "a silent device moves", bench);
  }
  if (!drive_was_on && !bench->outputs.drive_enable) {
    demand(!moved, "set-points move with the drive off", bench);
  }
  if (!bench->outputs.drive_enable) {
    bench->committed = false;
    bench->moving_for = 0;
  } else if (on && (bench->moving_for < 3u)) {
    bench->moving_for++;
  } else {
    /* All differences can be trusted already, or none yet. */
  }
  memmove(bench->q[1], bench->q[0], 2u * sizeof(bench->q[0]));
  memcpy(bench->q[0], q, sizeof(bench->q[0]));
}

static void check_plan(const bench_t *bench, uint32_t interventions) {
  ve_plan_point_t point;
  if ((bench->device.state == VE_DEVICE_STATE_STREAMING) && (bench->device.interventions == interventions) &&
      ve_plan_at(&bench->device.plan, bench->inputs.now_us, &point)) {
    for (uint8_t i = 0; i < bench->device.profile->joints; i++) {
      demand(fabs(point.q[i] - bench->outputs.set_point[i]) <= ON_PLAN_RAD, "off the plan without an intervention", bench);
    }
  }
}

static void tick(bench_t *bench) {
  const bool drive_was_on = bench->outputs.drive_enable;
  const uint32_t interventions = bench->device.interventions;
  const int64_t step = (int64_t)VE_TICK_US + bench->clock_error_us;
  bench->inputs.now_us = (uint64_t)((int64_t)bench->inputs.now_us + step);
  for (uint8_t i = 0; i < bench->device.profile->joints; i++) {
    bench->inputs.measured[i] = bench->arm[i] + bench->offset;
  }
  bench->inputs.drive_is_on = bench->outputs.drive_enable || bench->stuck;
  ve_device_tick(&bench->device, &bench->inputs, &bench->outputs);
  if (bench->enabled) {
    bench->enabled = false;
    memcpy(bench->q[0], bench->outputs.set_point, sizeof(bench->q[0]));
    memcpy(bench->q[1], bench->q[0], sizeof(bench->q[0]));
    memcpy(bench->q[2], bench->q[0], sizeof(bench->q[0]));
    bench->moving_for = 0;
  }
  const uint8_t joints = bench->device.profile->joints;
  remember(bench->outputs.set_point, joints * sizeof(double));
  remember(bench->outputs.velocity, joints * sizeof(double));
  remember(&bench->outputs.drive_enable, sizeof(bool));
  observe(bench, drive_was_on);
  check_plan(bench, interventions);
  if (bench->outputs.drive_enable) {
    memcpy(bench->arm, bench->outputs.set_point, sizeof(bench->arm));
  }
  bench->ticks++;
  listen(bench);
}

static void hello(bench_t *bench, uint16_t session) {
  uint8_t payload[8];
  ve_put_u32(payload, VE_MAGIC);
  ve_put_u32(&payload[4], VE_SCHEMA_HASH);
  send_frame(bench, 0u, VE_MESSAGE_TYPE_HELLO, session, payload, sizeof(payload));
}

static void heartbeat(bench_t *bench) {
  uint8_t payload[4];
  ve_put_u32(payload, ++bench->heartbeat);
  send_frame(bench, 1u, VE_MESSAGE_TYPE_HEARTBEAT, bench->session, payload, sizeof(payload));
}

static void arm(bench_t *bench) {
  uint8_t payload[4u * VE_MAX_JOINTS];
  const uint8_t joints = bench->device.profile->joints;
  heartbeat(bench);
  for (uint8_t i = 0; i < joints; i++) {
    ve_put_i32(&payload[4u * i], (int32_t)lround(1e6 * bench->inputs.measured[i]));
  }
  send_frame(bench, 0u, VE_MESSAGE_TYPE_ARM, bench->session, payload, (uint16_t)(4u * joints));
}

/* Limits between half of the compiled ones and a little more than them. */
static void limits(bench_t *bench, script_t *script) {
  const uint8_t joints = bench->device.profile->joints;
  const ve_limits_t *most = &bench->device.profile->limits;
  const double *rows[VE_LIMITS_ROWS] = {most->position_min, most->position_max, most->velocity, most->acceleration,
                                        most->jerk};
  const double unit[VE_LIMITS_ROWS] = {1e6, 1e6, 1e6, 1e3, 1e3};
  uint8_t payload[4u * VE_LIMITS_ROWS * VE_MAX_JOINTS];
  const double share = 0.5 + (0.51 * take(script) / 255.0);
  for (uint8_t row = 0; row < VE_LIMITS_ROWS; row++) {
    for (uint8_t i = 0; i < joints; i++) {
      const double value = unit[row] * rows[row][i] * ((row < 2u) ? 1.0 : share);
      ve_put_i32(&payload[4u * ((row * joints) + i)], (int32_t)fmin(value, 2e9));
    }
  }
  send_frame(bench, 0u, VE_MESSAGE_TYPE_LIMITS, bench->session, payload, (uint16_t)(4u * VE_LIMITS_ROWS * joints));
}

/* What may be wrong with a chunk; the low bits choose when it starts. */
#define STYLE_START 3u
#define STYLE_NO_VELOCITY 4u
#define STYLE_BAD_CRC 8u
#define STYLE_ONE_MORE 16u
#define STYLE_JUMP 32u
#define STYLE_ODD_SPACING 64u

/* A chunk that begins where the device is or will be, with accelerations, a shape and defects from the script. */
static void chunk(bench_t *bench, script_t *script) {
  static const uint32_t SPACING_US[] = {2000u, 10000u, 50000u, 100000u};
  const uint8_t joints = bench->device.profile->joints;
  static const int64_t START_US[] = {21000, 21000, 5000, 11000000};
  const uint8_t shape = take(script);
  const uint8_t style = take(script);
  const uint8_t knots = (uint8_t)(2u + (take(script) % 12u));
  const uint32_t odd_us = ((style & STYLE_ODD_SPACING) != 0u) ? 1999u + (32u * take(script)) : 0u;
  const uint32_t spacing_us = (odd_us != 0u) ? odd_us : SPACING_US[shape & 3u];
  const bool with_dq = (style & STYLE_NO_VELOCITY) == 0u;
  const double spacing = 1e-6 * spacing_us;
  double q[VE_MAX_JOINTS];
  double dq[VE_MAX_JOINTS] = {0};
  uint8_t rows[12 + 2][4 + (8 * VE_MAX_JOINTS)];
  uint32_t crc = 0;
  const uint64_t start_us = bench->inputs.now_us + (uint64_t)START_US[style & STYLE_START] + (4000u * (shape >> 4));
  ve_plan_point_t point;
  const bool running = ve_plan_at(&bench->device.plan, start_us, &point);
  for (uint8_t i = 0; i < joints; i++) {
    q[i] = running ? point.q[i] : bench->device.joint[i].q;
    dq[i] = (running && !point.ended) ? point.dq[i] : 0.0;
    q[i] += (((style & STYLE_JUMP) != 0u) && (i == 0u)) ? 1e-5 * take(script) : 0.0;
  }
  bench->chunk++;
  for (uint8_t knot = 0; knot < knots; knot++) {
    uint8_t *row = rows[knot];
    const double push = ((shape & 4u) != 0u) ? 12.0 : 8.0;
    ve_put_u16(row, bench->chunk);
    row[2] = knot;
    row[3] = 1u;
    for (uint8_t i = 0; i < joints; i++) {
      ve_put_i32(&row[4u + (4u * i)], (int32_t)lround(1e6 * q[i]));
      ve_put_i32(&row[4u + (4u * (joints + i))], (int32_t)lround(1e6 * dq[i]));
    }
    const uint16_t size = (uint16_t)((with_dq ? 8u : 4u) * joints);
    crc = ve_crc32(crc, &row[4], size);
    send_frame(bench, 0u, VE_MESSAGE_TYPE_CHUNK, bench->session, row, (uint16_t)(4u + size));
    for (uint8_t i = 0; i < joints; i++) {
      const double acceleration = push * ((double)take(script) - 127.5) / 127.5;
      const double last = ((shape & 8u) != 0u) && (knot + 2u == knots) ? -dq[i] / spacing : acceleration;
      q[i] += (dq[i] * spacing) + (0.5 * last * spacing * spacing);
      dq[i] += last * spacing;
    }
  }
  uint8_t commit[VE_COMMIT_FIXED_SIZE] = {0};
  ve_put_u16(&commit[VE_COMMIT_CHUNK_AT], bench->chunk);
  commit[VE_COMMIT_KNOTS_AT] = (uint8_t)(knots + (((style & STYLE_ONE_MORE) != 0u) ? 1u : 0u));
  commit[VE_COMMIT_FLAGS_AT] = with_dq ? VE_COMMIT_FLAG_HAS_VELOCITY : 0u;
  ve_put_u32(&commit[VE_COMMIT_START_US_AT], (uint32_t)start_us);
  ve_put_u32(&commit[VE_COMMIT_SPACING_US_AT], spacing_us);
  ve_put_u32(&commit[VE_COMMIT_CRC_AT], ((style & STYLE_BAD_CRC) != 0u) ? ~crc : crc);
  send_frame(bench, 0u, VE_MESSAGE_TYPE_COMMIT, bench->session, commit, sizeof(commit));
}

static void any_frame(bench_t *bench, script_t *script) {
  uint8_t payload[256];
  const uint8_t type = take(script);
  const uint8_t length = take(script);
  for (uint16_t i = 0; i < length; i++) {
    payload[i] = take(script);
  }
  send_frame(bench, (type >> 5) & 1u, type & 0x1Fu, (type & 0x40u) ? (uint16_t)(bench->session + 1u) : bench->session,
             payload, length);
}

static void raw_bytes(bench_t *bench, script_t *script) {
  const uint8_t head = take(script);
  for (uint8_t i = 0; i < (head & 0x7Fu); i++) {
    const uint8_t byte = take(script);
    receive(bench, head >> 7, &byte, 1u);
  }
}

static void fault(bench_t *bench, script_t *script) {
  static const double OFFSETS[] = {0.0, 0.0, 0.01, 0.2};
  static const int64_t CLOCK_US[] = {0, 0, 0, 0, 500, -900, -1000, 4000};
  const uint8_t which = take(script);
  bench->inputs.feedback_ok = (which & 3u) != 1u;
  bench->offset = ((which & 3u) == 2u) ? NAN : OFFSETS[(which >> 2) & 3u];
  bench->clock_error_us = CLOCK_US[(which >> 4) & 7u];
  bench->stuck = (which & 0x80u) != 0u;
}

static void run_ticks(bench_t *bench, uint8_t how_many) {
  for (uint16_t i = 0; (i <= how_many) && (bench->ticks < MOST_TICKS); i++) {
    if (((how_many & 1u) == 0u) && ((i % 20u) == 0u)) {
      heartbeat(bench);
    }
    tick(bench);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const double HOME[VE_MAX_JOINTS] = {0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854};
  static bench_t bench;
  script_t script = {data, size};
  memset(&bench, 0, sizeof(bench));
  digest = 0xCBF29CE484222325u;
  ve_device_init(&bench.device, &VE_PROFILES[VE_PROFILE_FRANKA], 0u, HOME);
  memcpy(bench.arm, HOME, sizeof(HOME));
  for (int i = 0; i < 3; i++) {
    memcpy(bench.q[i], HOME, sizeof(HOME));
  }
  bench.inputs.feedback_ok = true;
  bench.session = SESSION;
  tick(&bench);
  while ((script.left > 0u) && (bench.ticks < MOST_TICKS)) {
    const uint8_t op = take(&script);
    switch (op & 7u) {
      case 0: run_ticks(&bench, op >> 3); break;
      case 1: run_ticks(&bench, take(&script)); break;
      case 2: raw_bytes(&bench, &script); break;
      case 3: any_frame(&bench, &script); break;
      case 4:
        bench.session = (uint16_t)(SESSION + (op >> 6));
        hello(&bench, bench.session);
        break;
      case 5:
        if ((op & 8u) != 0u) {
          limits(&bench, &script);
        }
        arm(&bench);
        break;
      case 6: chunk(&bench, &script); break;
      default: fault(&bench, &script); break;
    }
    listen(&bench);
  }
  /* Whatever came before: after one delimiter, a HELLO is answered. */
  const uint8_t delimiter = 0u;
  receive(&bench, 0u, &delimiter, 1u);
  listen(&bench);
  hello(&bench, 999u);
  demand(bench.device.transmit_count > 0u, "a HELLO after garbage is not answered", &bench);
  return 0;
}
