/* Frames on a byte stream: COBS, header, payload, CRC-32 seeded with the schema hash. See PROTOCOL.md. */
#ifndef VE_FRAME_H
#define VE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire_messages.h"

/* Decoded frame; `payload` points into the reader and is valid until its next byte. */
typedef struct {
  uint8_t type;
  uint16_t session;
  uint16_t sequence;
  uint16_t length;
  const uint8_t *payload;
} ve_frame_t;

/* All zero to begin with. */
typedef struct {
  uint8_t bytes[VE_MAX_FRAME];
  uint16_t count;
  uint32_t bad_frames;
} ve_frame_reader_t;

/* CRC-32 (IEEE 802.3, reflected) of `size` bytes, continued from `crc`; start with the seed. */
uint32_t ve_crc32(uint32_t crc, const uint8_t *bytes, size_t size);

/* Takes one byte of the line. True when it completed a good frame, which is then in `frame`. */
bool ve_frame_reader_push(ve_frame_reader_t *reader, uint8_t byte, ve_frame_t *frame);

/* Encodes a frame with `length` payload bytes into `out` (VE_MAX_FRAME bytes); returns its size, 0 if it does not fit. */
uint16_t ve_frame_encode(uint8_t *out, uint8_t type, uint16_t session, uint16_t sequence, const uint8_t *payload,
                         uint16_t length);

/* Little-endian access to payloads. */
uint16_t ve_get_u16(const uint8_t *at);
uint32_t ve_get_u32(const uint8_t *at);
int32_t ve_get_i32(const uint8_t *at);
void ve_put_u16(uint8_t *at, uint16_t value);
void ve_put_u32(uint8_t *at, uint32_t value);
void ve_put_i32(uint8_t *at, int32_t value);

#endif
