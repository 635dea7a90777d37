"""What is kept of an answer, and the forms in which it is given."""
