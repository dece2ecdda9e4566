"""Arms of Feetech STS3215 servos on one half-duplex bus: the SO-101."""
