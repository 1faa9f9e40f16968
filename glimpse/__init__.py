"""Glimpse: the OpenStack Image service."""
