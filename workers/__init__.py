"""RQ workers, each bound by a lease to one credential, that call the upstream."""
