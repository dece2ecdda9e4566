"""What the lifting task may be called; no simulator is needed to know it."""

from __future__ import annotations

COLOURS_AND_SHAPES = {"red": "cube", "green": "can", "blue": "brick"}
OBJECTS = tuple(f"{colour} {shape}" for colour, shape in COLOURS_AND_SHAPES.items())
PHRASES = ("pick up the {}", "lift the {}", "grab the {}", "raise the {}")
INSTRUCTIONS = tuple(phrase.format(name) for phrase in PHRASES for name in OBJECTS)
DISTURBED = "(disturbed)"
"""The task of steps that are no demonstration."""
