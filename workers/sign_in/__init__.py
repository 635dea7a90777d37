"""Carries out sign-ins, and finds out which account a token belongs to."""
