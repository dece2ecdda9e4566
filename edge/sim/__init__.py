"""A simulated Franka, its objects and its camera, in MuJoCo. Needs the ``sim`` extra."""
