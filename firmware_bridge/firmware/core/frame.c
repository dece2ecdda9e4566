#include "frame.h"

#define CRC_POLYNOMIAL 0xEDB88320u
#define COBS_LONGEST 0xFFu

uint16_t ve_get_u16(const uint8_t *at) { return (uint16_t)((uint16_t)at[0] | (uint16_t)((uint16_t)at[1] << 8)); }

uint32_t ve_get_u32(const uint8_t *at) {
  return (uint32_t)at[0] | ((uint32_t)at[1] << 8) | ((uint32_t)at[2] << 16) | ((uint32_t)at[3] << 24);
}

int32_t ve_get_i32(const uint8_t *at) {
  const uint32_t raw = ve_get_u32(at);
  /* Two's complement without relying on an implementation-defined cast. */
  const uint32_t low = raw & 0x7FFFFFFFu;
  return ((raw & 0x80000000u) != 0u) ? (((int32_t)low - INT32_MAX) - 1) : (int32_t)low;
}

void ve_put_u16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)(value & 0xFFu);
  at[1] = (uint8_t)(value >> 8);
}

void ve_put_u32(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value & 0xFFu);
  at[1] = (uint8_t)((value >> 8) & 0xFFu);
  at[2] = (uint8_t)((value >> 16) & 0xFFu);
  at[3] = (uint8_t)(value >> 24);
}

void ve_put_i32(uint8_t *at, int32_t value) { ve_put_u32(at, (uint32_t)value); }

uint32_t ve_crc32(uint32_t crc, const uint8_t *bytes, size_t size) {
  uint32_t rest = ~crc;
  for (size_t i = 0; i < size; i++) {
    rest ^= bytes[i];
    for (uint8_t bit = 0; bit < 8u; bit++) {
      rest = ((rest & 1u) != 0u) ? ((rest >> 1) ^ CRC_POLYNOMIAL) : (rest >> 1);
    }
  }
  return ~rest;
}

static uint32_t seed_of(uint8_t type) {
  const bool unseeded = (type == VE_MESSAGE_TYPE_HELLO) || (type == VE_MESSAGE_TYPE_CAPS);
  return unseeded ? 0u : VE_SCHEMA_HASH;
}

/* Decodes in place; the result is never longer than its input. Returns its length, 0 when a code is broken. */
static uint16_t cobs_decode(uint8_t *bytes, uint16_t count) {
  uint16_t from = 0u;
  uint16_t to = 0u;
  while (from < count) {
    const uint8_t code = bytes[from];
    const uint16_t end = (uint16_t)(from + code);
    if (end > count) {
      return 0u;
    }
    from++;
    while (from < end) {
      bytes[to] = bytes[from];
      from++;
      to++;
    }
    if ((code != COBS_LONGEST) && (from < count)) {
      bytes[to] = 0u;
      to++;
    }
  }
  return to;
}

static bool parse(const uint8_t *body, uint16_t count, ve_frame_t *frame) {
  if (count < (VE_HEADER_SIZE + VE_CRC_SIZE)) {
    return false;
  }
  frame->type = (uint8_t)(body[0] & 0x1Fu);
  frame->session = ve_get_u16(&body[1]);
  frame->sequence = ve_get_u16(&body[3]);
  frame->length = ve_get_u16(&body[5]);
  frame->payload = &body[VE_HEADER_SIZE];
  if ((frame->length > VE_MAX_PAYLOAD) || (((uint32_t)frame->length + VE_HEADER_SIZE + VE_CRC_SIZE) != count)) {
    return false;
  }
  const bool hello = (frame->type == VE_MESSAGE_TYPE_HELLO);
  if (!hello && ((body[0] >> 5) != VE_PROTOCOL_VERSION)) {
    return false;
  }
  const uint16_t signed_size = (uint16_t)(count - VE_CRC_SIZE);
  return ve_crc32(seed_of(frame->type), body, signed_size) == ve_get_u32(&body[signed_size]);
}

bool ve_frame_reader_push(ve_frame_reader_t *reader, uint8_t byte, ve_frame_t *frame) {
  if (byte != 0u) {
    if (reader->count < VE_MAX_FRAME) { /* a full reader holds more than any frame has: it will not parse */
      reader->bytes[reader->count] = byte;
      reader->count++;
    }
    return false;
  }
  const bool anything = (reader->count > 0u);
  const bool good = anything && parse(reader->bytes, cobs_decode(reader->bytes, reader->count), frame);
  if (anything && !good) {
    reader->bad_frames++;
  }
  reader->count = 0u;
  return good;
}

/* Appends one byte of the body to a COBS stream whose open code byte stands at `*code_at`. */
static void cobs_push(uint8_t *out, uint16_t *at, uint16_t *code_at, uint8_t byte) {
  if (byte != 0u) {
    out[*at] = byte;
    (*at)++;
    out[*code_at]++;
  }
  if ((byte == 0u) || (out[*code_at] == COBS_LONGEST)) {
    *code_at = *at;
    out[*at] = 1u;
    (*at)++;
  }
}

uint16_t ve_frame_encode(uint8_t *out, uint8_t type, uint16_t session, uint16_t sequence, const uint8_t *payload,
                         uint16_t length) {
  if (length > VE_MAX_PAYLOAD) {
    return 0u;
  }
  uint8_t header[VE_HEADER_SIZE];
  uint8_t crc_bytes[VE_CRC_SIZE];
  header[0] = (uint8_t)((VE_PROTOCOL_VERSION << 5) | type);
  ve_put_u16(&header[1], session);
  ve_put_u16(&header[3], sequence);
  ve_put_u16(&header[5], length);
  const uint32_t crc = ve_crc32(ve_crc32(seed_of(type), header, VE_HEADER_SIZE), payload, length);
  ve_put_u32(crc_bytes, crc);

  uint16_t at = 1u;
  uint16_t code_at = 0u;
  out[0] = 1u;
  for (uint16_t i = 0u; i < VE_HEADER_SIZE; i++) {
    cobs_push(out, &at, &code_at, header[i]);
  }
  for (uint16_t i = 0u; i < length; i++) {
    cobs_push(out, &at, &code_at, payload[i]);
  }
  for (uint16_t i = 0u; i < VE_CRC_SIZE; i++) {
    cobs_push(out, &at, &code_at, crc_bytes[i]);
  }
  out[at] = 0u;
  return (uint16_t)(at + 1u);
}
