"""One result, several looks. Knows results, not where they come from."""
