"""Recordings as they are made, and as they were made: followed or replayed, on one screen."""
