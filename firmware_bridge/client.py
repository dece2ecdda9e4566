"""The host's side of the device: handshake, arming, chunks with retransmission, and what the device reports."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from firmware_bridge.codes import (
    MAGIC,
    MAX_KNOTS,
    MAX_PAYLOAD,
    TICK_US,
    CommitFlag,
    DeviceState,
    MessageType,
    Refusal,
    StopReason,
)
from firmware_bridge.constants import HOST_CLOCK_LIMIT_US, HOST_HEARTBEAT_US, HOST_SILENCE_LIMIT_US, NOBODY
from firmware_bridge.errors import HandshakeError, LinkLost, Refused
from firmware_bridge.link import Link
from firmware_bridge.messages import (
    SCHEMA_HASH,
    Ack,
    Arm,
    Caps,
    Chunk,
    Clear,
    Commit,
    Disarm,
    Estop,
    Event,
    Heartbeat,
    Hello,
    Limits,
    Message,
    Nak,
    StateReport,
    Stop,
)

REPLY_TIMEOUT_NS = 150_000_000
REPLY_TRIES = 8
NO_ANSWER = "the device does not answer to {}; check cable and power"
POLL_S = 0.002
CLOCK_PROBES = 8
CLOCK_PROBE_S = 0.05
CLOCK_SPREAD_S = 0.016
"""Probes fall everywhere in the 16 ms after which an FTDI adapter hands out what has arrived: one comes just before."""
GOLDEN = 0.618034
CLOCK_PROBE_EVERY_NS = 970_000_000
"""About once a second, off the beat of anything periodic."""
CLOCK_ANSWER_S = 0.0008
BEHIND_US = 50_000.0
"""A report that is older than this, by the host's estimate of the device's clock, shows that the estimate is wrong:
reports come every 10 ms, and no line on which the two clocks agree within 1 ms keeps one for so long."""
BEHIND_PROBE_EVERY_NS = 100_000_000
MOST_LEAD_US = 1_000_000
COMMIT_RETRY_NS = 30_000_000
"""An unanswered commit is sent again after this time, and after twice as long each time that follows: on a line that
takes longer than that for a chunk, copies must not pile up faster than they are carried."""


@dataclass(frozen=True)
class KnotChunk:
    """A chunk as it crosses the wire.

    `start_us` is device time modulo 2**32. `q_urad` and `dq_urad_s` have one row per knot, one integer per joint.
    """

    id: int
    start_us: int
    spacing_us: int
    q_urad: tuple[tuple[int, ...], ...]
    dq_urad_s: tuple[tuple[int, ...], ...] | None

    def messages(self) -> list[Message]:
        """The fragments, each as large as a frame allows, and the commit."""
        rows = [self._row(knot) for knot in range(len(self.q_urad))]
        if not 2 <= len(rows) <= MAX_KNOTS:
            raise ValueError(f"a chunk has 2 to {MAX_KNOTS} knots, not {len(rows)}")
        per_frame = (MAX_PAYLOAD - 4) // (4 * len(rows[0]))
        fragments: list[Message] = []
        for first in range(0, len(rows), per_frame):
            part = rows[first : first + per_frame]
            fragments.append(Chunk(self.id, first, len(part), tuple(value for row in part for value in row)))
        flags = CommitFlag.HAS_VELOCITY if self.dq_urad_s is not None else 0
        crc = zlib.crc32(b"".join(value.to_bytes(4, "little", signed=True) for row in rows for value in row))
        return [*fragments, Commit(self.id, len(rows), flags, self.start_us, self.spacing_us, crc)]

    def _row(self, knot: int) -> tuple[int, ...]:
        return self.q_urad[knot] + (self.dq_urad_s[knot] if self.dq_urad_s is not None else ())


@dataclass
class _PendingCommit:
    """A chunk without an answer yet. `sequences` are those of all its commits, the newest last."""

    chunk: KnotChunk
    sequences: tuple[int, ...]
    sent_ns: int


@dataclass
class Inbox:
    """What one poll brought: the newest state, and everything else in order.

    `states` is state and reason of every report and event, in the order in which the device sent them. That need not
    be that of their times: what a message changes bears the time of the message, what a tick changes that of the tick.
    """

    state: StateReport | None = None
    committed: list[int] = field(default_factory=list)
    refused: list[tuple[int, Nak]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    naks: list[Nak] = field(default_factory=list)
    states: list[tuple[int, int]] = field(default_factory=list)


class DeviceClient:
    """One session with one device.

    `idle(seconds)` is called while a handshake waits for an answer: `time.sleep` on a robot, a step of the simulation
    in a lockstep test. `poll`, `heartbeat` and `send_chunk` never wait.
    """

    def __init__(self, link: Link, idle: Callable[[float], None]) -> None:
        self.link = link
        self._idle = idle
        self._pending: _PendingCommit | None = None
        self._last_state_ns = link.clock_ns()
        self._last_probe_ns = link.clock_ns()
        self._is_behind = False
        self.caps: Caps | None = None
        self.last_state: StateReport | None = None
        self.resent = 0
        self.commit_retry_ns = COMMIT_RETRY_NS

    @property
    def last_state_ns(self) -> int:
        """When the newest report was taken, on the host's clock."""
        return self._last_state_ns

    # Handshake -------------------------------------------------------------------------------------------------------

    def connect(self, arm: str, profile_hash: int, joints: int) -> Caps:
        """Opens the session and checks that this is the expected device. Raises `HandshakeError`."""
        self.link.joints = joints
        caps = self._exchange(Hello(MAGIC, SCHEMA_HASH), Caps, "does not answer; check port, baud rate and power")
        assert isinstance(caps, Caps)
        name = caps.arm.rstrip(b"\0").decode("ascii", "replace")
        name = "".join(letter if letter.isprintable() else "?" for letter in name)
        if caps.magic != MAGIC:
            raise HandshakeError("what answers on this port is not a vla-edge device")
        if caps.schema != SCHEMA_HASH:
            raise HandshakeError(
                f"the firmware speaks schema {caps.schema:08x}, this host {SCHEMA_HASH:08x}; "
                "flash the firmware of this version"
            )
        if name != arm or caps.joints != joints:
            raise HandshakeError(
                f"the firmware drives '{name}' with {caps.joints} joints, not '{arm}'; "
                f"choose --arm {name} or flash another"
            )
        if caps.profile != profile_hash:
            raise HandshakeError(
                f"the firmware's limits for '{name}' are not those of this host's profile; "
                "flash the firmware of this version"
            )
        if caps.tick_us != TICK_US or caps.min_lead_us > MOST_LEAD_US:
            raise HandshakeError(
                f"the firmware ticks every {caps.tick_us} us and wants chunks {caps.min_lead_us} us early; "
                "flash the firmware of this version"
            )
        self.caps = caps
        return caps

    def set_limits(self, limits: Limits) -> None:
        """Tightens the limits of this session. Raises `HandshakeError`."""
        self._command(limits, "the limits")

    def synchronise_clock(self) -> float:
        """Exchanges times until the clocks agree; returns the uncertainty in microseconds. Raises `HandshakeError`."""
        for attempt in range(5 * CLOCK_PROBES):
            self.link.exchange_clock(self._idle, CLOCK_PROBE_S)
            self._idle(CLOCK_PROBE_S + CLOCK_SPREAD_S * (GOLDEN * attempt % 1))
            if attempt + 1 >= CLOCK_PROBES and self.link.clock.uncertainty_us < HOST_CLOCK_LIMIT_US:
                return self.link.clock.uncertainty_us
        raise HandshakeError(
            f"the clocks agree only to {self.link.clock.uncertainty_us / 1000:.1f} ms "
            f"(limit {HOST_CLOCK_LIMIT_US / 1000:g} ms); the line is too slow or too loaded"
        )

    def wait_for_state(self) -> StateReport:
        """The next state report. Raises `LinkLost`."""
        for _ in range(round(1.0 / POLL_S)):
            state = self.poll(self.link.clock_ns()).state
            if state is not None:
                return state
            self._idle(POLL_S)
        raise LinkLost("the device sends no state; check port and baud rate")

    def arm(self, pose_urad: tuple[int, ...], loop_tick: int) -> None:
        """Switches the drive on at the pose the host believes in. The heart beats until the answer is there: the first
        beat may be lost, and without one the arm is armed in vain. Raises `HandshakeError`."""
        beats = count()

        def beat() -> None:
            self.heartbeat(loop_tick - next(beats) % 2)  # an unchanged tick is none

        for attempt in range(REPLY_TRIES):
            beat()
            try:
                if self._attempt(Arm(pose_urad), "arming", beat):
                    return
            except Refused as refused:
                if refused.refusal != Refusal.HEARTBEAT_MISSING or attempt + 1 == REPLY_TRIES:
                    raise
        raise HandshakeError(NO_ANSWER.format("arming"))

    def stop(self) -> None:
        """Asks for a controlled stop; the device reports HOLD once it stands still."""
        self._command(Stop(), "the stop")

    def disarm(self) -> None:
        """Switches the drive off, from standstill. Raises `HandshakeError`."""
        self._command(Disarm(), "disarming")

    def clear(self) -> None:
        """Leaves FAULT or ESTOP. Raises `HandshakeError`."""
        self._command(Clear(), "clearing the fault")

    def estop(self) -> None:
        """Emergency stop. Sent at once and several times; does not wait."""
        for _ in range(3):
            self.link.send(Estop())

    # In the loop -----------------------------------------------------------------------------------------------------

    def heartbeat(self, loop_tick: int) -> None:
        """Sends that the control loop has reached `loop_tick`."""
        self.link.send(Heartbeat(loop_tick & 0xFFFFFFFF))

    def send_stop(self) -> None:
        """As `stop`, without waiting for the answer, which is the state."""
        self.link.send(Stop())

    def send_arm(self, pose_urad: tuple[int, ...]) -> None:
        """As `arm` in a loop that sends heartbeats, without waiting: a refusal comes with a later `poll`."""
        self.link.send(Arm(pose_urad))

    def send_chunk(self, chunk: KnotChunk) -> None:
        """Sends a chunk and its commit; the answer comes with a later `poll`. One chunk is on its way at a time."""
        self._pending = self._sent(chunk, ())

    @property
    def commit_pending(self) -> bool:
        """Whether a commit waits for its answer."""
        return self._pending is not None

    def poll(self, now_ns: int) -> Inbox:
        """Takes what has arrived and resends an unanswered commit. Raises `LinkLost` on a dead line."""
        inbox = Inbox()
        for message in self.link.receive():
            self._sort(message, inbox)
        if inbox.state is not None:
            self._last_state_ns = now_ns
            clock = self.link.clock
            self._is_behind = clock.device_us(now_ns) - clock.unwrap(inbox.state.device_us) > BEHIND_US
        self._resend(now_ns, inbox)
        return inbox

    def keep_clock(self, now_ns: int, slack_s: float) -> None:
        """About once a second, and only with time to spare, exchanges clocks; waits at most `CLOCK_ANSWER_S`.

        Ten times a second while the device's reports are behind the estimate of its clock.
        """
        every_ns = BEHIND_PROBE_EVERY_NS if self._is_behind else CLOCK_PROBE_EVERY_NS
        if now_ns - self._last_probe_ns >= every_ns and slack_s > 2 * CLOCK_ANSWER_S:
            self._last_probe_ns = now_ns
            self.link.exchange_clock(self._idle, CLOCK_ANSWER_S)

    def check_alive(self, now_ns: int) -> None:
        """Raises `LinkLost` when the device has been silent for too long. Call after `poll`."""
        silent_ns = now_ns - self._last_state_ns
        if silent_ns > 1000 * HOST_SILENCE_LIMIT_US:
            raise LinkLost(f"no state from the device for {silent_ns / 1e6:.0f} ms; check cable and power")

    # Inside ----------------------------------------------------------------------------------------------------------

    def _sort(self, message: Message, inbox: Inbox) -> None:
        pending = self._pending
        if isinstance(message, (StateReport, Event)):
            inbox.states.append((message.state, message.reason))
        if isinstance(message, StateReport):
            inbox.state = self.last_state = message
        elif isinstance(message, Event):
            inbox.events.append(message)
        elif isinstance(message, Ack) and message.type == MessageType.COMMIT:
            if pending is not None and message.sequence in pending.sequences:
                inbox.committed.append(pending.chunk.id)
                self._pending = None
        elif isinstance(message, Nak):
            # Only the newest commit's refusal counts: an older one may have missed a fragment that was sent again.
            newest = pending is not None and message.sequence == pending.sequences[-1]
            if pending is not None and message.type == MessageType.COMMIT and newest:
                self._pending = None
                if message.refusal == Refusal.KNOTS_MISSING and len(pending.sequences) < REPLY_TRIES:
                    self._send_again(pending)
                else:
                    inbox.refused.append((pending.chunk.id, message))
            elif message.type not in (MessageType.CHUNK, MessageType.COMMIT):
                inbox.naks.append(message)

    def _resend(self, now_ns: int, inbox: Inbox) -> None:
        pending = self._pending
        if pending is None:
            return
        wait_ns = self.commit_retry_ns << (len(pending.sequences) - 1)
        if now_ns - pending.sent_ns < wait_ns:
            return
        left_us = self.link.clock.unwrap(pending.chunk.start_us) - self.link.clock.device_us(now_ns)
        if left_us > COMMIT_RETRY_NS / 1000:
            self._send_again(pending)
        elif left_us < 0:  # its time has passed: never replayed. Until then an answer may still be on its way.
            self._pending = None
            late = Nak(
                pending.sequences[-1], MessageType.COMMIT, Refusal.LEAD_TOO_SHORT, DeviceState.STREAMING, NOBODY, NOBODY
            )
            inbox.refused.append((pending.chunk.id, late))

    def _send_again(self, pending: _PendingCommit) -> None:
        self.resent += 1
        self._pending = self._sent(pending.chunk, pending.sequences)

    def _sent(self, chunk: KnotChunk, before: tuple[int, ...]) -> _PendingCommit:
        sequence = 0
        for message in chunk.messages():
            sequence = self.link.send(message)
        return _PendingCommit(chunk, (*before, sequence), self.link.clock_ns())

    def _exchange(self, message: Message, answer: type[Message], failure: str) -> Message:
        for _ in range(REPLY_TRIES):
            sequence = self.link.send(message)
            deadline_ns = self.link.clock_ns() + REPLY_TIMEOUT_NS
            while self.link.clock_ns() < deadline_ns:
                for received in self.link.receive():
                    if isinstance(received, answer):
                        return received
                    if isinstance(received, Nak) and received.sequence == sequence:
                        raise HandshakeError(
                            f"the device refuses a session: {refusal_text(received)}; stop the arm first"
                        )
                self._idle(POLL_S)
        raise HandshakeError(f"the device {failure}")

    def _command(self, message: Message, what: str) -> None:
        if not any(self._attempt(message, what) for _ in range(REPLY_TRIES)):
            raise HandshakeError(NO_ANSWER.format(what))

    def _attempt(self, message: Message, what: str, beat: Callable[[], None] | None = None) -> bool:
        """Sends a command once; whether it was carried out, as far as is known. Raises `Refused`."""
        sequence = self.link.send(message)
        sent_ns = self.link.clock_ns()
        beat_ns = sent_ns + 1000 * HOST_HEARTBEAT_US
        now_ns = sent_ns
        while now_ns < sent_ns + REPLY_TIMEOUT_NS:
            now_ns = self.link.clock_ns()  # looked at once more after it: what has come meanwhile counts
            if beat is not None and now_ns >= beat_ns:
                beat()
                beat_ns += 1000 * HOST_HEARTBEAT_US
            for received in self.link.receive():
                if isinstance(received, Ack) and received.sequence == sequence:
                    self._last_state_ns = max(self._last_state_ns, now_ns)  # as good a sign of life
                    return True
                if isinstance(received, Nak) and received.sequence == sequence:
                    raise Refused(f"the device refuses {what}: {refusal_text(received)}", received.refusal)
                if isinstance(received, StateReport):
                    self._last_state_ns = self.link.clock_ns()
            self._idle(POLL_S)
        return False


def refusal_text(nak: Nak) -> str:
    """A refusal as text: what, of which joint and knot, in which state."""
    name = Refusal(nak.refusal).name if nak.refusal in set(Refusal) else f"reason {nak.refusal}"
    joint = f", joint {nak.joint + 1}" if nak.joint != NOBODY else ""
    knot = f", knot {nak.knot}" if nak.knot != NOBODY else ""
    state = DeviceState(nak.state).name if nak.state in set(DeviceState) else str(nak.state)
    return f"{name.lower().replace('_', ' ')}{joint}{knot} (device in {state})"


def stop_text(state: int, reason: int) -> str:
    """A state and the reason for it as text."""
    name = DeviceState(state).name if state in set(DeviceState) else str(state)
    why = StopReason(reason).name.lower().replace("_", " ") if reason in set(StopReason) else str(reason)
    return f"{name} ({why})"
