"""Who may use the console and the admin API."""
