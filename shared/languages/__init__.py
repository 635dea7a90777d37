"""Languages of the console and of alerts: English in the source, the others as gettext catalogues."""
