"""Languages of pages: which one a reader gets, and the texts to translate (the catalogues are in shared/languages)."""
