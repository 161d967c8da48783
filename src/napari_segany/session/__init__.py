"""Objects, prompts and edits over a stack, and the engines that carry masks along it."""
