"""What is compared: which prior, when it is let go of, what of the history is seen, how many demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FEW, MANY = 10, 50
"""Demonstrations a task, as in the paper; a task is one of the three cubes."""
EARLY, MIDDLE = 0.1, 0.3
"""N_decay as a share of stage 2. The paper's 3 k and 5 k are 6 and 10 % of 50 k."""
REACH = "reach"
"""The stage-1 set that is of the same arm and task as stage 2."""


@dataclass(frozen=True)
class Stage1:
    """What one prior learns from: a share of the episodes of every set, and what its encoder sees."""

    name: str
    share: float = 1.0
    same_task: bool = True
    encoder_sees: Literal["states and actions", "actions"] = "states and actions"

    def config(self) -> dict[str, Any]:
        """Changes to the tiny preset."""
        return {"encoder_sees": self.encoder_sees}


MUCH = Stage1("much")
LITTLE = Stage1("little", share=0.1)
OTHERS = Stage1("others", same_task=False)
ACTIONS = Stage1("actions", encoder_sees="actions")
PRIORS = {prior.name: prior for prior in (MUCH, LITTLE, OTHERS, ACTIONS)}


@dataclass(frozen=True)
class Variant:
    """One way to train stage 2. `decay` is N_decay as a share of its steps: 0 never distils, None never lets go."""

    name: str
    text: str
    demonstrations: int = MANY
    prior: str | None = MUCH.name
    decay: float | None = MIDDLE
    history: Literal["none", "encoder", "mlp"] = "none"

    def config(self) -> dict[str, Any]:
        """Changes to the tiny preset."""
        prior = PRIORS[self.prior].config() if self.prior else {}
        return {"history_compressor": self.history, **prior}


VARIANTS = (
    Variant("none", "no prior", prior=None, decay=0.0),
    Variant("prior", "prior"),
    Variant("history", "prior + history", history="encoder"),
    Variant("none-few", "no prior, few demonstrations", FEW, prior=None, decay=0.0),
    Variant("prior-few", "prior, few demonstrations", FEW),
    Variant("history-mlp", "prior + history through a plain MLP", history="mlp"),
    Variant("decay-zero", "prior, N_decay zero", decay=0.0),
    Variant("decay-never", "prior, never let go", decay=None),
    Variant("others", "prior from other arms and tasks only", prior=OTHERS.name),
    Variant("little", "prior from a tenth of the stage-1 data", prior=LITTLE.name),
    Variant("actions", "prior from actions alone", prior=ACTIONS.name),
    Variant("decay-early", "prior, N_decay early", decay=EARLY),
)
"""Most important first: that is the order in which they are run."""
BY_NAME = {variant.name: variant for variant in VARIANTS}
