"""Policy families: how each is read from a checkpoint, and the graphs of its engines. One folder a family."""
