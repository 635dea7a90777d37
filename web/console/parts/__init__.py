"""What all pages of the console share: the blueprint, the menu, words, formats, and lists with a filter."""
