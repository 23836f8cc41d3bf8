"""What the terminal shows. Knows results, not where they come from."""
