"""What the engine is compared with: the same work, written by hand for the one case at hand."""
