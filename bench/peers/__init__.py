"""Other gateways, each configured for this job as well as we know how, in a module of its own."""
