"""SmolVLA as LeRobot trains it: what its folder may say, and its networks stated anew."""
