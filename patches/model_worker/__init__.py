"""The device's side, in the scheduler process: embedding, forward pass and sampling."""
