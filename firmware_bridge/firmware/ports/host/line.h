/* What stands on the device's end of the pseudo-terminal: the bytes of the line, or an SLCAN adapter on a CAN bus. */
#ifndef VE_LINE_H
#define VE_LINE_H

#include "sim_device.h"

#define VE_LINE_OUT 8192u /* VE_TRANSMIT_SIZE bytes as SLCAN text */

typedef enum { VE_LINE_SERIAL, VE_LINE_SLCAN, VE_LINE_SLCAN_FD } ve_line_kind_t;

typedef struct {
  ve_line_kind_t kind;
  uint8_t node; /* of the device on the bus; see PROTOCOL.md */
  char text[160];
  uint16_t count;
  bool overflowed;
} ve_line_t;

void ve_line_open(ve_line_t *line, ve_line_kind_t kind, uint8_t node);

/* Bytes from the pseudo-terminal, to the device. */
void ve_line_receive(ve_line_t *line, ve_sim_t *sim, const uint8_t *bytes, uint32_t count, uint64_t now_us);

/* What the device sends, as it goes to the pseudo-terminal, into `out` of VE_LINE_OUT bytes; returns its size. */
uint32_t ve_line_transmit(const ve_line_t *line, ve_sim_t *sim, uint8_t *out);

#endif
