/* bridge-sim: the firmware on a pseudo-terminal, one tick per millisecond of the monotonic clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "line.h"

#define NS_PER_US 1000LL
#define NS_PER_S 1000000000LL
#define TICK_NS (NS_PER_US * VE_TICK_US)
#define LONGEST_BURST_NS (20 * TICK_NS) /* held up longer than this, the simulated device loses the time, like a paused one */
#define FLUSH_EVERY_TICKS 250u

static volatile sig_atomic_t stopping = 0;

static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

static long long now_ns(void) {
  struct timespec time;
  (void)clock_gettime(CLOCK_MONOTONIC, &time);
  return (NS_PER_S * time.tv_sec) + time.tv_nsec;
}

typedef struct {
  const char *arm;
  const char *model;
  const char *mujoco;
  const char *trace;
  const char *world;
  double start[VE_MAX_JOINTS];
  bool realtime;
  long parent; /* 0 for none */
  ve_line_kind_t line;
  uint8_t node;
} options_t;

static bool parse_pose(const char *text, double *pose) {
  const char *at = text;
  for (int i = 0; i < (int)VE_MAX_JOINTS; i++) {
    char *end = NULL;
    pose[i] = strtod(at, &end);
    if (end == at) {
      return false;
    }
    if (*end == '\0') {
      return true;
    }
    at = end + 1;
  }
  return false;
}

static bool parse_line(const char *text, ve_line_kind_t *line) {
  static const char *const NAMES[] = {"serial", "slcan", "slcan-fd"};
  for (int i = 0; i < (int)(sizeof(NAMES) / sizeof(NAMES[0])); i++) {
    if (strcmp(text, NAMES[i]) == 0) {
      *line = (ve_line_kind_t)i;
      return true;
    }
  }
  return false;
}

static bool parse_options(int argc, char **argv, options_t *options) {
  static const struct option LONG[] = {
      {"arm", required_argument, NULL, 'a'},   {"start", required_argument, NULL, 's'},
      {"model", required_argument, NULL, 'm'}, {"trace", required_argument, NULL, 't'},
      {"world", required_argument, NULL, 'w'}, {"realtime", no_argument, NULL, 'r'},
      {"die-with-parent", required_argument, NULL, 'd'}, {"line", required_argument, NULL, 'l'},
      {"node", required_argument, NULL, 'n'},  {"mujoco", required_argument, NULL, 'j'},
      {NULL, 0, NULL, 0}};
  int option = 0;
  bool posed = false;
  bool known = true;
  while ((option = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
    switch (option) {
      case 'a': options->arm = optarg; break;
      case 's': posed = parse_pose(optarg, options->start); break;
      case 'm': options->model = optarg; break;
      case 'j': options->mujoco = optarg; break;
      case 't': options->trace = optarg; break;
      case 'w': options->world = optarg; break;
      case 'r': options->realtime = true; break;
      case 'd': options->parent = atol(optarg); break;
      case 'l': known = parse_line(optarg, &options->line); break;
      case 'n': options->node = (uint8_t)(strtoul(optarg, NULL, 10) & 0x0Fu); break;
      default: return false;
    }
  }
  return (options->arm != NULL) && posed && known;
}

/* Opens a raw pseudo-terminal; the slave stays open here, so that a host that leaves does not hang up the line. */
static int open_terminal(char *name, size_t size) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if ((master < 0) || (grantpt(master) != 0) || (unlockpt(master) != 0) || (ptsname_r(master, name, size) != 0)) {
    return -1;
  }
  const int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct termios settings;
  if ((slave < 0) || (tcgetattr(slave, &settings) != 0)) {
    return -1;
  }
  cfmakeraw(&settings);
  return (tcsetattr(slave, TCSANOW, &settings) == 0) ? master : -1;
}

static bool request_realtime(void) {
  const struct sched_param priority = {.sched_priority = 40};
  (void)mlockall(MCL_CURRENT | MCL_FUTURE); /* a page that was put aside holds the device up */
  return sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
}

