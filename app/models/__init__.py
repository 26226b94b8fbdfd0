"""Models: where they are kept, how they are loaded, and which version is in use."""
