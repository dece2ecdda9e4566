/* Vector table and what runs before main: RAM is set up, and free RAM painted so that the stack's depth can be read. */
#include <stdint.h>

#include "board.h"

extern uint32_t ve_data_image[], ve_data_begin[], ve_data_end[], ve_bss_begin[], ve_bss_end[], ve_stack_end[];

void reset_handler(void);
void hang_handler(void);
int main(void);

#define IN_USE_WORDS 32 /* what startup itself has on the stack while it paints */

/* A fault of the processor: hold still with interrupts off. On a real board the hardware watchdog ends it. */
void hang_handler(void) {
  for (;;) {
  }
}

void reset_handler(void) {
  const uint32_t *from = ve_data_image;
  for (uint32_t *to = ve_data_begin; to < ve_data_end; to++) {
    *to = *from;
    from++;
  }
  for (uint32_t *to = ve_bss_begin; to < ve_bss_end; to++) {
    *to = 0u;
  }
  uint32_t *stack_top;
  __asm volatile("mov %0, sp" : "=r"(stack_top));
  for (uint32_t *to = ve_bss_end; to < (stack_top - IN_USE_WORDS); to++) {
    *to = VE_STACK_PAINT;
  }
  (void)main();
  hang_handler();
}

#define UART0_VECTOR (16 + 5)

typedef void (*vector_t)(void);

__attribute__((section(".vectors"), used)) static const vector_t VECTORS[UART0_VECTOR + 1] = {
    [0] = (vector_t)ve_stack_end, [1] = reset_handler,  [2] = hang_handler,  [3] = hang_handler,
    [4] = hang_handler,           [5] = hang_handler,   [6] = hang_handler,  [15] = tick_handler,
    [UART0_VECTOR] = line_handler};
