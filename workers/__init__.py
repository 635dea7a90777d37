"""The workers: RQ workers as greenlets, each bound by a lease to one credential, that call the upstream."""
