#include "line.h"

#include <stdio.h>
#include <string.h>

#define ID_URGENT 0x010u
#define ID_REPORTS 0x110u
#define ID_CHUNKS 0x210u
#define CLASSIC_SIZE 8u
#define FD_SIZE 64u

static const uint8_t FD_SIZES[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};

void ve_line_open(ve_line_t *line, ve_line_kind_t kind, uint8_t node) {
  memset(line, 0, sizeof(*line));
  line->kind = kind;
  line->node = node;
}

/* Value of one hexadecimal digit, or -1. */
static int digit(char c) {
  if ((c >= '0') && (c <= '9')) {
    return c - '0';
  }
  if ((c >= 'A') && (c <= 'F')) {
    return (c - 'A') + 10;
  }
  return ((c >= 'a') && (c <= 'f')) ? ((c - 'a') + 10) : -1;
}

/* Hands the data of one SLCAN line to the device if it is a frame for it. Anything else an adapter would do is ignored. */
static void take_text(const ve_line_t *line, ve_sim_t *sim, uint64_t now_us) {
  const bool fd = (line->text[0] == 'b') || (line->text[0] == 'd');
  uint8_t data[FD_SIZE];
  int head[4];
  if ((line->count < 5u) || (!fd && (line->text[0] != 't'))) {
    return;
  }
  for (int i = 0; i < 4; i++) {
    head[i] = digit(line->text[i + 1]);
    if (head[i] < 0) {
      return;
    }
  }
  const uint32_t id = (uint32_t)((head[0] << 8) | (head[1] << 4) | head[2]);
  const uint8_t size = FD_SIZES[head[3]];
  const bool urgent = (id == (ID_URGENT | line->node));
  if ((!urgent && (id != (ID_CHUNKS | line->node))) || (!fd && (size > CLASSIC_SIZE)) ||
      (line->count != (5u + (2u * size)))) {
    return;
  }
  for (uint8_t i = 0; i < size; i++) {
    const int high = digit(line->text[5 + (2 * i)]);
    const int low = digit(line->text[6 + (2 * i)]);
    if ((high < 0) || (low < 0)) {
      return;
    }
    data[i] = (uint8_t)((high << 4) | low);
  }
  ve_sim_receive(sim, urgent ? 1u : 0u, data, size, now_us);
}

void ve_line_receive(ve_line_t *line, ve_sim_t *sim, const uint8_t *bytes, uint32_t count, uint64_t now_us) {
  if (line->kind == VE_LINE_SERIAL) {
    ve_sim_receive(sim, 0u, bytes, count, now_us);
    return;
  }
  for (uint32_t i = 0; i < count; i++) {
    if (bytes[i] != (uint8_t)'\r') {
      line->overflowed = line->overflowed || (line->count == sizeof(line->text));
      if (!line->overflowed) {
        line->text[line->count] = (char)bytes[i];
        line->count++;
      }
    } else {
      if (!line->overflowed) {
        take_text(line, sim, now_us);
      }
      line->count = 0;
      line->overflowed = false;
    }
  }
}

/* One CAN frame as text; CAN FD data is filled with zeros, which are empty frames, up to a size that FD knows. */
static uint32_t put_text(const ve_line_t *line, const uint8_t *data, uint8_t size, uint8_t *out) {
  const bool fd = (line->kind == VE_LINE_SLCAN_FD);
  uint8_t code = 0;
  while (FD_SIZES[code] < size) {
    code++;
  }
  const uint8_t sent = FD_SIZES[code];
  char text[8];
  (void)snprintf(text, sizeof(text), "%c%03X%X", fd ? 'b' : 't', (unsigned)(ID_REPORTS | line->node), (unsigned)code);
  memcpy(out, text, 5);
  for (uint8_t i = 0; i < sent; i++) {
    (void)snprintf(text, sizeof(text), "%02X", (unsigned)((i < size) ? data[i] : 0u));
    memcpy(&out[5 + (2 * i)], text, 2);
  }
  out[5 + (2 * sent)] = (uint8_t)'\r';
  return 6u + (2u * sent);
}

uint32_t ve_line_transmit(const ve_line_t *line, ve_sim_t *sim, uint8_t *out) {
  uint8_t bytes[VE_TRANSMIT_SIZE];
  /* Everything that waits, so that it ends where a frame ends. */
  const uint32_t count = ve_sim_transmit(sim, bytes, VE_TRANSMIT_SIZE);
  if (line->kind == VE_LINE_SERIAL) {
    memcpy(out, bytes, count);
    return count;
  }
  const uint32_t longest = (line->kind == VE_LINE_SLCAN_FD) ? FD_SIZE : CLASSIC_SIZE;
  uint32_t size = 0;
  for (uint32_t at = 0; at < count; at += longest) {
    const uint32_t left = count - at;
    size += put_text(line, &bytes[at], (uint8_t)((left < longest) ? left : longest), &out[size]);
  }
  return size;
}
