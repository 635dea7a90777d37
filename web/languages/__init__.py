"""The console's languages: English in the source, the others as gettext catalogues."""
