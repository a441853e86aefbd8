"""Training along few directions: random subspaces, and sparse corrections of a fixed dense matrix."""
