"""What each credential has done lately: attempts of the last hour, the last test, what its account has left."""
