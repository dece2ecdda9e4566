"""Simulated arms, their scenes and cameras in MuJoCo, the lockstep runner, the fault table. Needs the ``sim`` extra."""
