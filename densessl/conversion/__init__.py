"""Checkpoints of any project: read as backbones, exported to other frameworks, proven there."""
