"""A package of somebody else's, with one extension of each kind in a module of its own."""
