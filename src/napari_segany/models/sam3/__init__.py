"""SAM 3: every object of a concept (Carion et al. 2025)."""
