/* The core on a Stellaris LM3S6965 (Cortex-M3), the board that `qemu-system-arm -M lm3s6965evb` emulates.
 *
 * UART0 is the line, SysTick the period. The drive is simulated: the arm is where it was told to be one period ago, and
 * brakes hold it while the drive is off. Registers: LM3S6965 data sheet, chapters 3 (SysTick, NVIC), 5 (clock), 12 (UART).
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "board.h"
#include "device.h"

#ifndef VE_FIRMWARE_HASH
#define VE_FIRMWARE_HASH 0u
#endif

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define RCC REGISTER(0x400FE060u)
#define RCGC1 REGISTER(0x400FE104u)
#define RCGC2 REGISTER(0x400FE108u)
#define RCC_50_MHZ 0x01C002C0u /* 200 MHz PLL / 4, 6 MHz crystal, main oscillator */
#define CLOCK_HZ 50000000u
#define CYCLES_PER_US (CLOCK_HZ / 1000000u)

#define UART_DATA REGISTER(0x4000C000u)
#define UART_FLAGS REGISTER(0x4000C018u)
#define UART_BAUD_INTEGER REGISTER(0x4000C024u)
#define UART_BAUD_FRACTION REGISTER(0x4000C028u)
#define UART_LINE REGISTER(0x4000C02Cu)
#define UART_CONTROL REGISTER(0x4000C030u)
#define UART_INTERRUPTS REGISTER(0x4000C038u)
#define UART_CLEAR REGISTER(0x4000C044u)
#define UART_RX_EMPTY 0x10u
#define UART_TX_EMPTY 0x80u
#define UART_FIFO_SIZE 16u
#define UART_8_BITS_FIFO 0x70u
#define UART_ENABLE 0x301u
#define UART_RX_INTERRUPTS 0x50u /* FIFO level and receive timeout */

#define SYSTICK_CONTROL REGISTER(0xE000E010u)
#define SYSTICK_RELOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define SYSTICK_RUN 7u /* processor clock, interrupt, enabled */
#define NVIC_ENABLE REGISTER(0xE000E100u)
#define INTERRUPT_STATE REGISTER(0xE000ED04u)
#define SYSTICK_PENDING (1u << 26)
#define UART0_BIT (1u << 5)

#define PERIOD_CYCLES (VE_TICK_US * CYCLES_PER_US)
#define RING_SIZE 4096u /* eight of the largest frames; the chunk of 50 knots takes three and a half */

static ve_device_t device;
static ve_outputs_t outputs;
static double arm_at[VE_MAX_JOINTS];

/* Written by the interrupt, read by main: one writer each, so no lock is needed. */
static uint8_t ring[RING_SIZE];
static volatile uint32_t ring_head;
static volatile uint32_t ring_tail;
static volatile uint32_t ring_lost;
static volatile uint32_t line_cycles; /* spent in the line's interrupt */
static volatile uint32_t periods;

/* Read from outside by tools/microcontroller.py, which knows the symbol. */
struct {
  uint32_t worst_tick_cycles;
  uint32_t worst_byte_cycles;
  uint32_t ticks;
  uint32_t lost_bytes;
} ve_port_statistics;

void tick_handler(void) { periods++; }

/* Cycles since the start. A period ends when the counter reaches 0, a clock before it starts anew, and is counted when
 * the interrupt is taken, a moment later. So a counter at 0 is read again, as is one around which the interrupt came;
 * and a period that still waits for its interrupt is over, if the counter was read after its end. */
static uint64_t now_cycles(void) {
  uint32_t before = 0u;
  uint32_t left = 0u;
  bool waits = false;
  do {
    before = periods;
    left = SYSTICK_VALUE;
    waits = (INTERRUPT_STATE & SYSTICK_PENDING) != 0u;
  } while ((left == 0u) || (before != periods));
  const uint32_t over = (waits && (left > (PERIOD_CYCLES / 2u))) ? 1u : 0u;
  return (((uint64_t)before + over) * PERIOD_CYCLES) + (PERIOD_CYCLES - left);
}

void line_handler(void) {
  const uint64_t start = now_cycles();
  UART_CLEAR = UART_RX_INTERRUPTS;
  while ((UART_FLAGS & UART_RX_EMPTY) == 0u) {
    const uint8_t byte = (uint8_t)UART_DATA;
    const uint32_t next = (ring_head + 1u) % RING_SIZE;
    if (next == ring_tail) {
      ring_lost++;
    } else {
      ring[ring_head] = byte;
      ring_head = next;
    }
  }
  line_cycles += (uint32_t)(now_cycles() - start);
}

