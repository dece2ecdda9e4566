"""What SmolVLA, pi0 and pi0.5 share: a vision tower, a prefix of keys and values, an expert that follows a flow."""
