"""What the console's pages cost on a large farm."""