typedef struct {
  uint64_t start;
  uint32_t line;
} ve_stretch_t;

static ve_stretch_t stretch_from_now(void) {
  const ve_stretch_t stretch = {now_cycles(), line_cycles};
  return stretch;
}

/* The longest stretch, less what the line's interrupt took of it: QEMU hands over bytes as fast as they are read, where a
 * real line brings 100 in a period. Time that ran backwards would show as an absurd figure, over any budget. */
static uint32_t worst(uint32_t so_far, ve_stretch_t stretch) {
  const uint32_t line = line_cycles - stretch.line;
  const uint32_t took = (uint32_t)(now_cycles() - stretch.start) - line;
  return (took > so_far) ? took : so_far;
}

static void set_up_clock(void) {
  RCC = RCC_50_MHZ;
  RCGC1 |= 1u; /* UART0 */
  RCGC2 |= 1u; /* port A */
  SYSTICK_RELOAD = PERIOD_CYCLES - 1u;
  SYSTICK_VALUE = 0u;
  SYSTICK_CONTROL = SYSTICK_RUN;
}

/* 1 Mbaud: 50 MHz / (16 * 3.125). */
static void set_up_line(void) {
  UART_CONTROL = 0u;
  UART_BAUD_INTEGER = 3u;
  UART_BAUD_FRACTION = 8u;
  UART_LINE = UART_8_BITS_FIFO;
  UART_INTERRUPTS = UART_RX_INTERRUPTS;
  UART_CONTROL = UART_ENABLE;
  NVIC_ENABLE = UART0_BIT;
}

/* Serves the line until a period has passed: a byte may bring a commit, which takes most of three, and what waits behind
 * it must not keep the tick waiting any longer. */
static void receive(uint32_t done) {
  while ((ring_tail != ring_head) && (periods == done)) {
    const ve_stretch_t stretch = stretch_from_now();
    const uint8_t byte = ring[ring_tail];
    ring_tail = (ring_tail + 1u) % RING_SIZE;
    ve_device_receive(&device, 0u, byte, stretch.start / CYCLES_PER_US);
    ve_port_statistics.worst_byte_cycles = worst(ve_port_statistics.worst_byte_cycles, stretch);
  }
}

static void transmit(void) {
  uint8_t bytes[UART_FIFO_SIZE];
  uint16_t count = 0u;
  do { /* in real life the FIFO stays full for a while, and this runs once */
    count = ((UART_FLAGS & UART_TX_EMPTY) != 0u) ? ve_device_transmit(&device, bytes, UART_FIFO_SIZE) : 0u;
    for (uint16_t i = 0u; i < count; i++) {
      UART_DATA = bytes[i];
    }
  } while (count > 0u);
}

/* Sleeps until an interrupt, unless one has come since the last look: with interrupts off, WFI still wakes. */
static void sleep_unless(uint32_t done) {
  __asm volatile("cpsid i" ::: "memory");
  if ((ring_tail == ring_head) && (periods == done)) {
    __asm volatile("wfi");
  }
  __asm volatile("cpsie i" ::: "memory");
}

static void tick(uint64_t now_us) {
  ve_inputs_t inputs;
  const ve_stretch_t stretch = stretch_from_now();
  memset(&inputs, 0, sizeof(inputs));
  inputs.now_us = now_us;
  inputs.feedback_ok = true;
  inputs.drive_is_on = outputs.drive_enable;
  memcpy(inputs.measured, arm_at, sizeof(inputs.measured));
  ve_device_tick(&device, &inputs, &outputs);
  if (outputs.drive_enable) {
    memcpy(arm_at, outputs.set_point, sizeof(arm_at));
  }
  ve_port_statistics.worst_tick_cycles = worst(ve_port_statistics.worst_tick_cycles, stretch);
  ve_port_statistics.ticks++;
  ve_port_statistics.lost_bytes = ring_lost;
}

/* Where the simulated arm stands at first. */
static const double START_RAD[VE_MAX_JOINTS] = VE_START_RAD;

int main(void) {
  uint32_t done = 0u;
  memcpy(arm_at, START_RAD, sizeof(arm_at));
  ve_device_init(&device, &VE_PROFILES[VE_PROFILE_INDEX], VE_FIRMWARE_HASH, arm_at);
  set_up_clock();
  set_up_line();
  for (;;) {
    receive(done);
    if (periods != done) { /* periods missed are gone: the core sees by the time that it is late */
      done = periods;
      tick((uint64_t)done * VE_TICK_US);
    }
    transmit();
    sleep_unless(done);
  }
}
