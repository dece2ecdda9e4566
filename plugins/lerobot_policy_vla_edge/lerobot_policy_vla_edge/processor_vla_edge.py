"""What LeRobot does around the policy: it renames, and does not normalise, which the engines do."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_pre_post_processors

from lerobot_policy_vla_edge.configuration_vla_edge import VlaEdgeConfig


def make_vla_edge_pre_post_processors(config: VlaEdgeConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """The two pipelines."""
    return make_default_pre_post_processors(config, None)
