"""Metadata definitions: rules, and files of definitions."""
