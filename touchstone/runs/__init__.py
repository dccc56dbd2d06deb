"""A run of the spec: the session, watched workers, mutants and acceptance, records, evidence and states."""
