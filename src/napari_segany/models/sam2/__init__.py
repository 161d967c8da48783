"""SAM 2 and 2.1 (Ravi et al. 2024): images as in SAM, stacks through a memory of past frames."""
