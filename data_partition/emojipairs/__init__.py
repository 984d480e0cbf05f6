"""The embedded data set: emoji drawn in six art styles and described in ten text sources, split by concept."""
