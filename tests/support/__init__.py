"""Builders and real back ends that tests share."""
