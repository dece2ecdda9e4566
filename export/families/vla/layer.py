"""The tensors of a layer of Gemma's and SmolLM's kind: attention with grouped keys, and a gated network."""

from __future__ import annotations


def layer_tensors(
    layer: str, hidden: int, ffn: int, queries: int, shared: int, seen: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the products; `queries` and `shared` are the widths of heads, `seen` that of what is
    attended to."""
    return {
        f"{layer}self_attn.q_proj.weight": (queries, hidden),
        f"{layer}self_attn.k_proj.weight": (shared, seen),
        f"{layer}self_attn.v_proj.weight": (shared, seen),
        f"{layer}self_attn.o_proj.weight": (hidden, queries),
        f"{layer}mlp.gate_proj.weight": (ffn, hidden),
        f"{layer}mlp.up_proj.weight": (ffn, hidden),
        f"{layer}mlp.down_proj.weight": (hidden, ffn),
    }
