/* What startup.c and main.c share. */
#ifndef VE_BOARD_H
#define VE_BOARD_H

#define VE_STACK_PAINT 0xA5A5A5A5u

/* Interrupts: SysTick once a period, UART0 for bytes of the line. */
void tick_handler(void);
void line_handler(void);

#endif
