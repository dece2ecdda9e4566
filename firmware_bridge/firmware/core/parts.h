/* What the parts of the device share. Calls go down only: device.c and handlers.c (neither calls the
 * other), transitions.c, reports.c, states.c. No port includes this. */
#ifndef VE_PARTS_H
#define VE_PARTS_H

#include "device.h"

/* Armed, streaming or on the way to standstill. */
bool ve_is_moving(uint8_t state);

/* FAULT or ESTOP. */
bool ve_is_latched(uint8_t state);

/* Armed or streaming. */
bool ve_takes_chunks(uint8_t state);

/* A byte may carry a later time than the tick that follows it, when ticks run behind: that is no time, not 2^64 us. */
uint64_t ve_elapsed_us(uint64_t since_us, uint64_t now_us);

bool ve_heartbeat_alive(const ve_device_t *device, uint64_t now_us);

/* Every joint is measured, and as a number: NaN would slip through any comparison further on. */
bool ve_feedback_good(const ve_device_t *device);

/* Commanded off, at the last tick as well, and measured off. */
bool ve_drive_is_off(const ve_device_t *device);

/* Queues a frame in the present session; one that does not fit is dropped and counted. */
void ve_send(ve_device_t *device, uint8_t type, const uint8_t *payload, uint16_t length);

void ve_send_caps(ve_device_t *device);
void ve_send_state(ve_device_t *device, uint64_t now_us);

/* ACK or NAK, in the session of the message: a HELLO that is refused, or an ESTOP, may come from another one. */
void ve_send_verdict(ve_device_t *device, const ve_frame_t *frame, bool acknowledged, ve_verdict_t verdict);

/* Enters a state, and sends the host an EVENT. */
void ve_enter(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us);

/* Enters FAULT or ESTOP, and remembers the session, which may not clear it. */
void ve_latch(ve_device_t *device, uint8_t state, uint8_t reason, uint64_t now_us);

#endif
