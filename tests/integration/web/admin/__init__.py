"""Tests of the console, its logins and sessions."""
