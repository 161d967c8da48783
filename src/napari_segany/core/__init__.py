"""Plain data and rules shared by every layer: axes, intensities, prompts, masks, instances, protocols, errors."""
