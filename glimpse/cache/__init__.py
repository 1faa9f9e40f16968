"""Copies of image bytes on this node."""
