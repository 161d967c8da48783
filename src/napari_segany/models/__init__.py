"""The networks, their checkpoints and their registry. Everything that holds a tensor lives here."""
