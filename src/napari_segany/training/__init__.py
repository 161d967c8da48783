"""Generated images, losses and training loops."""
