"""How a batch gets on, as its front notes it for operators."""
