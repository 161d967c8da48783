"""Small network parts shared by the model families."""
