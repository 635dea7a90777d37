"""Sign-ins: an owner signs in at the upstream, and the account becomes a credential."""
