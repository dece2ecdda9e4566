"""GR00T N1.7 as LeRobot trains it: what its folder and those beside it may say, and its networks stated anew."""
