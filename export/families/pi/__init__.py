"""pi0 and pi0.5 as LeRobot trains them: what their folders may say, and their networks stated anew."""
