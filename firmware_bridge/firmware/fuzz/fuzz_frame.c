/* Any bytes on the line: no crash, every accepted frame reads back the same, and a good frame after a zero byte gets
 * through whatever came before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "fuzz_frame: %s\n", what);
    abort();
  }
}

/* An accepted frame, encoded again and read by a fresh reader, is the same frame. */
static void read_back(const ve_frame_t *frame) {
  uint8_t encoded[VE_MAX_FRAME];
  ve_frame_reader_t reader = {0};
  ve_frame_t again;
  int complete = 0;
  const uint16_t count =
      ve_frame_encode(encoded, frame->type, frame->session, frame->sequence, frame->payload, frame->length);
  demand(count > 0u, "an accepted frame cannot be encoded");
  for (uint16_t i = 0; i < count; i++) {
    complete += ve_frame_reader_push(&reader, encoded[i], &again) ? 1 : 0;
  }
  demand((complete == 1) && (again.type == frame->type) && (again.session == frame->session) &&
             (again.sequence == frame->sequence) && (again.length == frame->length) &&
             (memcmp(again.payload, frame->payload, frame->length) == 0),
         "an accepted frame reads back differently");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ve_frame_reader_t reader = {0};
  ve_frame_t frame;
  uint8_t good[VE_MAX_FRAME];
  const uint8_t payload[4] = {0, 1, 0, 255};
  for (size_t i = 0; i < size; i++) {
    if (ve_frame_reader_push(&reader, data[i], &frame)) {
      read_back(&frame);
    }
  }
  (void)ve_frame_reader_push(&reader, 0u, &frame);
  const uint16_t count = ve_frame_encode(good, VE_MESSAGE_TYPE_HEARTBEAT, 7u, 9u, payload, sizeof(payload));
  int complete = 0;
  for (uint16_t i = 0; i < count; i++) {
    complete += ve_frame_reader_push(&reader, good[i], &frame) ? 1 : 0;
  }
  demand((complete == 1) && (frame.session == 7u), "a good frame after a zero byte is lost");
  return 0;
}
