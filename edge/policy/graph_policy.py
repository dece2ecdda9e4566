"""The policy of a bundle: its engines one after the other, each input filled by its feed or linked to an output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge.arms import ArmProfile
from edge.bundle import ArmSpec, Bundle
from edge.engines import Engine, check_engines, open_engines
from edge.plan.shaping import GoalShaper
from edge.policy.axes import Axes
from edge.policy.base import NO_ROWS, PolicyDriver, PolicyInput, PolicyOutput
from edge.policy.feeds import Buffer, Fill, Surroundings, filler
from edge.policy.prompt import Prompter


@dataclass(frozen=True)
class GraphPolicies(PolicyDriver):
    """Whatever a manifest describes."""

    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        check_engines(bundle, self.engine, self.threads)
        spec = bundle.arm(arm.embodiment, arm.joints)
        Axes(spec, arm)
        if not bundle.manifest.continues:
            GoalShaper(arm)
        self.prompter(bundle)

    def open(self, bundle: Bundle, arm: ArmProfile) -> GraphPolicy:
        spec, prompter = bundle.arm(arm.embodiment, arm.joints), self.prompter(bundle)
        return GraphPolicy(bundle, spec, arm, open_engines(bundle, self.engine, self.threads), prompter)

    def prompter(self, bundle: Bundle) -> Prompter | None:
        """What makes a prompt of the task; None for a policy that takes none."""
        text = bundle.manifest.text
        return None if text is None else Prompter(text, bundle.file(text.tokenizer), self.task)


@dataclass(frozen=True)
class Stage:
    """One engine with what fills its inputs, and what is copied to them: outputs that share no buffer with them."""

    engine: Engine
    fills: tuple[Fill, ...]
    copies: tuple[tuple[Buffer, Buffer], ...]


class GraphPolicy:
    """Holds the engines; one per process that infers."""

    def __init__(
        self,
        bundle: Bundle,
        spec: ArmSpec,
        arm: ArmProfile,
        engines: Mapping[str, Engine],
        prompter: Prompter | None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        manifest = bundle.manifest
        self.shape, self.cameras, self.arm, self.parts = manifest.shape, manifest.cameras, spec, tuple(manifest.engines)
        self.step_s = spec.step_s
        self.observations, self.execute_steps = manifest.policy.observations, manifest.policy.execute
        self._axes = Axes(spec, arm, manifest.policy.first_goal_step)
        self._clock_ns, self._continues = clock_ns, manifest.continues
        self._around = around = Surroundings(manifest, spec, self._axes, prompter)
        self._stages = [_stage(name, engines, around) for name in manifest.engines]
        engine, _, output = manifest.graph.result.partition(".")
        result = engines[engine].outputs[output]
        self._result = result.reshape(result.shape[-2:])

    def set_prompter(self, prompter: Prompter | None) -> None:
        """Another task, from the next chunk on."""
        self._around.prompter = prompter

    @property
    def joints(self) -> int:
        return len(self.arm.axes)

    def describe(self) -> tuple[str, ...]:
        """What runs each engine."""
        return tuple(stage.engine.describe() for stage in self._stages)

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """Computes one chunk. The caller checks that it is finite."""
        draw = np.random.default_rng(observed.seed)
        times_ns = [self._clock_ns()]
        for stage in self._stages:
            for target, source in stage.copies:
                target[...] = source
            for fill in stage.fills:
                fill(observed, draw)
            stage.engine.run()
            times_ns.append(self._clock_ns())
        engine_ns = tuple(end - begin for begin, end in pairwise(times_ns))
        if self._continues:
            return PolicyOutput(self._axes.increments_rad(self._result), engine_ns)
        return PolicyOutput(NO_ROWS, engine_ns, self._axes.goals_rad(self._result, observed))


def _stage(name: str, engines: Mapping[str, Engine], around: Surroundings) -> Stage:
    graph, engine = around.manifest.graph, engines[name]
    fills, copies = [], []
    for port, feed in graph.feeds.items():
        owner, _, tensor = port.partition(".")
        if owner == name and (fill := filler(feed, engine.inputs[tensor], around)) is not None:
            fills.append(fill)
    for source, target in graph.links:
        (maker, _, output), (owner, _, tensor) = source.partition("."), target.partition(".")
        if owner == name and tensor in engine.inputs:
            made, taken = engines[maker].outputs[output], engine.inputs[tensor]
            if not np.shares_memory(made, taken):
                copies.append((taken, made))
    return Stage(engine, tuple(fills), tuple(copies))
