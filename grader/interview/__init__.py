"""Mock interviews: the paper, the sitting, the rubric, the report."""
