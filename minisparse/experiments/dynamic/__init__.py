"""Pictures of dynamic sparse training, each with its table."""
