"""The console at /admin/: pages for operators, made by the same functions as the admin API."""
