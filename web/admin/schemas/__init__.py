"""Request and response models of the admin API and its document. Times are seconds since the epoch."""
