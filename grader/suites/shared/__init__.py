"""What several suites hold their katas to: properties of nearly every layer, and families."""