static void receive(ve_line_t *line, ve_sim_t *sim, int terminal, long long base_ns) {
  uint8_t bytes[4096];
  ssize_t count = 0;
  while ((count = read(terminal, bytes, sizeof(bytes))) > 0) {
    ve_line_receive(line, sim, bytes, (uint32_t)count, (uint64_t)((now_ns() - base_ns) / NS_PER_US));
  }
}

/* What the line does not take now waits here; a host that never reads loses whole frames inside the device instead. */
static void transmit(const ve_line_t *line, ve_sim_t *sim, int terminal) {
  static uint8_t bytes[VE_LINE_OUT];
  static uint32_t waiting = 0;
  if (waiting == 0) {
    waiting = ve_line_transmit(line, sim, bytes);
  }
  if (waiting > 0) {
    const ssize_t sent = write(terminal, bytes, waiting);
    if (sent > 0) {
      waiting -= (uint32_t)sent;
      memmove(bytes, &bytes[sent], waiting);
    }
  }
}

static void wait_for_bytes(int terminal, long long until_ns) {
  const long long left = until_ns - now_ns();
  if (left > 0) {
    struct pollfd watched = {.fd = terminal, .events = POLLIN};
    const struct timespec timeout = {.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};
    (void)ppoll(&watched, 1, &timeout, NULL);
  }
}

/* `base_ns` is the monotonic time of device time zero. */
static void run(ve_line_t *line, ve_sim_t *sim, int terminal, long long base_ns) {
  long long due_ns = base_ns + TICK_NS;
  long long lost_ns = 0;
  for (uint32_t ticks = 0; !stopping;) {
    wait_for_bytes(terminal, due_ns);
    receive(line, sim, terminal, base_ns);
    if (now_ns() >= due_ns) {
      const long long late_ns = now_ns() - due_ns;
      if (late_ns > LONGEST_BURST_NS) {
        base_ns += late_ns;
        due_ns += late_ns;
        lost_ns += late_ns;
      }
      ve_sim_tick(sim);
      due_ns += TICK_NS;
      if ((++ticks % FLUSH_EVERY_TICKS) == 0) {
        ve_sim_flush(sim);
      }
    }
    transmit(line, sim, terminal);
  }
  if (lost_ns > 0) {
    fprintf(stderr, "bridge-sim: was held up by the machine and lost %.1f ms of device time\n", (double)lost_ns / 1e6);
  }
}

int main(int argc, char **argv) {
  options_t options = {0};
  if (!parse_options(argc, argv, &options)) {
    fprintf(stderr, "usage: %s --arm NAME --start Q1,Q2,... [--model FILE.mjb --mujoco LIBRARY] [--trace FILE.csv]\n"
                    "       [--world FILE] [--realtime] [--die-with-parent PID] [--line serial|slcan|slcan-fd] [--node N]\n", argv[0]);
    return 2;
  }
  if (options.parent > 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if ((long)getppid() != options.parent) { /* gone already */
      return 0;
    }
  }
  struct sigaction action = {.sa_handler = on_signal};
  (void)sigaction(SIGTERM, &action, NULL);
  (void)sigaction(SIGINT, &action, NULL);
  ve_sim_t *sim = ve_sim_open(options.arm, options.start, options.model, options.mujoco, options.trace, options.world);
  if (sim == NULL) {
    return 2;
  }
  char port[128];
  const int terminal = open_terminal(port, sizeof(port));
  if (terminal < 0) {
    fprintf(stderr, "bridge-sim: cannot open a pseudo-terminal: %s\n", strerror(errno));
    ve_sim_close(sim);
    return 2;
  }
  const long long base_ns = now_ns();
  const bool granted = options.realtime && request_realtime();
  printf("{\"port\": \"%s\", \"arm\": \"%s\", \"joints\": %u, \"tick_us\": %u, \"plant\": \"%s\", \"realtime\": %s, \"zero_ns\": %lld, \"pid\": %d}\n",
         port, options.arm, ve_sim_joints(sim), VE_TICK_US, (options.model != NULL) ? "mujoco" : "ideal",
         granted ? "true" : "false", base_ns, (int)getpid());
  (void)fflush(stdout);
  ve_line_t line;
  ve_line_open(&line, options.line, options.node);
  run(&line, sim, terminal, base_ns);
  ve_sim_close(sim);
  return 0;
}
