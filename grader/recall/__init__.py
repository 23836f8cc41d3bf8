"""Active recall: the question bank, numeric answers, quiz sessions."""
