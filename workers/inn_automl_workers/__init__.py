"""What runs on a Ray cluster."""
