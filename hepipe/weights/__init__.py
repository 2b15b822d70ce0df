"""Weight files by role: what is there, whether it is the right file, its tensors."""
